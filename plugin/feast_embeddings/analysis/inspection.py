"""One user or item: the length of its vector, its neighbours, its origin, and whether to trust it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from feast_embeddings.analysis.members import Members, attribute_names, read_members

if TYPE_CHECKING:
    from feast_embeddings.arguments import Id
    from feast_embeddings.artifact import Entity
    from feast_embeddings.query.store import EmbeddingStore

__all__ = ["Inspection", "inspect_member"]

# Vectors of fewer interactions are mostly chance.
_FEW = 5
# A vector whose nearest is further away than for this share of all has no neighbourhood.
_LONELY = 0.01
_SAMPLE = 1000


@dataclass(frozen=True)
class Inspection:
    """What is known of a vector.

    Attributes:
        norm_rank, interactions_rank: share of all that have less, in [0, 1].
        nearest_rank: share of a sample whose nearest neighbour is less near than this one's.
        source: ``training``; ``an earlier version`` for a row that was carried over; ``a write after training`` for one
            that was folded in or pushed.
        age_days: from the newest data it was learned from to the live version's newest; negative for a later write.
        attributes_known: of `n_attributes`, those that have a value.
        hidden: whether answers leave it out, see `EmbeddingStore.hide`.
        seen_known: of the `seen` items of a user, those that the live version knows; None for items.
        doubts: why not to trust it; empty if nothing is wrong.
    """

    entity: Entity
    id: Id
    version: str
    norm: float
    norm_rank: float
    n_interactions: int
    interactions_rank: float
    nearest: list[dict[str, Any]]
    nearest_rank: float | None
    source: str
    row_version: str
    event_timestamp: datetime
    age_days: float
    hidden: bool
    attributes: dict[str, Any]
    attributes_known: int
    n_attributes: int
    seen: int | None
    seen_known: int | None
    doubts: list[str]


def inspect_member(store: EmbeddingStore, entity: Entity, id: Id, *, k: int = 5, seed: int = 0) -> Inspection:
    """Collect facts about one live vector; reads all of its side.

    Raises:
        UnknownIdError: the live version has no such user or item.
        NotPublishedError, MissingSideError: as in `EmbeddingStore.export`.
    """
    members = read_members(store, entity)
    row = members.row_of(id)
    similar = store.similar_users if entity == "user" else store.similar_items
    # A vector of length 0 has no direction.
    nearest = similar(id, k).to_dicts() if members.norms[row] > 0 and len(members) > 1 else []
    values = members.table.slice(row, 1).to_pylist()[0]
    counts = members.interactions
    names = attribute_names(members)
    as_of = datetime.fromisoformat(members.as_of)
    age = (as_of - values["event_timestamp"]).total_seconds() / 86400
    row_version = values.get("version") or members.version
    seen = values.get("seen_items")
    known = None if seen is None else int(store.item_embeddings(seen).found.sum()) if seen else 0
    nearest_rank = _nearest_rank(members, row, seed)
    source = (
        "an earlier version" if row_version != members.version else "a write after training" if age < 0 else "training"
    )
    return Inspection(
        entity=entity,
        id=id,
        version=members.version,
        norm=float(members.norms[row]),
        norm_rank=_rank(members.norms, row),
        n_interactions=int(counts[row]),
        interactions_rank=_rank(counts, row),
        nearest=nearest,
        nearest_rank=nearest_rank,
        source=source,
        row_version=row_version,
        event_timestamp=values["event_timestamp"],
        age_days=age,
        hidden=values[members.id_name] in store.hidden(entity),
        attributes={name: values[name] for name in names},
        attributes_known=sum(values[name] is not None for name in names),
        n_attributes=len(names),
        seen=None if seen is None else len(seen),
        seen_known=known,
        doubts=_doubts(members, row, nearest_rank, row_version, seen, known),
    )


def _rank(values: npt.NDArray[Any], row: int) -> float:
    return float((values < values[row]).mean())


def _nearest_rank(members: Members, row: int, seed: int) -> float | None:
    """Return the share of a sample whose nearest neighbour is less near; None where there is too little to compare."""
    if len(members) < 3 or members.norms[row] == 0:
        return None
    sample = np.random.default_rng(seed).permutation(len(members))[:_SAMPLE]
    rows = np.concatenate([[row], sample[sample != row]])
    best = np.empty(len(rows), np.float32)
    step = max(1, 20_000_000 // len(members))  # rows of cosines in memory at a time
    for start in range(0, len(rows), step):
        some = rows[start : start + step]
        cosines = members.unit[some] @ members.unit.T
        cosines[np.arange(len(some)), some] = -np.inf
        best[start : start + step] = cosines.max(axis=1)
    return float((best[1:] < best[0]).mean())


def _doubts(
    members: Members, row: int, nearest_rank: float | None, row_version: str, seen: list[Any] | None, known: int | None
) -> list[str]:
    doubts = []
    if members.norms[row] == 0:
        doubts.append("its vector has length 0, so it is near to nothing")
    count = int(members.interactions[row])
    if count == 0:
        doubts.append("training knew of no interactions of it")
    elif count < _FEW:
        doubts.append(f"it was learned from {count} interaction{'' if count == 1 else 's'} only")
    if nearest_rank is not None and nearest_rank < _LONELY:
        doubts.append("its nearest neighbour is further away than for nearly all others")
    if row_version != members.version:
        doubts.append(f"it was carried over from version {row_version}: the last training did not have it")
    if seen and known is not None and known < len(seen) / 2:
        doubts.append(f"the live version knows only {known} of the {len(seen)} items that it was learned from")
    return doubts
