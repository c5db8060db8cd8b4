"""JSON lines, arrays, and objects over several lines."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from tests.reading.scanning import scan, write

from feast_embeddings.errors import InputError
from feast_embeddings.reading import read_table

ROWS: list[dict[str, Any]] = [{"user_id": "a", "item_id": 1}, {"user_id": "b\nc", "item_id": 20}]
EXPECTED = [("a", "1"), ("b\nc", "20")]


@pytest.mark.parametrize(
    "text",
    [
        "".join(json.dumps(row) + "\n" for row in ROWS),
        "\n\n".join(json.dumps(row) for row in ROWS),
        "\ufeff" + "".join(json.dumps(row) + "\r\n" for row in ROWS),
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        " \n" + json.dumps(ROWS),
        "\n".join(json.dumps(row, indent=2) for row in ROWS),
    ],
    ids=["lines", "blank-lines", "windows", "array", "pretty-array", "space-first", "pretty-objects"],
)
def test_forms(tmp_path: Path, text: str) -> None:
    """All forms are the same rows; numbers are told from text."""
    for name in ("log.json", "log.jsonl", "log.ndjson"):
        rows, faults, found = scan(write(tmp_path / name, text))
        assert (rows, faults.bad, found.wholes) == (EXPECTED, 0, {"item_id"}), name


def test_text_stays_text(tmp_path: Path) -> None:
    """Ids that look like dates or numbers are what the file says they are."""
    ids = ["2024-01-01", "007", "1e3", "true", "null", 'a"b', "é🎈", "\\"]
    log = write(tmp_path / "log.jsonl", "".join(json.dumps({"user_id": id, "item_id": id}) + "\n" for id in ids))
    rows, _, found = scan(log)
    assert ([user for user, _ in rows], found.wholes) == (ids, set())


def test_columns_that_are_not_asked_for_may_hold_anything(tmp_path: Path) -> None:
    """Other types in each line, megabytes, and 100,000 lists within each other are no fault."""
    lines = [
        '{"user_id": "a", "item_id": "1", "price": 1.5}',
        '{"user_id": "b", "item_id": "1", "price": "n/a"}',
        '{"user_id": "c", "item_id": "1", "price": {"x": []}}',
        '{"user_id": "d", "item_id": "1", "html": "' + "z" * 20_000_000 + '"}',
        '{"user_id": "e", "item_id": "1", "deep": ' + "[" * 100_000 + "]" * 100_000 + "}",
    ]
    assert [user for user, _ in scan(write(tmp_path / "log.jsonl", "\n".join(lines)))[0]] == list("abcde")


def test_lines_that_are_no_objects(tmp_path: Path) -> None:
    """They are counted apart from objects without an id."""
    lines = ['{"user_id": 1, "item_id": 2}', '{"user_id"', "[1]", '"x"', "{} {}", '{"item_id": 2}', "nope"]
    rows, faults, _ = scan(write(tmp_path / "log.jsonl", "\n".join(lines)))

    assert rows == [("1", "2")]
    assert (faults.rows, faults.bad) == (7, 6)
    assert faults.counts == {"not a JSON object in UTF-8": 5, "without user_id": 1}
    with pytest.raises(
        InputError, match=r"5 not a JSON object in UTF-8 \(row 2, row 3, row 4, …\); 1 without user_id \(row 6\)"
    ):
        faults.settle("log", "error")


def test_an_id_within_lists_without_end(tmp_path: Path) -> None:
    """It is one bad row, not the end of the process."""
    deep = '{"user_id": ' + "[" * 200_000 + "]" * 200_000 + ', "item_id": 1}'
    rows, faults, _ = scan(write(tmp_path / "log.jsonl", f'{{"user_id": 1, "item_id": 1}}\n{deep}\n'))
    assert (rows, faults.counts) == ([("1", "1")], {"whose user_id is neither text nor a whole number": 1})


@pytest.mark.parametrize("value", ["1.0", "1.5", "1e3", "true", "[1]", '{"a": 1}'])
def test_values_that_are_no_ids(tmp_path: Path, value: str) -> None:
    """Real numbers and the rest are bad rows."""
    log = write(tmp_path / "log.jsonl", f'{{"user_id": {value}, "item_id": 1}}\n{{"user_id": 2, "item_id": 1}}\n')
    rows, faults, _ = scan(log)
    assert (rows, faults.bad) == ([("2", "1")], 1)


@pytest.mark.parametrize("value", ["1.0", "true", "[1]", '{"a": 1}', "null", '""'])
def test_bad_rows_do_not_say_what_ids_are(tmp_path: Path, value: str) -> None:
    """What is dropped is neither a number nor text: the ids of the other rows are what they are."""
    bad = f'{{"user_id": {value}, "item_id": 1}}\n{{"user_id": 5, "item_id": {value}}}\n'
    log = write(tmp_path / "log.jsonl", bad + '{"user_id": "a", "item_id": "b"}\n')
    rows, faults, found = scan(log)
    assert (rows, faults.bad, found.wholes) == ([("a", "b")], 2, set())


def test_numbers_and_text(tmp_path: Path) -> None:
    """7 and "7" are not taken for one id unless somebody says so."""
    log = write(tmp_path / "log.jsonl", '{"user_id": 7, "item_id": 1}\n{"user_id": "7", "item_id": 1}\n')
    with pytest.raises(InputError, match=r"a number in row 1 and text in row 2.*--id-type"):
        scan(log)
    assert scan(log, id_type="text")[0] == [("7", "1")] * 2
    assert scan(log, id_type="int")[0] == [(7, 1)] * 2


def test_whole_numbers_beyond_64_bits(tmp_path: Path) -> None:
    """They are their text."""
    log = write(tmp_path / "log.jsonl", '{"user_id": 123456789012345678901234567890, "item_id": 1}\n')
    assert scan(log)[0] == [("123456789012345678901234567890", "1")]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("log.jsonl", '{{"user_id": "a", "item_id": "x"}}\n{second}\n'),
        ("log.jsonl", "1\n{second}\n"),
        ("log.json", '[{{"user_id": "a", "item_id": "x"}}, {second}]'),
    ],
)
def test_a_key_twice_in_one_object(tmp_path: Path, name: str, text: str) -> None:
    """Readers differ in which value counts, so it is an error; a key that is not read is none of the log's business."""
    twice = '{"user_id": "a", "item_id": "x", "item_id": "y", "page": 1, "page": 1}'
    path = write(tmp_path / name, text.format(second=twice))
    with pytest.raises(InputError, match="row 2 has the key 'item_id' more than once"):
        scan(path, time=None)
    with pytest.raises(InputError, match=r"row 2 has the key '(item_id|page)' more than once"):
        read_table(path)
    other = write(tmp_path / f"other-{name}", text.format(second='{"user_id": "b", "item_id": "y", "p": 1, "p": 2}'))
    assert scan(other, time=None)[0][-1] == ("b", "y")


def test_a_column_that_comes_late(tmp_path: Path) -> None:
    """One that the first 20,480 objects do not have is found all the same, and its rows are not."""
    lines = ['{"user_id": 1, "item_id": 1}'] * 25_000 + ['{"user_id": 1, "item_id": 1, "timestamp": 1700000000}']
    rows, faults, found = scan(write(tmp_path / "log.jsonl", "\n".join(lines)))
    assert "timestamp" in found.columns
    assert (len(rows), faults.counts) == (1, {"without timestamp": 25_000})


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "2"], [1, 2]),
        (["1", "2.5"], [1.0, 2.5]),
        (['"1"', '"02"'], ["1", "02"]),
        (['"2024-01-01"', "null"], ["2024-01-01", None]),
        (["true", "null"], [True, None]),
        (["[40, null]", "[]"], [[40, None], []]),
        (['["a"]', "null"], [["a"], None]),
        ([str(2**64), "1"], [str(2**64), "1"]),
        ([str(2**53 + 1), "1.5"], [str(2**53 + 1), "1.5"]),
        ([f"[{2**63}, 1]", "null"], [[str(2**63), "1"], None]),
    ],
)
def test_columns_of_tables(tmp_path: Path, values: list[str], expected: list[Any]) -> None:
    """JSON knows what is a number and what is text; nothing is guessed."""
    path = write(tmp_path / "t.jsonl", "".join(f'{{"item_id": "i{n}", "x": {v}}}\n' for n, v in enumerate(values)))
    found = read_table(path, ids=("item_id",))["x"].to_pylist()
    assert (found, list(map(type, found))) == (expected, list(map(type, expected)))


def test_columns_of_two_types(tmp_path: Path) -> None:
    """Text and numbers are one column only as text, which somebody has to say."""
    path = write(tmp_path / "t.jsonl", '{"item_id": "a", "x": 1}\n{"item_id": "b", "x": "n/a"}\n')
    with pytest.raises(InputError, match=r"column 'x' holds text and whole numbers.*--attribute-types x=text"):
        read_table(path, ids=("item_id",), types={})
    assert read_table(path, ids=("item_id",), types={"x": "text"})["x"].to_pylist() == ["1", "n/a"]


def test_lines_that_are_not_utf_8(tmp_path: Path) -> None:
    """They are bad rows, counted as lines that are no object are."""
    text = '{"user_id": "a", "item_id": 1}\n\n{"user_id": "é", "item_id": 1}\n[]\n{"user_id": "b", "item_id": 1}\n'
    content = text.encode("latin-1")
    for name, written in (("log.jsonl", content), ("log.jsonl.gz", gzip.compress(content))):
        rows, faults, _ = scan(write(tmp_path / name, written))
        assert (rows, faults.counts) == ([("a", "1"), ("b", "1")], {"not a JSON object in UTF-8": 2})
        with pytest.raises(InputError, match=r"2 not a JSON object in UTF-8 \(row 2, row 3\)"):
            faults.settle("log", "error")


@pytest.mark.parametrize("text", ["[]", "{}\n", '{"user_id": 1}{"user_id": 2}', "user_id,item_id\na,1\n"])
def test_files_without_an_object(tmp_path: Path, text: str) -> None:
    """The error says what was expected."""
    with pytest.raises(InputError, match=r"no columns; expected .*objects, one per line or all in an array"):
        scan(write(tmp_path / "log.json", text))


@pytest.mark.parametrize("text", ["[]", "{}\n{}\n"])
def test_tables_without_a_column(tmp_path: Path, text: str) -> None:
    """The error of a log without one."""
    with pytest.raises(InputError, match=r"t\.json has no columns; expected 'item_id'"):
        read_table(write(tmp_path / "t.json", text), ids=("item_id",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"item_id": 1, "x": 1, "X": 2}', "keys that differ only in case: 'x', 'X'; rename one"),
        ('{"item_id": 1, "": 2}', "a key without a name"),
        ('{"item_id": 1}\n{"item_id": "\\ud83d"}', r"1 of 2 rows cannot be used: 1 not a JSON object in UTF-8 \(row 2"),
    ],
)
def test_tables_that_cannot_be_read(tmp_path: Path, text: str, message: str) -> None:
    """The error names the key or the row."""
    with pytest.raises(InputError, match=message):
        read_table(write(tmp_path / "t.jsonl", text), ids=("item_id",))


def test_whole_numbers_that_pandas_wrote_as_real_ones(tmp_path: Path) -> None:
    """They are whole numbers where those are asked for, as for the next version of a model."""
    path = write(tmp_path / "t.jsonl", '{"item_id": "a", "x": 1.0}\n{"item_id": "b", "x": null}\n')
    assert read_table(path, ids=("item_id",), types={"x": "int"})["x"].to_pylist() == [1, None]
    path = write(tmp_path / "t.csv", "item_id,x\na,1.0\nb,\n")
    assert read_table(path, ids=("item_id",), types={"x": "int"})["x"].to_pylist() == [1, None]
    with pytest.raises(InputError, match=r"not a whole number, first in row 1: '1\.5'"):
        read_table(write(tmp_path / "t.csv", "item_id,x\na,1.5\n"), types={"x": "int"})


@pytest.mark.parametrize("text", ['[{"user_id":"a"},"q"]', "[1, 2]", '[["a", "x"]]'])
def test_an_array_of_other_than_objects_is_bad_input(tmp_path: Path, text: str) -> None:
    """One error of ours that names the file, also if the wanted column is in none of the objects."""
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json.*JSON"):
        read_table(tmp_path / "a.json", ids=["item_id"])
    with pytest.raises(InputError, match=r"a\.json.*JSON"):
        scan(tmp_path / "a.json")
