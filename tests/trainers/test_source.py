from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from embedding_trainers.source import read_table
from feast_embeddings.errors import InputError


def read(path: Path, *ids: str) -> pa.Table:
    return read_table(path, select=lambda names: names, ids=ids)


def test_formats_agree(tmp_path: Path) -> None:
    """Parquet, CSV, JSON lines and a folder of Parquet with the same rows give the same table."""
    table = pa.table({"id": ["a", "b"], "n": [1, 2]})
    pq.write_table(table, tmp_path / "t.parquet")
    pa.csv.write_csv(table, tmp_path / "t.csv")
    for suffix in ("jsonl", "ndjson", "json"):
        (tmp_path / f"t.{suffix}").write_text('{"id": "a", "n": 1}\n{"id": "b", "n": 2}\n')
    folder = tmp_path / "folder" / "day=1"
    folder.mkdir(parents=True)
    pq.write_table(table.slice(0, 1), folder / "1.parquet")
    pq.write_table(table.slice(1, 1), folder / "2.parquet")

    for name in ("t.parquet", "t.csv", "t.jsonl", "t.ndjson", "t.json", "folder"):
        assert table.equals(read(tmp_path / name, "id").combine_chunks()), name


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.json"])
def test_only_selected_columns_are_read(tmp_path: Path, name: str) -> None:
    """The caller sees all names and gets the columns that it picks, in its order."""
    pq.write_table(pa.table({"a": [1], "b": [2], "c": [3]}), tmp_path / "t.parquet")
    (tmp_path / "t.csv").write_text("a,b,c\n1,2,3\n")
    (tmp_path / "t.json").write_text('{"a": 1, "b": 2, "c": 3}\n')

    def select(names: list[str]) -> list[str]:
        assert names == ["a", "b", "c"]
        return ["c", "a"]

    table = read_table(tmp_path / name, select=select, ids=())
    assert table.to_pydict() == {"c": [3], "a": [1]}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "20"], [1, 20]),
        (["1", "-7"], [1, -7]),
        (["1", "007"], ["1", "007"]),
        (["1", "x"], ["1", "x"]),
        (["1", "0x10"], ["1", "0x10"]),
        (["9223372036854775807", "9223372036854775808"], ["9223372036854775807", "9223372036854775808"]),
    ],
    ids=["numbers", "negative", "leading-zero", "mixed", "hexadecimal", "too-large"],
)
def test_csv_ids(tmp_path: Path, values: list[str], expected: list[object]) -> None:
    """Ids in CSV are whole numbers only if every one of them is written as one."""
    path = tmp_path / "t.csv"
    path.write_text("id\n" + "".join(f"{value}\n" for value in values))

    assert expected == read(path, "id")["id"].to_pylist()


def test_csv_text(tmp_path: Path) -> None:
    """Quotes, commas, line breaks, emoji and 'NA' come through; only an empty field is a null."""
    path = tmp_path / "t.csv"
    path.write_text('id,x\n"a,\nb",NA\n🍕 /x,\n', encoding="utf-8-sig")

    assert read(path, "id").to_pydict() == {"id": ["a,\nb", "🍕 /x"], "x": ["NA", None]}


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("text.parquet", b"user_id,item_id\n1,2\n", "text.parquet cannot be read as Parquet: "),
        ("cut.parquet", b"PAR1 cut", "cut.parquet cannot be read as Parquet: "),
        ("ragged.csv", b"a,b\n1,2\n1,2,3\n", "ragged.csv cannot be read as CSV: "),
        ("latin.csv", b"a,b\n\xff,2\n", "latin.csv cannot be read as CSV: "),
        ("empty.csv", b"", "empty.csv cannot be read as CSV: Empty CSV file"),
        ("header.csv", b"a,b\n", "header.csv has no rows"),
        ("empty.jsonl", b"", "empty.jsonl cannot be read as JSON lines: Empty JSON file"),
        ("list.json", b'[{"a": 1}]', "expected one JSON object a line"),
        ("broken.jsonl", b'{"a": 1}\n{"a"\n', "broken.jsonl cannot be read as JSON lines: "),
        ("log.xlsx", b"", "log.xlsx: cannot tell the format from the name; expected .parquet, .csv, "),
    ],
)
def test_unreadable(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """A file that is not what its name says is one clear line."""
    (tmp_path / name).write_bytes(content)

    with pytest.raises(InputError) as error:
        read(tmp_path / name, "a")
    assert message in str(error.value)
    assert str(tmp_path / name) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_file(tmp_path: Path) -> None:
    """A path that is not there is named."""
    with pytest.raises(InputError, match=r"nowhere\.csv does not exist"):
        read(tmp_path / "nowhere.csv")


def test_folders_without_rows(tmp_path: Path) -> None:
    """A folder needs Parquet files, and these need rows."""
    with pytest.raises(InputError, match=r"is a folder without \.parquet files"):
        read(tmp_path)
    pq.write_table(pa.table({"a": pa.array([], pa.int64())}), tmp_path / "t.parquet")
    with pytest.raises(InputError, match="has no rows"):
        read(tmp_path)


def test_folder_with_a_broken_file(tmp_path: Path) -> None:
    """One broken file of a folder is an error, not a silent loss of its rows."""
    pq.write_table(pa.table({"a": [1]}), tmp_path / "1.parquet")
    (tmp_path / "2.parquet").write_text("no")

    with pytest.raises(InputError, match="cannot be read as Parquet"):
        read(tmp_path)
