"""Compare two versions of a model: their ids, how far vectors and lists moved, and which items moved most.

Neighbours and ranked lists mean the same in every space, so they can always be compared. A vector can be compared
with its successor only if both versions share a space.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from feast_embeddings.artifact import ENTITIES, Artifact, Entity, Manifest
from feast_embeddings.artifact.attributes import CONTENT_EMBEDDING, RESERVED_COLUMNS
from feast_embeddings.artifact.brute_force import highest
from feast_embeddings.errors import InputError
from feast_embeddings.offline.moves import blocks, cosines_of, n_shared, neighbour_overlaps, sample_rows
from feast_embeddings.offline.version_pair import Pair, pair_of

__all__ = ["Moved", "SideDiff", "VersionDiff", "diff_artifacts"]

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int64]

# The length of the lists whose order is compared.
_LIST = 100


@dataclass(frozen=True)
class SideDiff:
    """Changes of the users or the items. "Kept" ids are in both versions; all values but the counts are about them.

    Attributes:
        n_old, n_new, n_kept, n_added, n_gone: counts of ids.
        norm_old, norm_new: median length of a vector.
        norm_ratio: median over the kept of new length ÷ old length.
        neighbour_overlap: share of the k nearest by cosine, among the kept, that stayed; mean over `n_sampled` of them.
        cosine: mean cosine between the old and the new vector of an id; None if the versions share no space.
        cosine_p10: the 10th percentile of these cosines.
    """

    n_old: int
    n_new: int
    n_kept: int
    n_added: int
    n_gone: int
    norm_old: float | None
    norm_new: float | None
    norm_ratio: float | None
    neighbour_overlap: float | None
    n_sampled: int
    cosine: float | None
    cosine_p10: float | None


@dataclass(frozen=True)
class Moved:
    """An item that moved; `attributes` are the new version's."""

    id: str | int
    neighbour_overlap: float | None
    cosine: float | None
    n_interactions_old: int
    n_interactions_new: int
    attributes: dict[str, Any]


@dataclass(frozen=True)
class VersionDiff:
    """What changed from the version `old` to `new`.

    Attributes:
        same_space: whether their vectors can be compared, and models trained on the old keep working with the new.
        sides: by ``user`` and ``item``.
        top_overlap: share of a user's k highest items (user · item + bias, among the kept items, seen ones included)
            that stayed; mean over `n_ranked_users` sampled users.
        rank_correlation: Spearman's correlation between the old and the new order of the 100 items that the old
            version ranks highest for a user; mean over the same users. 1 is the same order, 0 none in common.
        worst_moved: the items that moved most: lowest cosine between old and new vector, or, if the versions share no
            space, lowest neighbour overlap among the sampled items; ties by more interactions first.
    """

    model: str
    old: str
    new: str
    old_space: str
    new_space: str
    same_space: bool
    k: int
    sides: dict[Entity, SideDiff]
    top_overlap: float | None
    rank_correlation: float | None
    n_ranked_users: int
    worst_moved: list[Moved]


def diff_artifacts(
    old: Artifact, new: Artifact, *, k: int = 10, sample: int = 2000, worst: int = 10, seed: int = 0
) -> VersionDiff:
    """Compare two versions of a model.

    Counts, lengths and cosines cover all ids. Neighbours and lists are exact, for a random sample: each needs a
    product with all vectors, so time grows with sample × number of ids.

    Args:
        k: neighbours and list entries to compare.
        sample: how many users and how many items to compare, at most.
        worst: how many of the items that moved most to list.
        seed: seed of the sample; equal arguments give equal results.

    Raises:
        InputError: the versions are of different models, or have ids of different types, or an argument is below 1.
        ArtifactError: a file is missing or damaged.
    """
    if min(k, sample) < 1 or worst < 0:
        raise InputError(f"k and sample must be at least 1 and worst at least 0, got {k}, {sample} and {worst}")
    before, after = old.manifest, new.manifest
    if before.model != after.model:
        raise InputError(f"{before.version} is of model {before.model!r}, {after.version} of {after.model!r}")
    same_space = before.space_id == after.space_id
    if before.sides != after.sides:
        raise InputError(f"{before.version} has {_named(before)}, {after.version} has {_named(after)}")
    pairs = {entity: pair_of(entity, old, new) for entity in after.sides}
    rng = np.random.default_rng(seed)
    chosen = {entity: sample_rows(rng, pair.n_kept, sample) for entity, pair in pairs.items()}
    overlaps = {entity: neighbour_overlaps(pair, chosen[entity], k) for entity, pair in pairs.items()}
    cosines = {entity: cosines_of(pair) if same_space else None for entity, pair in pairs.items()}
    top = correlation = np.empty(0)
    if len(pairs) == len(ENTITIES):
        top, correlation = _lists(pairs["user"], pairs["item"], chosen["user"], k)
    moved: Entity = "item" if "item" in pairs else "user"
    return VersionDiff(
        model=before.model,
        old=before.version,
        new=after.version,
        old_space=before.space_id,
        new_space=after.space_id,
        same_space=same_space,
        k=k,
        sides={entity: _side(pair, overlaps[entity], cosines[entity]) for entity, pair in pairs.items()},
        top_overlap=_mean(top),
        rank_correlation=_mean(correlation),
        n_ranked_users=len(top),
        worst_moved=_worst(new, moved, pairs[moved], chosen[moved], overlaps[moved], cosines[moved], worst),
    )


def _named(manifest: Manifest) -> str:
    return " and ".join(f"{entity}s" for entity in manifest.sides)


def _side(pair: Pair, overlaps: npt.NDArray[np.float64], cosines: _Floats | None) -> SideDiff:
    old, new = pair.old.norms, pair.new.norms
    # A vector of length 0 has no ratio.
    ratios = new[old > 0] / old[old > 0]
    return SideDiff(
        n_old=pair.old.files.num_rows,
        n_new=pair.new.files.num_rows,
        n_kept=pair.n_kept,
        n_added=pair.new.files.num_rows - pair.n_kept,
        n_gone=pair.old.files.num_rows - pair.n_kept,
        norm_old=float(np.median(old)) if pair.n_kept else None,
        norm_new=float(np.median(new)) if pair.n_kept else None,
        norm_ratio=float(np.median(ratios)) if len(ratios) else None,
        neighbour_overlap=_mean(overlaps),
        n_sampled=len(overlaps),
        cosine=None if cosines is None else _mean(cosines),
        cosine_p10=float(np.quantile(cosines, 0.1)) if cosines is not None and pair.n_kept else None,
    )


def _lists(users: Pair, items: Pair, chosen: _Ints, k: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return, per chosen user, the share of the k best items that stayed, and the rank correlation of the best."""
    n = items.n_kept
    k, length = min(k, n), min(_LIST, n)
    if length < 2:
        return np.empty(0), np.empty(0)
    shares, correlations = np.empty(len(chosen)), np.empty(len(chosen))
    for block in blocks(len(chosen), n):
        rows = chosen[block]
        old = users.old.vectors[rows] @ items.old.vectors.T + items.old.bias
        new = users.new.vectors[rows] @ items.new.vectors.T + items.new.bias
        shares[block] = n_shared(highest(old, k), highest(new, k)) / k
        best = highest(old, length)
        ranks = [_ranks(np.take_along_axis(scores, best, axis=1)) for scores in (old, new)]
        # Spearman's correlation of two orders without ties.
        distance = ((ranks[0] - ranks[1]) ** 2).sum(axis=1)
        correlations[block] = 1 - 6 * distance / (length * (length**2 - 1))
    return shares, correlations


def _worst(
    new: Artifact,
    entity: Entity,
    pair: Pair,
    chosen: _Ints,
    overlaps: npt.NDArray[np.float64],
    cosines: _Floats | None,
    n: int,
) -> list[Moved]:
    overlap = dict(zip(chosen.tolist(), overlaps.tolist(), strict=False))
    # Rows among the kept, and the distance that each moved.
    rows, measure = (chosen[: len(overlaps)], overlaps) if cosines is None else (np.arange(len(cosines)), cosines)
    moved = rows[np.lexsort((-pair.new.counts[rows], measure))[:n]]
    files = new.verified(entity)
    columns = [name for name in files.schema.names if name not in ("embedding", CONTENT_EMBEDDING)]
    after = files.take(pair.new.rows[moved], columns).to_pylist()
    return [
        Moved(
            id=attributes[f"{entity}_id"],
            neighbour_overlap=overlap.get(row),
            cosine=None if cosines is None else float(cosines[row]),
            n_interactions_old=old_count,
            n_interactions_new=attributes["n_interactions"],
            attributes={name: value for name, value in attributes.items() if name not in RESERVED_COLUMNS},
        )
        for row, old_count, attributes in zip(moved.tolist(), pair.old.counts[moved].tolist(), after, strict=True)
    ]


def _ranks(scores: _Floats) -> npt.NDArray[np.float64]:
    return np.argsort(np.argsort(-scores, axis=1, kind="stable"), axis=1, kind="stable").astype(np.float64)


def _mean(values: npt.NDArray[Any]) -> float | None:
    return float(values.mean()) if len(values) else None
