"""Why two users or items are near, and which of a user's items speak for an item."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.analysis.dimensions import Dimension, carrying
from feast_embeddings.analysis.members import Members, attribute_names, read_members
from feast_embeddings.analysis.traits import Values, seen_values
from feast_embeddings.errors import InputError, MissingSideError, UnknownIdError
from feast_embeddings.query.events.histories import history_now
from feast_embeddings.query.searching.reasons import known_items, score_parts

if TYPE_CHECKING:
    from feast_embeddings.arguments import Id
    from feast_embeddings.artifact import Entity
    from feast_embeddings.query.live import LiveModel
    from feast_embeddings.query.store import EmbeddingStore

__all__ = ["Nearness", "ScoreParts", "explain_nearness", "explain_score"]

_DIMENSIONS = 3


@dataclass(frozen=True)
class Nearness:
    """What two users or items have in common.

    Attributes:
        cosine_rank: share of all others, without the two, that are less near to the first than the second is.
        shared_attributes: equal values; of lists, the common ones.
        with_first, with_second, with_both: users of each item, or items of each user; None if the model has no users.
        lift: how many times more often both come together than by chance; None if one has no interactions.
        dimensions: those that carry most of the cosine after a varimax rotation, at most 3; all sum to the cosine.
    """

    version: str
    cosine: float
    cosine_rank: float
    shared_attributes: dict[str, Any]
    with_first: int | None
    with_second: int | None
    with_both: int | None
    lift: float | None
    dimensions: list[Dimension]


@dataclass(frozen=True)
class ScoreParts:
    """What each seen item adds to the score of an item.

    Attributes:
        score: of the item, for the user folded in from the seen items; higher is better.
        method: ``exact``: the additions sum to the score, without a bias of the item, if it has one.
            ``leave-one-out``: the score less the score without the seen item, for trainers that cannot say exactly.
        added: seen items and what each adds, the most first.
    """

    score: float
    method: Literal["exact", "leave-one-out"]
    added: list[tuple[Id, float]]


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
    others = np.delete(cosines, [a, b])
    n_first, n_second, both, n = counts or (None, None, None, 0)
    return Nearness(
        version=members.version,
        cosine=float(cosines[b]),
        cosine_rank=float((others < cosines[b]).mean()) if len(others) else 1.0,
        shared_attributes=shared,
        with_first=n_first,
        with_second=n_second,
        with_both=both,
        lift=both * n / (n_first * n_second) if both is not None and n_first and n_second else None,
        dimensions=carrying(members, a, b, _DIMENSIONS, list(_seen(store, members))),
    )


def _seen(store: EmbeddingStore, members: Members) -> Iterator[Values]:
    """Yield what users have seen."""
    if members.entity == "user":
        with suppress(MissingSideError):  # users alone
            yield from seen_values(members, read_members(store, "item"))


def explain_score(store: EmbeddingStore, user: Id, item: Id) -> ScoreParts:
    """Return what each other seen item adds to the score of an item, with the weights that they have in `rank`.

    Raises:
        UnknownIdError: the live version does not have one of them.
        InputError: the user has no other seen item that the version knows, or one where two have to be compared.
        FoldInError: the version cannot fold in here.
    """
    live = store.live()
    history = history_now(live.side("user"), live.events, user)
    version = live.spec.version
    if history is None:
        raise UnknownIdError(f"user {user!r} is not in version {version} of model {store.model!r}")
    history = known_items(live.visitors, live.visitors.newest(history))
    history.pop(item, None)
    exact = live.visitors.has_parts
    least = 1 if exact else 2
    if len(history) < least:
        raise InputError(
            f"user {user!r} has {len(history)} other seen items that version {version} knows, but it takes {least}; "
            "ask of a user who has seen more"
        )
    if exact:
        method: Literal["exact", "leave-one-out"] = "exact"
        (score,) = _scores(live, [history], item)
        ((_, adds),) = score_parts(live.side("item"), live.visitors, history, [item])
        added = adds.tolist()
    else:
        method = "leave-one-out"
        without = [{id: weight for id, weight in history.items() if id != left_out} for left_out in history]
        score, *others = _scores(live, [history, *without], item)
        added = [score - other for other in others]
    return ScoreParts(score, method, sorted(zip(history, added, strict=True), key=lambda pair: -pair[1]))


def _scores(live: LiveModel, histories: list[dict[Id, float]], item: Id) -> list[float]:
    """Return the score of an item for each user folded in."""
    found = live.rank_visitors(histories, 1, item_ids=[item], exclude_seen=False, attributes=False)
    scores = [float(answer.scores[0]) for answer in found.answers if answer is not None and len(answer)]
    if len(scores) != len(histories):
        raise UnknownIdError(f"item {item!r} has no embedding in version {found.version} of model {live.model!r}")
    return scores


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
