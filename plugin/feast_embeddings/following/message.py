"""One message of a topic, or one row of a table, as an event."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from feast_embeddings.arguments import Id
from feast_embeddings.artifact.table import WHOLE_NUMBER
from feast_embeddings.errors import InputError
from feast_embeddings.events import Event, to_events
from feast_embeddings.following.form import EVENT_ID, Form
from feast_embeddings.reading import IdType
from feast_embeddings.reading.expressions import FIRST_SECOND, LAST_SECOND
from feast_embeddings.times import from_microseconds

__all__ = ["message_event"]

_WHOLE = re.compile(WHOLE_NUMBER)


def message_event(value: bytes | str | None, form: Form, now: datetime, event_id: str) -> Event | None:
    """Return the event that a message has as JSON; None if its weight is 0.

    Fields that the form does not name are ignored.

    Args:
        now: the time of one without.
        event_id: of one without.

    Raises:
        InputError: it is no event; the message names the field, not the message.
    """
    try:
        given = json.loads(value or b"")
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError):
        raise InputError(f"expected a JSON object, got {(value or b'')[:40]!r}") from None
    if not isinstance(given, dict):
        raise InputError(f"expected a JSON object, got {type(given).__name__}")
    own_weight, kind = _own_weight(given, form), _type(given, form)
    weight = own_weight if kind is None else own_weight * form.event_weights[kind]
    if weight == 0:
        return None
    moment = _moment(given.get(form.times), form)
    fields = {
        "user_id": _id(given.get(form.user), form.user, form.user_ids),
        "item_id": _id(given.get(form.item), form.item, form.item_ids),
        "timestamp": now if moment is None else moment,
        "weight": weight,
        # A null would let it count each time that it is read.
        "event_id": event_id if (own_id := given.get(EVENT_ID)) is None else own_id,
    }
    try:
        (event,) = to_events([fields], now)
    except InputError as error:
        raise InputError(str(error).removeprefix("interaction 0: ")) from None
    return event if kind is None else event._replace(type=kind, own_weight=own_weight)


def _own_weight(given: Mapping[str, Any], form: Form) -> float:
    weight = 1.0 if form.weight is None else given.get(form.weight, 1.0)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise InputError(f"{form.weight} must be a number, got {weight!r:.80}")
    return weight


def _type(given: Mapping[str, Any], form: Form) -> str | None:
    if form.event is None:
        return None
    kind = given.get(form.event)
    if not isinstance(kind, str) or kind not in form.event_weights:
        raise InputError(f"{form.event} {kind!r:.80} has no weight (--event-weights)")
    return kind


def _id(given: object, name: str, wanted: IdType | None) -> Id:
    if isinstance(given, bool) or not isinstance(given, str | int) or given == "":
        raise InputError(f"{name} must be a whole number or text that is not empty, got {given!r:.80}")
    if wanted == "text":
        return str(given)
    if wanted == "int" and isinstance(given, str):
        if not _WHOLE.fullmatch(given):
            raise InputError(f"{name} must be a whole number, got {given!r:.80}")
        given = int(given)
    if isinstance(given, int) and not -(2**63) <= given < 2**63:
        raise InputError(f"{name} must be a whole number of 64 bits, got {given!r:.80}")
    return given


def _moment(given: Any, form: Form) -> datetime | str | None:
    """Return a time; text in ISO 8601 as it is."""
    if form.time_format is not None and given is not None:
        try:
            return datetime.strptime(str(given), form.time_format).replace(tzinfo=UTC)
        except ValueError:
            raise InputError(f"{form.times} must be of the form {form.time_format}, got {given!r:.80}") from None
    if isinstance(given, bool) or not isinstance(given, int | float):
        if given is None or isinstance(given, str):
            return given
        raise InputError(f"{form.times} must be a time, got {given!r:.80}")
    for scale in (1, 10**3, 10**6, 10**9):
        if FIRST_SECOND * scale <= given < LAST_SECOND * scale:
            return from_microseconds(int(given * 10**6 // scale))
    raise InputError(f"{form.times} must be a time since 1970 in s, ms, µs or ns, got {given!r:.80}")
