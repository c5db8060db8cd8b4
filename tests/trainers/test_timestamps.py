from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_trainers.timestamps import as_datetime, as_microseconds, parse_time, to_microseconds
from feast_embeddings.errors import InputError

NOON = datetime(2024, 2, 29, 12, 0, 0, 123456, UTC)
NOON_US = 1_709_208_000_123_456
MIDNIGHT_US = 1_709_164_800_000_000


def convert(values: list[object], dtype: pa.DataType | None = None) -> list[int]:
    microseconds: list[int] = to_microseconds(pa.chunked_array([pa.array(values, dtype)]), "t").tolist()
    return microseconds


@given(st.datetimes(timezones=st.just(UTC)))
def test_round_trip(instant: datetime) -> None:
    """An instant of the years 1 to 9999 goes to microseconds and back, here and through Arrow."""
    assert instant == as_datetime(as_microseconds(instant))
    assert [as_microseconds(instant)] == convert([instant], pa.timestamp("us", "UTC"))


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([NOON], pa.timestamp("us", "UTC"), NOON_US),
        ([NOON], pa.timestamp("us", "Asia/Tokyo"), NOON_US),
        ([NOON.replace(tzinfo=None)], pa.timestamp("us"), NOON_US),
        ([NOON_US * 1000 + 999], pa.timestamp("ns"), NOON_US),
        ([-1], pa.timestamp("ns"), -1),
        ([NOON_US // 1000], pa.timestamp("ms"), NOON_US // 1000 * 1000),
        ([date(2024, 2, 29)], pa.date32(), MIDNIGHT_US),
        ([date(2024, 2, 29)], pa.date64(), MIDNIGHT_US),
        (["2024-02-29T12:00:00.123456Z"], None, NOON_US),
        (["2024-02-29 14:00:00.123456+02:00"], None, NOON_US),
        (["2024-02-29 12:00:00.123456"], None, NOON_US),
        (["2024-02-29T12:00:00.123456789"], None, NOON_US),
        (["2024-02-29T12:00:00.123456789Z"], None, NOON_US),
        (["2024-02-29"], None, MIDNIGHT_US),
        ([NOON_US // 10**6], pa.int32(), NOON_US // 10**6 * 10**6),
        ([NOON_US // 10**6], pa.uint64(), NOON_US // 10**6 * 10**6),
        ([NOON_US // 1000], None, NOON_US // 1000 * 1000),
        ([NOON_US], None, NOON_US),
        ([NOON_US * 1000 + 999], None, NOON_US),
        ([0], None, 0),
        ([-(10**9)], None, -(10**15)),
    ],
)
def test_forms(values: list[object], dtype: pa.DataType | None, expected: int) -> None:
    """Every documented form of a time becomes the same instant."""
    assert [expected] == convert(values, dtype)


def test_text_in_dictionary() -> None:
    """Dictionary-encoded text, as pandas categories are written, is text."""
    column = pa.chunked_array([pa.array(["2024-02-29"]).dictionary_encode()])

    assert to_microseconds(column, "t").tolist() == [MIDNIGHT_US]


def test_unit_is_that_of_the_column() -> None:
    """The largest number tells the unit for all, so that early milliseconds are not read as seconds."""
    assert convert([5, NOON_US // 1000]) == [5_000, NOON_US // 1000 * 1000]


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        ([NOON, None, None], None, "t: 2 of 3 rows have no time"),
        (["2024-02-29", "yesterday"], None, "t: not a time: "),
        (["2024-02-29T00:00:00", "2024-02-29T00:00:00Z"], None, "t: not a time: "),
        ([2**64 - 1], pa.uint64(), "t: not a time: "),
        ([10**12], pa.timestamp("s"), "t: times must lie in the years 1 to 9999"),
        ([10**15], pa.timestamp("s"), "t: not a time: "),
        (
            [1.5],
            None,
            "t: expected a timestamp, a date, ISO 8601 text or a whole number since 1970, but the type is double",
        ),
    ],
)
def test_no_times(values: list[object], dtype: pa.DataType | None, message: str) -> None:
    """What is not a time is refused, with a count or a reason."""
    with pytest.raises(InputError) as error:
        convert(values, dtype)
    assert message in str(error.value)


def test_parse_time() -> None:
    """ISO 8601 with or without a zone, or a date; anything else is an error with an example."""
    assert parse_time("2024-02-29T12:00:00.123456") == NOON
    assert parse_time("2024-02-29T12:00:00.123456Z") == NOON
    assert parse_time(NOON.astimezone(timezone(timedelta(hours=9))).isoformat()) == NOON
    assert datetime(2024, 2, 29, tzinfo=UTC) == parse_time("2024-02-29")
    with pytest.raises(InputError, match=r"'soon' is not a time; expected e\.g\. 2026-01-31"):
        parse_time("soon")
    with pytest.raises(InputError, match="'0001-01-01T00:00:00\\+05:00' is not a time"):
        parse_time("0001-01-01T00:00:00+05:00")


def test_dates_written_as_one_number_are_refused() -> None:
    """20260131 is a date to its writer and a moment of 1970 to a clock; nobody wants the second."""
    with pytest.raises(InputError, match="look like dates written as YYYYMMDD"):
        to_microseconds(pa.chunked_array([[20_260_131, 20_260_201]]), "column 'day'")
