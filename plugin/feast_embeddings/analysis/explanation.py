"""Why two users or items are near, and which of a user's items speak for an item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.analysis.members import attribute_names, read_members
from feast_embeddings.errors import InputError, MissingSideError, UnknownIdError

if TYPE_CHECKING:
    from feast_embeddings.arguments import Id
    from feast_embeddings.artifact import Entity
    from feast_embeddings.query.store import EmbeddingStore

__all__ = ["Nearness", "explain_nearness", "explain_score"]


@dataclass(frozen=True)
class Nearness:
    """What two users or items have in common.

    Attributes:
        cosine_rank: share of the others that are less near to the first than the second is.
        shared_attributes: equal values; of lists, the common ones.
        with_first, with_second, with_both: users of each item, or items of each user; None if the model has no users.
        lift: how many times more often both come together than by chance; None if one has no interactions.
    """

    version: str
    cosine: float
    cosine_rank: float
    shared_attributes: dict[str, Any]
    with_first: int | None
    with_second: int | None
    with_both: int | None
    lift: float | None


def explain_nearness(store: EmbeddingStore, entity: Entity, first: Id, second: Id) -> Nearness:
    """Say what two users or items have in common.

    Raises:
        UnknownIdError: the live version does not have one of them.
    """
    members = read_members(store, entity)
    a, b = members.row_of(first), members.row_of(second)
    cosines = members.unit @ members.unit[a]
    rows = members.table.take([a, b]).to_pylist()
    shared = {}
    for name in attribute_names(members):
        one, other = (row[name] for row in rows)
        if isinstance(one, list):
            if common := [value for value in one if value in (other or [])]:
                shared[name] = common
        elif one is not None and one == other:
            shared[name] = one
    counts: tuple[int, int, int, int] | None
    if entity == "user":
        seen = [set(row.get("seen_items") or ()) for row in rows]
        in_both = len(seen[0] & seen[1])
        counts = (len(seen[0]), len(seen[1]), in_both, _count_items(store)) if "seen_items" in rows[0] else None
    else:
        counts = _users_of(store, first, second)
    others = np.arange(len(members)) != a
    n_first, n_second, both, n = counts or (None, None, None, 0)
    return Nearness(
        version=members.version,
        cosine=float(cosines[b]),
        cosine_rank=float((cosines[others] < cosines[b]).mean()),
        shared_attributes=shared,
        with_first=n_first,
        with_second=n_second,
        with_both=both,
        lift=both * n / (n_first * n_second) if both is not None and n_first and n_second else None,
    )


def explain_score(store: EmbeddingStore, user: Id, item: Id) -> tuple[float, list[tuple[Id, float]]]:
    """Return the score of an item for a user folded in from all seen items, and what each adds, the most first.

    What an item adds is the score with it less the score without it. Each interaction counts 1.

    Raises:
        UnknownIdError: the live version does not have one of them.
        InputError: the user has fewer than two other seen items.
        FoldInError: the version cannot fold in here.
    """
    users = read_members(store, "user")
    seen = users.table.slice(users.row_of(user), 1).to_pylist()[0].get("seen_items") or []
    seen = (
        [id for id, found in zip(seen, store.item_embeddings(seen).found.tolist(), strict=True) if found]
        if seen
        else []
    )
    seen = [id for id in seen if id != item]
    if len(seen) < 2:
        raise InputError(f"user {user!r} has {len(seen)} other seen items that are live; at least 2 can be compared")
    histories = [seen, *([other for other in seen if other != left_out] for left_out in seen)]
    found = store.rank_visitors(histories, 1, item_ids=[item], exclude_seen=False, attributes=False)
    scores = [float(answer.scores[0]) for answer in found.answers if answer is not None and len(answer)]
    if len(scores) != len(histories):
        raise UnknownIdError(f"item {item!r} has no embedding in version {found.version} of model {store.model!r}")
    added = [(id, scores[0] - score) for id, score in zip(seen, scores[1:], strict=True)]
    return scores[0], sorted(added, key=lambda pair: -pair[1])


def _count_items(store: EmbeddingStore) -> int:
    return store.live().side("item").count()


def _users_of(store: EmbeddingStore, first: Id, second: Id) -> tuple[int, int, int, int] | None:
    """Count the users of each of two items, of both, and all; batch by batch, as users are many."""
    try:
        reader = store.export("user")
    except MissingSideError:
        return None
    if "seen_items" not in reader.schema.names:
        return None
    counts = np.zeros(4, np.int64)
    for batch in reader:
        lists = batch["seen_items"]
        flat, rows = lists.flatten(), pc.list_parent_indices(lists).to_numpy()
        equal = (pc.equal(flat, pa.scalar(id, flat.type)).to_numpy(zero_copy_only=False) for id in (first, second))
        has = [np.isin(np.arange(len(batch)), rows[here]) for here in equal]
        counts += (has[0].sum(), has[1].sum(), (has[0] & has[1]).sum(), len(batch))
    one, other, both, every = counts.tolist()
    return one, other, both, every
