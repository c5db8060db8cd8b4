"""One interaction of a user with an item, as callers send it."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import numpy as np

from feast_embeddings.arguments import Id
from feast_embeddings.errors import InputError
from feast_embeddings.times import from_microseconds, future_starts, to_microseconds

__all__ = ["OLDEST", "WEIGHTS", "Event", "to_events"]

_FIELDS = ("user_id", "item_id", "weight", "timestamp", "event_id", "event")
# The first time, the least weight and the greatest one that an event may have.
OLDEST = datetime(1990, 1, 1, tzinfo=UTC)
WEIGHTS = (1e-6, 1e6)
_MOST_CHARACTERS = 200


class Event(NamedTuple):
    """An interaction.

    Attributes:
        timestamp: microseconds since 1970.
        weight: on the scale of training, times the weight of its type.
        event_id: unique among all events; None if the caller has none.
        type: such as a click, one of those that training weighs; None if the caller names none.
        own_weight: without the weight of its type; None without a type.
    """

    user_id: Id
    item_id: Id
    timestamp: int
    weight: float
    event_id: str | None
    type: str | None = None
    own_weight: float | None = None


def to_events(
    interactions: Iterable[Mapping[str, Any]], now: datetime, event_weights: Callable[[], Mapping[str, float]] = dict
) -> list[Event]:
    """Check interactions: ``user_id``, ``item_id`` and, if wanted, ``weight``, ``timestamp``, ``event_id``, ``event``.

    Args:
        interactions: dictionaries; a time without a zone is UTC, one in text is ISO 8601.
        now: the time of those without one.
        event_weights: asked for if there are types of events: type -> weight in the training, 0 for what it leaves out.

    Raises:
        InputError: one cannot be used; the message names its position and the field.
    """
    if isinstance(interactions, Mapping | str | bytes):
        raise InputError(f"interactions takes a list of dictionaries, got {type(interactions).__name__}")
    weights = functools.cache(event_weights)
    return [_event(place, given, now, weights) for place, given in enumerate(interactions)]


def _event(place: int, given: Mapping[str, Any], now: datetime, weights: Callable[[], Mapping[str, float]]) -> Event:
    where = f"interaction {place}"
    if not isinstance(given, Mapping):
        raise InputError(f"{where}: expected a dictionary with user_id and item_id, got {type(given).__name__}")
    if unknown := [name for name in given if name not in _FIELDS]:
        raise InputError(f"{where}: there is no field {str(unknown[0])!r:.80}; there are {', '.join(_FIELDS)}")
    user, item = _id(where, given, "user_id"), _id(where, given, "item_id")
    weight = _plain(given.get("weight"))
    weight = 1.0 if weight is None else weight
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not WEIGHTS[0] <= weight <= WEIGHTS[1]:
        raise InputError(f"{where}: weight must be a number from 1e-6 to 1e6, got {weight!r:.80}")
    event_id = given.get("event_id")
    if event_id is not None and not (isinstance(event_id, str) and 0 < len(event_id) <= _MOST_CHARACTERS):
        raise InputError(
            f"{where}: event_id must be text of at most {_MOST_CHARACTERS} characters, got {event_id!r:.80}"
        )
    event = Event(user, item, _time(where, given.get("timestamp"), now), float(weight), event_id)
    kind = _plain(given.get("event"))
    return event if kind is None else _weighed(where, event, kind, weights())


def _weighed(where: str, event: Event, kind: Any, event_weights: Mapping[str, float]) -> Event:
    if not isinstance(kind, str) or kind not in event_weights:
        known = f"those with one are {', '.join(event_weights)}" if event_weights else "no type has one: leave it out"
        raise InputError(f"{where}: event {kind!r:.80} has no weight in the training; {known}")
    weight = event.weight * event_weights[kind]
    if weight != 0 and not WEIGHTS[0] <= weight <= WEIGHTS[1]:
        raise InputError(
            f"{where}: weight {event.weight:g} of an event {kind!r:.80} is {weight:g} in all, expected 1e-6 to 1e6"
        )
    return event._replace(weight=weight, type=kind, own_weight=event.weight)


def _id(where: str, given: Mapping[str, Any], name: str) -> Id:
    id = _plain(given.get(name))
    if isinstance(id, bool) or not isinstance(id, str | int) or id == "":  # a training takes no empty id
        raise InputError(f"{where}: {name} must be a whole number or text that is not empty, got {id!r:.80}")
    return id


def _time(where: str, given: Any, now: datetime) -> int:
    moment = now if given is None else given
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            raise InputError(f"{where}: timestamp must be a time in ISO 8601, got {given!r:.80}") from None
    if not isinstance(moment, datetime) or moment != moment:  # pandas' missing time is not equal to itself
        raise InputError(f"{where}: timestamp must be a time, got {given!r:.80}")
    microseconds = to_microseconds(moment)
    if not OLDEST <= from_microseconds(microseconds) <= future_starts():
        raise InputError(f"{where}: timestamp {given} is before 1990 or in the future")
    return microseconds


def _plain(value: Any) -> Any:
    """A scalar of NumPy as Python's; a missing value of pandas as None."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if isinstance(value, float) and math.isnan(value) else value
