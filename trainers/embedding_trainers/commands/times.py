"""Times and durations as people write them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from feast_embeddings.errors import InputError

__all__ = ["parse_duration", "parse_time"]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])", re.ASCII)
_DURATION_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def parse_time(text: str) -> datetime:
    """Read ISO 8601; without a zone it is UTC, and a date means its first moment.

    Raises:
        InputError: not ISO 8601, or in UTC not in the years 1 to 9999.
    """
    try:
        parsed = datetime.fromisoformat(text)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InputError(f"{text!r} is not a time; expected e.g. 2026-01-31 or 2026-01-31T12:00:00Z") from None


def parse_duration(text: str) -> timedelta:
    """Read a number with a unit, s, m(inutes), h, d or w: ``30d``, ``1.5h``.

    Raises:
        InputError: something else, or more than timedelta holds.
    """
    if match := _DURATION.fullmatch(text.strip()):
        try:
            return timedelta(**{_DURATION_UNITS[match[2]]: float(match[1])})
        except OverflowError:
            pass
    raise InputError(f"{text!r} is not a duration; expected a number and s, m, h, d or w, e.g. 30d or 12h")
