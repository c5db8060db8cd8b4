from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from embedding_trainers.interactions.attributes import read_attribute_file, read_attributes
from feast_embeddings.errors import InputError


def test_order_of_the_vocabulary(tmp_path: Path) -> None:
    """Rows follow the vocabulary; ids without a row get nulls and rows of other ids are left out."""
    path = tmp_path / "items.parquet"
    genres = pa.array([["a"], [], None], pa.list_(pa.string()))
    pq.write_table(pa.table({"sku": ["c", "a", "z"], "title": ["C", "A", "Z"], "genres": genres}), path)
    attributes, without = read_attributes(path, ("sku",), pa.array(["a", "b", "c"]))

    assert attributes.to_pydict() == {"title": ["A", None, "C"], "genres": [[], None, ["a"]]}
    assert without == 1
    assert pa.list_(pa.string()) == attributes.schema.field("genres").type


@pytest.mark.parametrize("vocabulary", [["10", "2"], [2, 10]], ids=["text", "int64"])
@pytest.mark.parametrize("name", ["items.csv", "text.parquet", "numbers.parquet"])
def test_ids_compare_as_text(tmp_path: Path, vocabulary: list[str] | list[int], name: str) -> None:
    """The same id may be a number in one file and text in the other."""
    (tmp_path / "items.csv").write_text("item_id,rank\n2,20\n10,100\n")
    pq.write_table(pa.table({"item_id": ["2", "10"], "rank": [20, 100]}), tmp_path / "text.parquet")
    pq.write_table(pa.table({"item_id": [2, 10], "rank": [20, 100]}), tmp_path / "numbers.parquet")
    attributes, _ = read_attributes(tmp_path / name, ("item_id",), pa.array(vocabulary))

    assert [int(i) * 10 for i in vocabulary] == attributes["rank"].to_pylist()


def test_table_of_ids_only(tmp_path: Path) -> None:
    """A table without further columns brings no attributes."""
    path = tmp_path / "items.csv"
    path.write_text("item_id\n1\n")

    assert read_attributes(path, ("item_id",), pa.array([1]))[0].column_names == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("itemid,x\n1,2\n", "has no column 'item_id'; its columns are 'itemid', 'x'; did you mean 'itemid'?"),
        (
            "item_id,x\n1,2\n,3\n",
            "column 'item_id': 1 of 2 rows have no id (text, or a whole number), the first is row 2",
        ),
        ("item_id,x\n1,2\n3,4\n3,5\n", "column 'item_id': 1 of 3 rows repeat an id, e.g. '3'"),
        (
            "item_id,x\nsku-1,2\n",
            "none of its ids (e.g. 'sku-1') is in the interactions (e.g. 1)",
        ),
    ],
    ids=["no-column", "null", "twice", "strangers"],
)
def test_refused(tmp_path: Path, content: str, message: str) -> None:
    """A table that cannot be joined is one clear line."""
    path = tmp_path / "items.csv"
    path.write_text(content)

    with pytest.raises(InputError) as error:
        read_attributes(path, ("item_id",), pa.array([1, 2, 3]))
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_rows_of_errors_are_those_of_the_file(tmp_path: Path) -> None:
    """Whatever the order of the vocabulary is."""
    path = tmp_path / "items.parquet"
    pq.write_table(pa.table({"item_id": ["c", "b", "a"], "sizes": [[1], [2, None], [3]]}), path)
    with pytest.raises(InputError, match="first in row 2;"):
        read_attributes(path, ("item_id",), pa.array(["a", "b", "c"]))


def test_times_are_cut_to_whole_seconds(tmp_path: Path) -> None:
    """As Feast serves them; the columns where that loses something are known."""
    path = tmp_path / "items.csv"
    path.write_text("item_id,added,sold\na,2024-01-01T00:00:01.5Z,2024-01-01\nb,,2024-01-02\n")
    file = read_attribute_file(path, ("item_id",))
    assert file.cut_times() == ["added"]
    added = file.served()["added"].to_pylist()
    assert added == [datetime(2024, 1, 1, second=1, tzinfo=UTC), None]


@pytest.mark.parametrize(
    ("values", "odd"),
    [
        (["1", "2.5", "N/A"], (3, "N/A")),
        (["nan", "", "7"], (1, "nan")),
        (["1,5", "2", "1.234,5"], (1, "1,5")),
        (["1", "-", "?", "2"], (2, "-")),
        (["1", "S", "M", "L"], None),  # sizes of clothes
        (["1", "12A"], None),
        (["01234", "10115"], None),
        (["4E3", "17"], None),
        (["N/A", "none"], None),
        (["1,2,3", "4"], None),
        (["12345678901234567890", "1"], None),
        (["", ""], None),
    ],
)
def test_numbers_that_are_text_because_of_a_few_values(
    tmp_path: Path, values: list[str], odd: tuple[int, str] | None
) -> None:
    """The first of these is named; codes, and a column whose type is given, are not."""
    path = tmp_path / "items.csv"
    path.write_text("item_id\tx\n" + "".join(f"i{row}\t{value}\n" for row, value in enumerate(values)))
    doubts = read_attribute_file(path, ("item_id",)).doubts
    assert len(doubts) == (odd is not None)
    if odd is not None:
        assert f"'x' is text, as row {odd[0]} has {odd[1]!r} next to numbers elsewhere" in doubts[0]
    assert not read_attribute_file(path, ("item_id",), {"x": "text"}).doubts
