"""Times as microseconds since the start of 1970 in UTC, and which times are in the future."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import lru_cache

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# A day, since a log that is written in local time without a zone is up to 14 hours ahead.
_TOLERANCE = timedelta(days=1)


def to_microseconds(moment: datetime) -> int:
    """Microseconds since the epoch, exact; a time without a zone is UTC."""
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return (moment - _EPOCH) // timedelta(microseconds=1)


@lru_cache  # rows of a version share their time
def from_microseconds(microseconds: int) -> datetime:
    """The UTC time this many microseconds after the epoch, exact."""
    return _EPOCH + timedelta(microseconds=microseconds)


def future_starts() -> datetime:
    """The latest event timestamp that is still accepted: one day from now."""
    return datetime.now(UTC) + _TOLERANCE


def is_future(moment: datetime) -> bool:
    """Whether a time with a zone is in the future by more than clocks and time zones explain."""
    return moment > future_starts()
