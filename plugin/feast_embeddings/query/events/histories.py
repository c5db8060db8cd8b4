"""What users did up to now: what they had seen, with its weights, and the events that are newer than their vector."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from feast_embeddings.arguments import Id
from feast_embeddings.artifact.attributes import CONTENT, SOURCE
from feast_embeddings.artifact.seen import SEEN
from feast_embeddings.codec.seen_weights import WEIGHTS_KEY, unpacked
from feast_embeddings.engines.engine import TIMESTAMP_KEY, ScoredPoint, StoredPoint
from feast_embeddings.events import Event, EventLog
from feast_embeddings.query.collection import LiveCollection
from feast_embeddings.query.visitors import Visitors

__all__ = ["Recent", "history_now", "recent_users", "seen_items", "vectors_now"]

_Vector = npt.NDArray[np.float32]


class Recent(NamedTuple):
    """A user who did something since their vector was computed.

    Attributes:
        stored: the vector that is stored, float32, shape (dim,); None for a user without one.
        vector: of the whole history, float32, shape (dim,); None if the version knows none of its items, or not
            what the stored vector was learned from.
        history: all items with their weights, the newest last: what was seen, and the events.
        events: newer than the stored vector, oldest first.
        n_known: how many of these are with an item that the version knows.
    """

    stored: _Vector | None
    vector: _Vector | None
    history: dict[Id, float]
    events: list[Event]
    n_known: int

    @property
    def newest(self) -> int:
        """The time of the newest event, in microseconds since 1970."""
        return self.events[-1].timestamp


def vectors_now(
    users: LiveCollection, visitors: Visitors, events: EventLog, user_ids: Sequence[Id], *, histories: bool
) -> tuple[list[_Vector | None], list[list[Id]]]:
    """Return the vectors of users, None for unknown ones, and what each has seen, with all events so far.

    Args:
        histories: whether what they have seen is needed; else it may be empty.
    """
    name, knows_seen = users.side.field.name, SEEN in users.side.codec.types
    points, recent = _read(users, visitors, events.of_users(user_ids), user_ids)
    vectors = [None if point is None else point.vectors[name] for point in points]
    # Decoded only where it is needed, as each answer would wait for it.
    seen = [
        list(seen_items(users, point)) if histories and knows_seen and point is not None and place not in recent else []
        for place, point in enumerate(points)
    ]
    for place, user in recent.items():
        seen[place] = list(user.history)
        if user.vector is not None:
            vectors[place] = user.vector
    return vectors, seen


def recent_users(
    users: LiveCollection, visitors: Visitors, events: EventLog, user_ids: Sequence[Id]
) -> dict[Id, Recent]:
    """Return the users who did something since their vector was computed."""
    _, recent = _read(users, visitors, events.of_users(user_ids), user_ids)
    return {user_ids[place]: user for place, user in recent.items()}


def seen_items(users: LiveCollection, point: StoredPoint | ScoredPoint) -> Sequence[Id]:
    """Return what a stored user has seen."""
    return users.side.codec.native(SEEN, point.payload) or ()


def history_now(users: LiveCollection, events: EventLog, user_id: Id) -> dict[Id, float] | None:
    """Return the items of a user with their weights, the newest last, with all events so far; None if unknown."""
    codec = users.side.codec
    seen_keys = [*codec.payload_keys(SEEN), WEIGHTS_KEY] if SEEN in codec.types else []
    (point,) = users.points([user_id], users.side.field.name, [TIMESTAMP_KEY, *seen_keys])
    new = [event for event in events.of_users([user_id]).get(user_id, ()) if _is_newer(event, point)]
    return None if point is None and not new else _history(users, point, new)


def _read(
    users: LiveCollection, visitors: Visitors, events: Mapping[Id, Sequence[Event]], user_ids: Sequence[Id]
) -> tuple[list[StoredPoint | None], dict[int, Recent]]:
    """Return the points of users, and by position the users who did something since.

    Args:
        events: of those users that have some.
    """
    name, codec = users.side.field.name, users.side.codec
    knows_seen = SEEN in codec.types
    # Weights are needed only where a vector is computed again.
    seen_keys = [*codec.payload_keys(SEEN), *([WEIGHTS_KEY] if events else [])] if knows_seen else []
    source_keys = codec.payload_keys(SOURCE) if events and SOURCE in codec.types else []
    points = users.points(user_ids, name, [TIMESTAMP_KEY, *seen_keys, *source_keys])
    fresh = {
        place: new
        for place, (id, point) in enumerate(zip(user_ids, points, strict=True))
        if (new := [event for event in events.get(id, ()) if _is_newer(event, point)])
    }
    histories = {place: _history(users, points[place], new) for place, new in fresh.items()}
    # Without the items that it was learned from, a vector cannot be computed again.
    folded = [place for place in fresh if knows_seen or points[place] is None]
    visits = visitors.fold_in([visitors.newest(histories[place]) for place in folded]) if folded else []
    made = dict(zip(folded, visits, strict=True))
    recent: dict[int, Recent] = {}
    for place, new in fresh.items():
        point = points[place]
        stored = None if point is None else point.vectors[name]
        vector, n_known = None, 0
        if place in made:
            vector, unknown = made[place].vector, set(made[place].unknown)
            n_known = sum(event.item_id not in unknown for event in new)
            if vector is not None and stored is not None and _is_of_content(users, point):
                vector = visitors.with_content(vector, stored, n_known)
        recent[place] = Recent(stored, vector, histories[place], new, n_known)
    return points, recent


def _is_of_content(users: LiveCollection, point: StoredPoint | None) -> bool:
    codec = users.side.codec
    return SOURCE in codec.types and point is not None and codec.native(SOURCE, point.payload) == CONTENT


def _is_newer(event: Event, point: StoredPoint | None) -> bool:
    return point is None or event.timestamp > int(point.payload[TIMESTAMP_KEY])


def _history(users: LiveCollection, point: StoredPoint | None, events: Sequence[Event]) -> dict[Id, float]:
    """Return items and their weights, the newest last, of a stored user and of events."""
    seen = seen_items(users, point) if point is not None and SEEN in users.side.codec.types else ()
    weights = [] if point is None else unpacked(point.payload, len(seen))
    history = dict(zip(seen, weights, strict=True))
    for event in events:
        # It is the newest now.
        history[event.item_id] = history.pop(event.item_id, 0) + event.weight
    return history
