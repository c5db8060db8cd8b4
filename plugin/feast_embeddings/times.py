"""Convert times to microseconds since 1970 in UTC, and detect times in the future."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# A day, because a log in local time without a zone is up to 14 hours ahead.
_TOLERANCE = timedelta(days=1)


def to_microseconds(moment: datetime) -> int:
    """Convert to microseconds since the epoch, exactly; a time without a zone is UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


@lru_cache  # rows of a version have the same time
def from_microseconds(microseconds: int) -> datetime:
    """Convert microseconds since the epoch to a UTC time, exactly."""
    return _EPOCH + timedelta(microseconds=microseconds)


def future_starts() -> datetime:
    """Return the latest event timestamp that is accepted: one day from now."""
    return datetime.now(UTC) + _TOLERANCE


def is_future(moment: datetime) -> bool:
    """Return whether a time with a zone is further in the future than clocks and time zones explain."""
    return moment > future_starts()
