"""How well the live version ranks what users did next; definitions as in docs/evaluation.md."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from feast_embeddings.analysis.drift.live_rows import LiveRows, TrainedRows
from feast_embeddings.analysis.drift.new_interactions import NewInteractions
from feast_embeddings.arguments import Id
from feast_embeddings.artifact import Entity
from feast_embeddings.artifact.seen import SEEN
from feast_embeddings.query.ranking import rank_vectors

if TYPE_CHECKING:
    from feast_embeddings.query.collection import LiveCollection
    from feast_embeddings.query.live import LiveModel

__all__ = ["RANKS", "Estimate", "Quality", "measure_quality"]

RANKS = 20
_BATCH = 256
_RESAMPLES = 1000


@dataclass(frozen=True)
class Estimate:
    """A mean over users, and its 95 % interval by a bootstrap of the users (Efron & Tibshirani, 1993, ch. 13)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Quality:
    """How well the new interactions of known users with known items were ranked, without what users had seen before.

    Attributes:
        n_users: sampled users with such an interaction.
        scores: ``recall@20`` and ``ndcg@20`` of the live ranking; with ``popular_`` before, of the items by their
            interactions in the version's training.
    """

    n_users: int
    scores: dict[str, Estimate]


def measure_quality(
    live: LiveModel,
    trained: TrainedRows,
    rows: dict[Entity, LiveRows],
    new: NewInteractions,
    *,
    sample: int,
    seed: int,
) -> Quality | None:
    """Rank items for users with new interactions, by their stored vectors, and look where the new items are.

    Recorded events change what `EmbeddingStore.rank` answers, so they are not asked for: they may be what is to be
    predicted.

    Args:
        trained: the items of the version.
        rows: the live users and items.
        sample: the most users, chosen by `seed`.

    Returns:
        None if no known user has a new interaction with a known item that they had not seen.

    Raises:
        VersionMismatchError: users and items are of different spaces.
    """
    users, items = live.same_space()
    frame = pd.DataFrame({entity: new.ids[entity].to_pandas() for entity in ("user", "item")}).drop_duplicates()
    frame = frame[frame["user"].isin(rows["user"].ids) & frame["item"].isin(rows["item"].ids)]
    frame = frame[~frame["item"].isin(list(items.hidden_ids))]
    later: dict[Any, list[Id]] = frame.groupby("user", sort=True)["item"].agg(list).to_dict()
    ids = list(later)
    order = [ids[place] for place in np.random.default_rng(seed).permutation(len(ids)).tolist()]
    popular = trained.places[np.argsort(-trained.counts, kind="stable")].tolist()
    popular = [id for id in popular if id not in items.hidden_ids]
    values: list[list[float]] = []
    for start in range(0, len(order), _BATCH):
        asked = order[start : start + _BATCH]
        vectors: list[npt.NDArray[np.float32] | None] = []
        truths: list[set[Id]] = []
        histories: list[set[Id]] = []
        for id, (vector, seen) in zip(asked, _stored(users, asked), strict=True):
            truth = set(later[id]) - seen
            if truth and len(values) + len(truths) < sample:
                vectors.append(vector)
                truths.append(truth)
                histories.append(seen)
        points = [items.side.point_ids(seen) for seen in histories]
        answers = rank_vectors(items, vectors, points, RANKS, attributes=False)
        for truth, seen, answer in zip(truths, histories, answers, strict=True):
            ranked = [] if answer is None else answer.ids
            values.append([*_metrics(ranked, truth), *_metrics(_unseen(popular, seen), truth)])
        if len(values) >= sample:
            break
    if not values:
        return None
    names = [f"recall@{RANKS}", f"ndcg@{RANKS}", f"popular_recall@{RANKS}", f"popular_ndcg@{RANKS}"]
    return Quality(len(values), dict(zip(names, _estimates(np.array(values), seed), strict=True)))


def _stored(users: LiveCollection, ids: Sequence[Id]) -> Iterator[tuple[npt.NDArray[np.float32] | None, set[Id]]]:
    """Yield the vector of each user as it is stored, and the items that it was learned from."""
    codec, name = users.side.codec, users.side.field.name
    for point in users.points(ids, name, codec.payload_keys(SEEN) if SEEN in codec.types else []):
        seen: Any = () if point is None or SEEN not in codec.types else codec.native(SEEN, point.payload)
        yield (None if point is None else point.vectors[name]), set(seen or ())


def _unseen(popular: Sequence[Id], seen: set[Id]) -> list[Id]:
    return [id for id in popular[: RANKS + len(seen)] if id not in seen][:RANKS]


def _metrics(ranked: Sequence[Id], truth: set[Id]) -> tuple[float, float]:
    hits = np.array([id in truth for id in ranked], dtype=np.float64)
    discounts = 1 / np.log2(np.arange(2, 2 + max(len(hits), RANKS)))
    return float(hits.sum() / len(truth)), float(
        hits @ discounts[: len(hits)] / discounts[: min(RANKS, len(truth))].sum()
    )


def _estimates(values: npt.NDArray[np.float64], seed: int) -> list[Estimate]:
    n = len(values)
    drawn = np.random.default_rng(seed).integers(n, size=(_RESAMPLES, n))
    ends = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975], axis=0)
    return [Estimate(*each) for each in np.column_stack([values.mean(axis=0), *ends]).tolist()]
