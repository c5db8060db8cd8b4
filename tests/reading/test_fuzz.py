"""Random tables in random formats are read back as they are; broken files end in a count or in one clear error."""

from __future__ import annotations

import csv
import gzip
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.reading.scanning import scan

from feast_embeddings.errors import InputError

text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=8) | st.sampled_from(
    ["007", "1e3", "NA", "null", '"', ',"', "a\nb", "\r\n", "2024-01-01", "{}", "[1", " ", "\\", "true"]
)
numbers = st.integers(-(2**63), 2**63 - 1)
times = st.datetimes(datetime(1990, 1, 2), datetime(2025, 1, 1))


@dataclass(frozen=True)
class Log:
    """Rows of user, item and time, and a way to write and read them."""

    rows: list[tuple[Any, Any, datetime]]
    write: Callable[[Path, list[tuple[Any, Any, datetime]]], Path]


def as_csv(delimiter: str, quoting: Literal[0, 1], line_end: str, compressed: bool) -> Callable[[Path, Any], Path]:
    def write(folder: Path, rows: list[tuple[Any, Any, datetime]]) -> Path:
        out = io.StringIO(newline="")
        writer = csv.writer(out, delimiter=delimiter, quoting=quoting, lineterminator=line_end)
        writer.writerow(["user_id", "item_id", "timestamp"])
        writer.writerows([(user, item, f"{time.isoformat()}Z") for user, item, time in rows])
        content = out.getvalue().encode()
        path = folder / ("log.csv.gz" if compressed else "log.csv")
        path.write_bytes(gzip.compress(content) if compressed else content)
        return path

    return write


def as_json(array: bool, ascii_only: bool) -> Callable[[Path, Any], Path]:
    def write(folder: Path, rows: list[tuple[Any, Any, datetime]]) -> Path:
        objects = [{"user_id": u, "item_id": i, "timestamp": t.isoformat(), "x": [u, {"y": i}]} for u, i, t in rows]
        path = folder / "log.json"
        lines = [json.dumps(each, ensure_ascii=ascii_only) for each in objects]
        path.write_text(f"[{','.join(lines)}]" if array else "\n".join(lines), encoding="utf-8", newline="")
        return path

    return write


def as_parquet(id_type: pa.DataType | None, time_type: pa.DataType) -> Callable[[Path, Any], Path]:
    def write(folder: Path, rows: list[tuple[Any, Any, datetime]]) -> Path:
        users, items, instants = (list(column) for column in zip(*rows, strict=True))
        table = pa.table(
            {
                "item_id": pa.array(items, id_type if id_type and isinstance(items[0], str) else None),
                "timestamp": pa.array(instants, pa.timestamp("us")).cast(time_type),
                "user_id": pa.array(users, id_type if id_type and isinstance(users[0], str) else None),
            }
        )
        pq.write_table(table, folder / "log.parquet", row_group_size=3)
        return folder / "log.parquet"

    return write


def logs() -> st.SearchStrategy[Log]:
    def rows(ids: st.SearchStrategy[Any]) -> st.SearchStrategy[list[tuple[Any, Any, datetime]]]:
        return st.lists(st.tuples(ids, ids, times), min_size=1, max_size=12)

    # A carriage return within a value is a line end to CSV where line ends are such.
    plain = text.filter(lambda value: "\r" not in value)
    delimited = st.builds(
        Log,
        rows(plain),
        st.builds(
            as_csv,
            st.sampled_from(",;\t|"),
            st.sampled_from((csv.QUOTE_MINIMAL, csv.QUOTE_ALL)),
            st.sampled_from(["\n", "\r\n"]),
            st.booleans(),
        ),
    )
    lines = st.builds(Log, rows(text) | rows(numbers), st.builds(as_json, st.booleans(), st.booleans()))
    parquet = st.builds(
        Log,
        rows(text) | rows(numbers),
        st.builds(
            as_parquet,
            st.sampled_from([None, pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())]),
            st.sampled_from([pa.timestamp("us"), pa.timestamp("ns"), pa.timestamp("us", "Asia/Tokyo")]),
        ),
    )
    return delimited | lines | parquet


def read_back(log: Log) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rows, faults, found = scan(log.write(Path(folder), log.rows))
    assert (faults.bad, faults.rows) == (0, len(log.rows))
    whole = isinstance(log.rows[0][0], int)
    assert ("user_id" in found.wholes) is whole
    ids = [(str(user), str(item)) if whole else (user, item) for user, item, _ in log.rows]
    assert [(str(row[0]), str(row[1])) if whole else row[:2] for row in rows] == ids
    epoch = datetime(1970, 1, 1)
    expected = [(time - epoch) // (datetime(1970, 1, 1, 0, 0, 0, 1) - epoch) for _, _, time in log.rows]
    assert [row[2] for row in rows] == expected


def break_and_read(log: Log, place: float, junk: bytes, drop: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = log.write(Path(folder), log.rows)
        content = path.read_bytes()
        at = int(place * len(content))
        path.write_bytes(content[:at] + junk + content[at + drop :])
        try:
            rows, faults, _ = scan(path)
        except InputError as error:
            said = str(error)
        else:
            assert faults.rows == len(rows) + faults.bad
            return
    assert "\n" not in said
    assert path.name in said


broken = st.tuples(
    st.floats(0, 1),
    st.binary(max_size=6) | st.sampled_from([b'"', b"\xff", b"\n", b"\0", b"{", b"]", b","]),
    st.integers(0, 20),
)
ROUNDS = [40, pytest.param(3_000, marks=pytest.mark.slow)]


@pytest.mark.parametrize("rounds", ROUNDS)
def test_what_is_written_is_read_back(rounds: int) -> None:
    """Whatever the ids hold, in every format, compression and type."""
    seen = []

    @settings(max_examples=rounds, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(log=logs())
    def check(log: Log) -> None:
        read_back(log)
        seen.append(log)

    check()
    print(f"{len(seen):,} tables were read back as they were written")


@pytest.mark.parametrize("rounds", ROUNDS)
def test_broken_files(rounds: int) -> None:
    """Bytes put in and taken out anywhere are bad rows, one clear error, or other rows; every row is counted."""
    seen = []

    @settings(max_examples=rounds, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(log=logs(), damage=broken)
    def check(log: Log, damage: tuple[float, bytes, int]) -> None:
        break_and_read(log, *damage)
        seen.append(log)

    check()
    print(f"{len(seen):,} broken files ended in a count or in one clear error")
