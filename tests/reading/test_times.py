"""Times, in every form that is understood, and those that are refused."""

from __future__ import annotations

import decimal
import json
import math
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.reading.scanning import scan, write

from feast_embeddings.errors import InputError

NOON = datetime(2024, 2, 29, 12, 0, 0, 123456, UTC)
NOON_US = 1_709_208_000_123_456
MIDNIGHT_US = 1_709_164_800_000_000
SECOND = 10**6


def of_arrow(values: list[Any], dtype: pa.DataType | None = None) -> list[int]:
    rows, faults, _ = scan(
        pa.table({"user_id": ["u"] * len(values), "item_id": ["i"] * len(values), "timestamp": pa.array(values, dtype)})
    )
    faults.settle("the Table", "error")
    return [row[2] for row in rows]


def of_text(tmp_path: Path, values: list[str], **rules: Any) -> list[int]:
    path = write(tmp_path / "log.csv", "user_id;item_id;timestamp\n" + "".join(f"u;i;{value}\n" for value in values))
    rows, faults, _ = scan(path, **rules)
    faults.settle("log.csv", "error")
    return [row[2] for row in rows]


@pytest.mark.parametrize(
    ("values", "dtype", "expected"),
    [
        ([NOON], pa.timestamp("us", "UTC"), NOON_US),
        ([NOON], pa.timestamp("us", "Asia/Tokyo"), NOON_US),
        ([NOON.replace(tzinfo=None)], pa.timestamp("us"), NOON_US),
        ([NOON_US * 1000 + 999], pa.timestamp("ns"), NOON_US),
        ([NOON_US * 1000 + 999], pa.timestamp("ns", "UTC"), NOON_US),
        ([NOON_US // 1000], pa.timestamp("ms"), NOON_US // 1000 * 1000),
        ([NOON_US // SECOND], pa.timestamp("s"), NOON_US // SECOND * SECOND),
        ([date(2024, 2, 29)], pa.date32(), MIDNIGHT_US),
        ([date(2024, 2, 29)], pa.date64(), MIDNIGHT_US),
        (["2024-02-29T12:00:00.123456Z"], pa.string_view(), NOON_US),
        (["2024-02-29T12:00:00.123456Z"], pa.large_string(), NOON_US),
        (["2024-02-29"], pa.dictionary(pa.int8(), pa.string()), MIDNIGHT_US),
        ([NOON_US // SECOND], pa.int32(), NOON_US // SECOND * SECOND),
        ([NOON_US // SECOND], pa.uint64(), NOON_US // SECOND * SECOND),
        ([NOON_US // 1000], None, NOON_US // 1000 * 1000),
        ([NOON_US], None, NOON_US),
        ([NOON_US * 1000 + 999], None, NOON_US),
        ([NOON_US / SECOND], None, NOON_US),
        ([NOON_US / 1000], None, NOON_US),
        ([631_152_000], None, 631_152_000 * SECOND),
        ([datetime(1970, 1, 2)], pa.timestamp("us"), 86_400 * SECOND),
    ],
)
def test_types(values: list[Any], dtype: pa.DataType | None, expected: int) -> None:
    """Every type that holds times gives the same instant."""
    assert of_arrow(values, dtype) == [expected]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2024-02-29T12:00:00.123456Z", NOON_US),
        ("2024-02-29 14:00:00.123456+02:00", NOON_US),
        ("2024-02-29 14:00:00.123456+0200", NOON_US),
        ("2024-02-29 14:00:00.123456+02", NOON_US),
        ("2024-02-29 14:00:00.123456 +02:00", NOON_US),
        ("2024-02-29 12:00:00.123456 UTC", NOON_US),
        ("2024-02-29 12:00:00.123456 gmt", NOON_US),
        ("2024-02-29 13:00:00.123456 Europe/Berlin", NOON_US),
        ("2024-02-29 14:00:00.123456 Etc/GMT-2", NOON_US),
        ("2024-03-01 02:00:00.123456+14:00", NOON_US),
        ("2024-02-28 22:00:00.123456-1400", NOON_US),
        ("2024-02-29 12:00:00.123456", NOON_US),
        ("2024-02-29T12:00:00,123456", NOON_US),
        ("2024-02-29t12:00:00.123456z", NOON_US),
        ("2024-02-29T12:00:00.123456789Z", NOON_US),
        ("2024-02-29", MIDNIGHT_US),
        ("2024-02-29T00:00", MIDNIGHT_US),
        ("2024-02-29T00:00Z", MIDNIGHT_US),
        ("2024-02-29 00", MIDNIGHT_US),
        ("2024-02-28T24:00:00", MIDNIGHT_US),
        ("20240229T000000Z", MIDNIGHT_US),
        ("20240229T000000", MIDNIGHT_US),
        ("20240229T020000+0200", MIDNIGHT_US),
        ("2024-W09-4", MIDNIGHT_US),
        ("2024-060", MIDNIGHT_US),
        (str(NOON_US // SECOND), NOON_US // SECOND * SECOND),
        (str(NOON_US // 1000), NOON_US // 1000 * 1000),
        (f"{NOON_US // SECOND}.123456", NOON_US),
        (f"{NOON_US // SECOND}.0", NOON_US // SECOND * SECOND),
        (f"{NOON_US}999", NOON_US),
    ],
)
def test_text(tmp_path: Path, text: str, expected: int) -> None:
    """ISO 8601 and digits since 1970, in CSV and in JSON."""
    assert of_text(tmp_path, [text]) == [expected]
    path = write(tmp_path / "log.jsonl", json.dumps({"user_id": 1, "item_id": 2, "timestamp": text}) + "\n")
    assert scan(path)[0] == [("1", "2", expected)]


@settings(deadline=None)
@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 12, 31), timezones=st.just(UTC)))
def test_iso_of_any_instant(instant: datetime) -> None:
    """What Python writes is read back."""
    assert of_arrow([instant.isoformat()]) == of_arrow([instant], pa.timestamp("us", "UTC"))


@pytest.mark.parametrize(
    "text",
    [
        "yesterday",
        "2024-02-30",
        "12:00",
        "01/02/2024",
        "infinity",
        "2024-02-29T12:00:00 PM",
        "1e9",
        "-1",
        "12",
        "Feb 29 2024",
        "2024-02-29T12:00:00+25:00",
        "2024-02-29T12:00:00+99:99",
        "2024-02-29 12:00:00+15",
        "2024-02-29 12:00:00 -05:75",
        "20240229T120000+9959",
        "2024-02-29 12:00:00 BST",
        "2024-02-29 12:00:00 AST",
        "2024-02-29 12:00:00 est",
        "2024-02-29 12:00:00 PST8PDT",
        "2024-02-29 12:00:00 GMT+3",
        "2024-02-29 (BC)",
        "epoch",
        "nan",
    ],
)
def test_no_times(tmp_path: Path, text: str) -> None:
    """What is not a time is named with its row, and the good ones around it are not."""
    with pytest.raises(InputError, match=r"1 whose timestamp is .* \(row 2 ") as error:
        of_text(tmp_path, ["2024-01-01T00:00:00Z", text, "2024-01-02T00:00:00Z"])
    assert f"{text!r}" in str(error.value)
    assert "2024-01-0" not in str(error.value)


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("20240229", "%Y%m%d"),
        ("202402290000", "%Y%m%d%H%M"),
        ("20240229000000", "%Y%m%d%H%M%S"),
        ("29.02.2024", "%d.%m.%Y"),
        ("2/29/24", "%m/%d/%y"),
        ("29/02/2024 12:00 AM", "%d/%m/%Y %I:%M %p"),
        ("Thu, 29 Feb 2024 00:00:00", "%a, %d %b %Y %H:%M:%S"),
        ("february 29, 2024", "%B %d, %Y"),
    ],
)
def test_dates_of_other_forms_need_a_form(tmp_path: Path, text: str, form: str) -> None:
    """In digits they could be numbers since 1970, and days could be months; the form says what they are."""
    with pytest.raises(InputError, match=r"give its format with --time-format.* \(row 1 "):
        of_text(tmp_path, [text])
    assert of_text(tmp_path, [text], time_format=form) == [MIDNIGHT_US]
    if text.isdecimal():
        with pytest.raises(InputError, match="--time-format"):
            of_arrow([int(text)])
        rows, _, _ = scan(pa.table({"user_id": ["u"], "item_id": ["i"], "timestamp": [int(text)]}), time_format=form)
        assert rows == [("u", "i", MIDNIGHT_US)]


@pytest.mark.parametrize("numbers", [[NOON_US // SECOND, NOON_US // 1000], [NOON_US, NOON_US * 1000]])
def test_units_do_not_mix(tmp_path: Path, numbers: list[int]) -> None:
    """A column is of one unit; two are an error that says where each is."""
    with pytest.raises(InputError, match=r"seconds \(row 1\) and \w+seconds \(row 2\) since 1970"):
        of_arrow(numbers)
    with pytest.raises(InputError, match=r"seconds \(row 1\) and \w+seconds \(row 2\) since 1970"):
        of_text(tmp_path, [str(number) for number in numbers])


def test_units_are_those_of_the_good_rows(tmp_path: Path) -> None:
    """A bad row has no say, and the places of the others are counted with it."""
    seconds, milliseconds = NOON_US // SECOND, NOON_US // 1000
    log = tmp_path / "log.csv"
    log.write_text(f"user_id,item_id,timestamp\nu,i\n,i,{milliseconds}\nu,i,{seconds}\n")
    rows, faults, _ = scan(log)
    assert (rows, faults.bad) == ([("u", "i", seconds * SECOND)], 2)
    log.write_text(f"user_id,item_id,timestamp\nu,i\nu,i,{seconds}\nu,i,3,4\nu,i,{milliseconds}\n")
    with pytest.raises(InputError, match=r"in seconds \(row 2\) and milliseconds \(row 4\) since 1970"):
        scan(log)


def test_the_future(tmp_path: Path) -> None:
    """A sentinel or a clock that is wrong would move the version there; it is a bad row, unless told otherwise."""
    values = ["2024-01-01", "9999-12-31"]
    with pytest.raises(InputError, match=r"1 whose timestamp is in the future \(--allow-future keeps them\) \(row 2"):
        of_text(tmp_path, values, latest=NOON_US)
    assert len(of_text(tmp_path, values)) == 2


@pytest.mark.parametrize("epoch", ["1970-01-01", "1900-01-01", "0001-01-01"])
def test_the_epoch_is_no_time(tmp_path: Path, epoch: str) -> None:
    """It stands for a time that is missing; nothing was logged before it."""
    with pytest.raises(InputError, match="1 whose timestamp is 1970-01-01 or before"):
        of_text(tmp_path, [epoch, "2024-01-01"])


@pytest.mark.parametrize("dtype", [pa.float64(), pa.string(), pa.timestamp("us"), pa.int64()], ids=str)
def test_missing(dtype: pa.DataType) -> None:
    """A null, and NaN, is a row without a time."""
    missing = float("nan") if dtype == pa.float64() else None
    good = {pa.float64(): 1.7e9, pa.string(): "2024-01-01", pa.timestamp("us"): NOON, pa.int64(): 1_700_000_000}[dtype]
    for value in (None, missing):
        with pytest.raises(InputError, match=r"1 without timestamp \(row 2\)"):
            of_arrow([good, value], dtype)


@pytest.mark.parametrize("dtype", [pa.bool_(), pa.binary(), pa.list_(pa.int64()), pa.time64("us")], ids=str)
def test_other_types(dtype: pa.DataType) -> None:
    """A column that cannot hold times is refused by its type."""
    table = pa.table({"user_id": ["u"], "item_id": ["i"], "timestamp": pa.nulls(1, dtype)})
    with pytest.raises(InputError, match="column 'timestamp': expected a timestamp, a date, ISO 8601 text or a number"):
        scan(table)


def test_nan_in_parquet(tmp_path: Path) -> None:
    """It is one bad row, and not the end of the file."""
    log = pa.table({"user_id": ["a", "b"], "item_id": ["x", "y"], "timestamp": [1704164645.5, math.nan]})
    pq.write_table(log, tmp_path / "log.parquet")
    rows, faults, _ = scan(tmp_path / "log.parquet")
    assert (rows, faults.bad) == ([("a", "x", 1704164645500000)], 1)


def test_nanoseconds_as_a_decimal() -> None:
    """They are cut to microseconds, as those of every other type are."""
    times = pa.array([decimal.Decimal(1704164645678901999)], pa.decimal128(20, 0))
    log = pa.table({"user_id": ["a"], "item_id": ["x"], "timestamp": times})
    assert scan(log)[0] == [("a", "x", 1704164645678901)]


def test_after_the_year_9999(tmp_path: Path) -> None:
    """Python has no such time; the last one before is read."""
    log = "user_id,item_id,timestamp\na,x,9999-12-31T23:59:59.999999Z\nb,y,10000-01-01\n"
    rows, faults, _ = scan(write(tmp_path / "log.csv", log))
    assert rows == [("a", "x", 253402300799999999)]
    assert faults.counts == {"whose timestamp is after the year 9999": 1}


@pytest.mark.parametrize("form", ["%s", "%Q", ""])
def test_forms_that_are_none(tmp_path: Path, form: str) -> None:
    """The option is blamed, not the file."""
    path = write(tmp_path / "log.csv", "user_id,item_id,timestamp\na,x,20240131\n")
    with pytest.raises(InputError, match=f"^--time-format '{form}' is not a pattern"):
        scan(path, time_format=form)


def test_values_with_what_separates_faults(tmp_path: Path) -> None:
    """They make no kinds of faults of their own."""
    log = write(tmp_path / "log.csv", "user_id,item_id,timestamp\na,x, 1704164645 \nb,x,so\x1eon\x1fbad\n")
    rows, faults, _ = scan(log)
    assert rows == [("a", "x", 1704164645000000)]
    assert faults.counts == {"whose timestamp is not a time": 1}
