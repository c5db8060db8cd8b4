"""Times of interactions: whatever a log holds, to microseconds since 1970 in UTC."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.errors import InputError

__all__ = ["as_datetime", "as_microseconds", "parse_duration", "parse_time", "to_microseconds"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

# A number below the first limit counts seconds, and so on; the limits are the year 5138 in each unit.
_EPOCH_UNITS = ((10**11, "s"), (10**14, "ms"), (10**17, "us"), (2**64, "ns"))
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhdw])", re.ASCII)
_DURATION_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
# datetime's own range, years 1 to 9999.
_EARLIEST, _LATEST = -62_135_596_800_000_000, 253_402_300_799_999_999

# In the order of trying. Arrow tells text with a zone from text without one only by failing.
_TEXT_FORMS = (
    pa.timestamp("us", "UTC"),
    pa.timestamp("us"),
    pa.timestamp("ns", "UTC"),
    pa.timestamp("ns"),
)


def to_microseconds(column: pa.ChunkedArray, what: str) -> npt.NDArray[np.int64]:
    """Convert times to microseconds since 1970-01-01 UTC.

    Understood are timestamps and ISO 8601 text (without a zone they are UTC), dates (their first moment), and
    whole numbers since 1970, whose unit is told by the largest of the column: seconds below 10¹¹,
    milliseconds below 10¹⁴, microseconds below 10¹⁷, else nanoseconds. Nanoseconds are rounded down. Dates written
    as one number (20260131) are refused rather than taken for seconds.

    Args:
        column: one time per row.
        what: what to call the column in an error.

    Returns:
        int64, shape (n,).

    Raises:
        InputError: nulls, times outside the years 1 to 9999, or values that are no times.
    """
    if column.null_count:
        raise InputError(f"{what}: {column.null_count:,} of {len(column):,} rows have no time")
    try:
        instants = _to_instants(column, what)
        if instants.type.unit == "ns":
            microseconds: npt.NDArray[np.int64] = instants.cast(pa.int64()).to_numpy() // 1000
        else:
            microseconds = instants.cast(pa.timestamp("us", instants.type.tz)).cast(pa.int64()).to_numpy()
    except pa.ArrowInvalid as error:
        raise InputError(f"{what}: not a time: {error}") from None
    if not _EARLIEST <= microseconds.min() <= microseconds.max() <= _LATEST:
        raise InputError(f"{what}: times must lie in the years 1 to 9999")
    return microseconds


def as_datetime(microseconds: int) -> datetime:
    """The instant, in UTC, so many microseconds after the start of 1970."""
    return _EPOCH + timedelta(microseconds=microseconds)


def as_microseconds(instant: datetime) -> int:
    """Microseconds from the start of 1970 UTC to an instant that has a time zone."""
    return (instant - _EPOCH) // timedelta(microseconds=1)


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


def _to_instants(column: pa.ChunkedArray, what: str) -> pa.ChunkedArray:
    dtype = column.type
    if pa.types.is_dictionary(dtype):
        return _to_instants(column.cast(dtype.value_type), what)
    if pa.types.is_timestamp(dtype):
        return column
    if pa.types.is_date(dtype):
        return column.cast(pa.timestamp("ms"))
    if pa.types.is_integer(dtype):
        numbers = column.cast(pa.int64())
        bounds = pc.min_max(numbers).as_py()
        largest = max(abs(bounds["min"]), abs(bounds["max"]))
        if 19_000_101 <= bounds["min"] <= bounds["max"] <= 21_001_231:
            raise InputError(
                f"{what}: numbers such as {bounds['min']} look like dates written as YYYYMMDD, and as seconds "
                "since 1970 they would all lie in one year; write them as 2026-01-31, or as a timestamp"
            )
        unit = next(unit for limit, unit in _EPOCH_UNITS if largest < limit)
        return numbers.cast(pa.timestamp(unit))
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype):
        for form in _TEXT_FORMS:
            try:
                return column.cast(form)
            except pa.ArrowInvalid as error:
                reason = error
        raise reason
    raise InputError(
        f"{what}: expected a timestamp, a date, ISO 8601 text or a whole number since 1970, but the type is {dtype}"
    )
