"""Folders, globs, partitions, and files that do not agree."""

from __future__ import annotations

import decimal
import os
import shutil
import uuid
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from tests.reading.scanning import scan, write

from feast_embeddings.errors import InputError
from feast_embeddings.reading import read_table

CSV = "user_id,item_id\n{},{}\n"


def parquet(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def test_folders_and_globs(tmp_path: Path) -> None:
    """A folder is all files below it, of whatever format; a glob is what it matches; both in the order of paths."""
    write(tmp_path / "log" / "a.csv", CSV.format("a", 1))
    parquet(tmp_path / "log" / "b" / "c.parquet", user_id=["b"], item_id=["2"])
    write(tmp_path / "log" / "d.jsonl", '{"user_id": "c", "item_id": "3"}\n')

    assert scan(tmp_path / "log")[0] == [("a", "1"), ("b", "2"), ("c", "3")]
    assert scan(str(tmp_path / "log" / "*.*"))[0] == [("a", "1"), ("c", "3")]
    assert scan(str(tmp_path / "**" / "*.parquet"))[0] == [("b", "2")]
    with pytest.raises(InputError, match="no file matches"):
        scan(str(tmp_path / "*.orc"))


def test_what_is_hidden_is_left_out(tmp_path: Path) -> None:
    """Names that start with _ or . are work that was not finished, checksums and logs."""
    log = tmp_path / "log"
    good = parquet(log / "part-0.parquet", user_id=["a"], item_id=["x"])
    for name in ("_temporary/0/part-0.parquet", ".ipynb_checkpoints/part-0.parquet", ".part-0.parquet.crc", "_SUCCESS"):
        (log / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(good, log / name)
    write(log / "._part-0.parquet", bytes([0, 5, 22, 7]) * 20)

    assert scan(log)[0] == [("a", "x")]
    assert scan(str(tmp_path / "*" / "*.parquet"))[0] == [("a", "x")]


def test_a_file_of_another_kind_in_a_folder(tmp_path: Path) -> None:
    """It is not passed over in silence."""
    write(tmp_path / "log" / "a.csv", CSV.format("a", 1))
    write(tmp_path / "log" / "b.xlsx", b"PK")
    with pytest.raises(InputError, match=r"b\.xlsx: cannot tell the format from the name"):
        scan(tmp_path / "log")


@pytest.mark.parametrize("name", ["[prod]", "a*b", "what?", "it's", "ü 🎈"])
def test_any_folder_name(tmp_path: Path, name: str) -> None:
    """DuckDB takes paths for patterns; a folder that is there is meant as it is."""
    for file in ("a.csv", "b.jsonl", "c.parquet"):
        path = tmp_path / name / file
        if file == "a.csv":
            write(path, CSV.format("a", 1))
        elif file == "b.jsonl":
            write(path, '{"user_id": "a", "item_id": "1"}\n')
        else:
            parquet(path, user_id=["a"], item_id=["1"])
        assert scan(path)[0] == [("a", "1")], file


def test_partitions(tmp_path: Path) -> None:
    """What folders name is a column: of a log and of a table, decoded, with Hive's null."""
    table = pa.table({"user_id": ["a", "b", "c"], "item_id": ["x", "y", "z"], "event": ["view", "a b", None]})
    partitioning = ds.partitioning(pa.schema([("event", pa.string())]), flavor="hive")
    ds.write_dataset(table, tmp_path / "log", format="parquet", partitioning=partitioning)
    rows, faults, _ = scan(tmp_path / "log", event="event")
    assert sorted(rows) == [("a", "x", "view"), ("b", "y", "a b")]
    assert faults.counts == {"without event": 1}

    found = read_table(tmp_path / "log", ids=("item_id",)).sort_by("item_id")
    assert found["event"].to_pylist() == ["view", "a b", None]
    write(tmp_path / "items" / "year=2024" / "a.csv", "item_id\nx\n")
    write(tmp_path / "items" / "year=2025" / "a.csv", "item_id\ny\n")
    assert read_table(tmp_path / "items", ids=("item_id",))["year"].to_pylist() == [2024, 2025]


@pytest.mark.parametrize(
    ("value", "column", "place"),
    [
        ("view", pa.array(["view", "buy"]), 2),
        ("01", pa.array([1, 2]), 2),
        ("1", pa.array([1.5, 1.0]), 1),
        ("2024-01-01", pa.array([date(2024, 1, 1), None]), 2),
        ("__HIVE_DEFAULT_PARTITION__", pa.array([None, "x"]), 2),
    ],
    ids=str,
)
def test_a_column_that_contradicts_its_folder(tmp_path: Path, value: str, column: pa.Array, place: int) -> None:
    """Neither of them is taken in silence; where they agree, there is nothing to say."""
    ids = pa.array(["a", "b"])
    for name, own in (("bad", column), ("good", column.take(pa.array([2 - place, 2 - place])))):
        path = tmp_path / name / f"event={value}" / "part.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table({"user_id": ids, "item_id": ids, "event": own}), path)
    with pytest.raises(InputError, match=f"part.parquet row {place}: column 'event' is .*, but the folder says"):
        scan(tmp_path / "bad", time=None, event="event")
    with pytest.raises(InputError, match=f"part.parquet row {place}: column 'event' is .*, but the folder says"):
        read_table(tmp_path / "bad")
    assert read_table(tmp_path / "good").num_rows == 2


def test_folders_that_contradict_each_other(tmp_path: Path) -> None:
    """The same key twice in a path, with two values; with one value there is nothing to say."""
    write(tmp_path / "a" / "event=view" / "event=buy" / "x.csv", CSV.format("u", "i"))
    with pytest.raises(InputError, match="two of its folders give 'event', as 'view' and 'buy'"):
        scan(tmp_path / "a", time=None, event="event")
    write(tmp_path / "b" / "event=view" / "event=view" / "x.csv", CSV.format("u", "i"))
    assert scan(tmp_path / "b", time=None, event="event")[0] == [("u", "i", "view")]


def test_a_parquet_file_with_a_name_twice(tmp_path: Path) -> None:
    """As CSV and JSON with one are; a column that is not asked for may be there twice."""
    ids = [pa.array(["a"]), pa.array(["b"]), pa.array(["c"]), pa.array([1]), pa.array([2])]
    table = pa.Table.from_arrays(ids, ["user_id", "item_id", "item_id", "x", "x"])
    pq.write_table(table, path := tmp_path / "log.parquet")
    with pytest.raises(InputError, match=r"log\.parquet has two columns 'item_id'; rename one"):
        scan(path, time=None)
    with pytest.raises(InputError, match=r"log.parquet has two columns '(item_id|x)'; rename one"):
        read_table(path)
    pq.write_table(table.select([0, 1, 3, 4]), path)
    assert scan(path, time=None)[0] == [("a", "b")]


def test_types_that_duckdb_would_read_as_others(tmp_path: Path) -> None:
    """Decimals of more than 38 digits are no floats, and durations no numbers."""
    digits = decimal.Decimal(10**40 + 1)
    columns = {
        "user_id": pa.array([decimal.Decimal(1), digits], pa.decimal256(50, 0)),
        "item_id": pa.array(["x", "y"]),
        "real": pa.array([decimal.Decimal("1.5"), None], pa.decimal256(50, 1)),
        "timestamp": pa.array([1_704_067_200, 1_704_067_201], pa.duration("s")),
    }
    pq.write_table(pa.table(columns), path := tmp_path / "log.parquet")
    assert scan(path, time=None)[0] == [("1", "x"), (str(digits), "y")]
    with pytest.raises(InputError, match=r"'timestamp': expected a timestamp.* but the type is INTERVAL"):
        scan(path)
    assert scan(path, columns=("real",), time=None)[1].counts == {
        "whose real is neither text nor a whole number": 1,
        "without real": 1,
    }


@pytest.mark.parametrize("name", ["User_ID", "userId", "USER ID", "user-id"])
def test_a_name_that_is_spelled_otherwise(tmp_path: Path, name: str) -> None:
    """The error guesses it."""
    path = write(tmp_path / "log.csv", f"{name},item_id\na,x\n")
    with pytest.raises(InputError, match=f"no column 'user_id'.*did you mean '{name}'"):
        scan(path, time=None)


def test_integers_of_any_width_are_one(tmp_path: Path) -> None:
    """No file decides the type of the next."""
    parquet(tmp_path / "a.parquet", user_id=pa.array([1], pa.int32()), item_id=["x"], w=[1])
    parquet(tmp_path / "b.parquet", user_id=[2**40], item_id=["y"], w=[1.5])
    parquet(tmp_path / "c.parquet", user_id=pa.array([decimal.Decimal(3)], pa.decimal128(38, 0)), item_id=["z"], w=[2])
    rows, _, found = scan(tmp_path, weight="w")

    assert [(str(user), item, weight) for user, item, weight in rows] == [
        ("1", "x", 1),
        (str(2**40), "y", 1.5),
        ("3", "z", 2),
    ]
    assert found.wholes == {"user_id"}


def test_text_and_numbers_are_not_one(tmp_path: Path) -> None:
    """Both files are named; --id-type makes them alike."""
    parquet(tmp_path / "a.parquet", user_id=[7], item_id=["x"])
    parquet(tmp_path / "b.parquet", user_id=["007"], item_id=["y"])
    with pytest.raises(InputError, match=r"text in .*b\.parquet and whole numbers in .*a\.parquet.*--id-type"):
        scan(tmp_path, columns=("user_id",))
    assert scan(tmp_path, columns=("user_id",), id_type="text")[0] == [("7",), ("007",)]


def test_times_that_only_some_files_have(tmp_path: Path) -> None:
    """Rows without one are bad, whichever file comes first; dates do not cut the times of another file."""
    parquet(tmp_path / "a.parquet", user_id=[1], item_id=["x"])
    parquet(tmp_path / "b.parquet", user_id=[1], item_id=["x"], timestamp=[datetime(2024, 1, 2)])
    for _ in range(2):
        with pytest.raises(InputError, match=r"1 of 2 rows .* 1 without timestamp \(.*[ac]\.parquet row 1\)"):
            scan(tmp_path)[1].settle("log", "error")
        os.rename(tmp_path / "a.parquet", tmp_path / "c.parquet") if (tmp_path / "a.parquet").exists() else None
    parquet(tmp_path / "c.parquet", user_id=[1], item_id=["x"], timestamp=[date(2024, 1, 1)])
    assert [row[2] % 86_400_000_000 for row in scan(tmp_path)[0]] == [0, 0]
    parquet(tmp_path / "b.parquet", user_id=[1], item_id=["x"], timestamp=[datetime(2024, 1, 2, 13, 30)])
    assert [row[2] % 86_400_000_000 for row in scan(tmp_path)[0]] == [48_600_000_000, 0]


@pytest.mark.parametrize(
    ("values", "expected", "whole"),
    [
        (pa.array(["a"], pa.string_view()), ["a"], False),
        (pa.array(["a"], pa.large_string()), ["a"], False),
        (pa.array(["a"]).dictionary_encode(), ["a"], False),
        (pa.array([7]).dictionary_encode(), [7], True),
        (pa.array([7], pa.uint8()), [7], True),
        (pa.array([2**63], pa.uint64()), [str(2**63)], True),
        (pa.array([decimal.Decimal(7)], pa.decimal128(10, 0)), ["7"], True),
        (pa.array([decimal.Decimal("7.00")], pa.decimal128(10, 2)), ["7"], True),
        (pa.array([decimal.Decimal(10**30)], pa.decimal128(38, 0)), [str(10**30)], True),
        (pa.array([uuid.UUID(int=5).bytes], pa.uuid()), [str(uuid.UUID(int=5))], False),
    ],
    ids=lambda value: str(getattr(value, "type", "")),
)
def test_types_of_ids(tmp_path: Path, values: pa.Array, expected: list[Any], whole: bool) -> None:
    """Text of every type is text, whole numbers of every type are numbers; a UUID is its text."""
    table = pa.table({"user_id": values, "item_id": values})
    pq.write_table(table, tmp_path / "log.parquet")
    for source in (table, tmp_path / "log.parquet"):
        rows, _, found = scan(source)
        assert [user for user, _ in rows] == expected
        assert ("user_id" in found.wholes) is whole


@pytest.mark.parametrize(
    "values",
    [[1.0, 2.0], [True], [date(2024, 1, 1)], [b"x"], [["a"]], [{"a": 1}]],
    ids=["real", "bool", "date", "binary", "list", "struct"],
)
def test_types_that_are_no_ids(values: list[Any]) -> None:
    """They are refused by their type."""
    with pytest.raises(InputError, match="column 'user_id': ids must be text or whole numbers, but the type is"):
        scan(pa.table({"user_id": values, "item_id": values}))


def test_a_decimal_that_is_not_whole(tmp_path: Path) -> None:
    """It is a bad row, not another id."""
    values = pa.array([decimal.Decimal("7.00"), decimal.Decimal("7.50")], pa.decimal128(10, 2))
    rows, faults, _ = scan(pa.table({"user_id": values, "item_id": ["x", "y"]}))
    assert rows == [("7", "x")]
    with pytest.raises(InputError, match=r"1 whose user_id is neither text nor a whole number \(row 2 '7.50'\)"):
        faults.settle("log", "error")


def test_the_index_of_pandas_is_no_column(tmp_path: Path) -> None:
    """A frame that was filtered has one, which its owner never named."""
    frame = pa.table({"item_id": ["a", "b"], "n": [1, 2]}).to_pandas()
    frame[frame.n < 2].to_parquet(tmp_path / "items.parquet")
    assert read_table(tmp_path / "items.parquet", ids=("item_id",)).column_names == ["item_id", "n"]


def test_columns_that_differ_only_in_case(tmp_path: Path) -> None:
    """DuckDB does not tell them apart; the one that is asked for is read."""
    parquet(tmp_path / "log.parquet", User_Id=["A"], user_id=["a"], item_id=["x"])
    assert scan(tmp_path / "log.parquet")[0] == [("a", "x")]


def test_parts_without_a_value(tmp_path: Path) -> None:
    """What has no value has no type that another part could differ from."""
    parquet(tmp_path / "log" / "a.parquet", user_id=["a"], item_id=["x"])
    parquet(tmp_path / "log" / "b.parquet", user_id=pa.array([], pa.float64()), item_id=pa.array([], pa.int64()))
    assert scan(tmp_path / "log")[0] == [("a", "x")]

    write(tmp_path / "items" / "a.jsonl", '{"item_id": "a", "n": null, "sizes": []}\n')
    write(tmp_path / "items" / "b.jsonl", '{"item_id": "b", "n": 5, "sizes": [1]}\n')
    parquet(tmp_path / "items" / "c.parquet", item_id=["c"], n=pa.array([None], pa.string()))
    parquet(tmp_path / "items" / "d.parquet", item_id=pa.array([], pa.float64()), n=pa.array([], pa.string()))
    table = read_table(tmp_path / "items", ids=("item_id",))
    assert table.to_pydict() == {"item_id": ["a", "b", "c"], "n": [None, 5, None], "sizes": [[], [1], None]}


def test_a_frame_with_a_name_twice() -> None:
    """It is an error of ours."""
    frame = pa.table({"a": ["x"], "b": ["y"]}).to_pandas().set_axis(["user_id", "user_id"], axis=1)
    with pytest.raises(InputError, match=r"the DataFrame cannot be read.*Duplicate column names found"):
        scan(frame)


BROKEN = pa.Array.from_buffers(pa.string(), 1, [None, pa.py_buffer(np.array([0, 1], np.int32)), pa.py_buffer(b"\xff")])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: pd.DataFrame({"user_id": [2**70], "item_id": [1]}), "too large"),
        (lambda: pd.DataFrame({"user_id": ["a", 1], "item_id": [1, 2]}), "column user_id with type object; give each"),
        (lambda: pd.DataFrame({"user_id": ["\udcff"], "item_id": [1]}), r"'\\udcff' in position 0: surrogates"),
        (lambda: pd.DataFrame({"user_id": pd.arrays.SparseArray([1]), "item_id": [1]}), "Sparse pandas data"),
        (
            lambda: pa.table({"user_id": BROKEN, "item_id": [1]}),
            "column 'user_id': Invalid UTF8 sequence at .* index 0$",
        ),
        (lambda: duckdb.sql("SELECT 'b'::INT AS user_id, 1 AS item_id"), "Could not convert string 'b' to INT32"),
        (lambda: duckdb.sql("SELECT union_value(a := 1) AS user_id, 1 AS item_id"), "'user_id': ids must be text"),
    ],
    ids=["integers", "mixed", "surrogates", "sparse", "utf-8", "failing-query", "union"],
)
def test_tables_in_memory_that_cannot_be_read(make: Callable[[], Any], message: str) -> None:
    """Whatever the library that holds the table raises, it is an error of ours, on one line."""
    with pytest.raises(InputError, match=message) as error:
        scan(make())
    assert "\n" not in str(error.value)
    assert "Traceback" not in str(error.value)
