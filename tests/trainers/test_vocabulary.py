from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_trainers.vocabulary import IdNumbering, Numbers
from feast_embeddings.errors import InputError


def number_ids(*pieces: pa.ChunkedArray) -> tuple[pa.Array, Numbers]:
    numbering = IdNumbering("ids")
    for piece in pieces:
        numbering.add(piece)
    return numbering.finish()


ids = st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1) | st.lists(
    st.integers(-(2**63), 2**63 - 1), min_size=1
)


@given(ids=ids, sizes=st.lists(st.integers(1, 4), min_size=1))
def test_round_trip(ids: list[Any], sizes: list[int]) -> None:
    """The vocabulary holds each id once in ascending order, and the numbers lead back to the column, however cut."""
    column = pa.array(ids)
    pieces = []
    for start in range(0, len(ids), 4):
        size = sizes[start % len(sizes)]
        part = column.slice(start, 4)
        pieces.append(pa.chunked_array([part.slice(0, size), part.slice(size)]))
    vocabulary, numbers = number_ids(*pieces)

    # Python compares text by code points, which is the order of its UTF-8 bytes.
    assert vocabulary.to_pylist() == sorted(set(ids))
    assert ids == vocabulary.take(pa.array(numbers)).to_pylist()
    assert numbers.dtype == "int32"


@pytest.mark.parametrize(
    ("dtype", "stored"),
    [
        (pa.large_string(), pa.string()),
        (pa.string_view(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.string()),
    ],
    ids=str,
)
def test_text_types(dtype: pa.DataType, stored: pa.DataType) -> None:
    """Every text type is stored as string."""
    vocabulary, numbers = number_ids(pa.chunked_array([["b", "a"], ["b"]], pa.string()).cast(dtype))

    assert pa.array(["a", "b"], stored).equals(vocabulary)
    assert numbers.tolist() == [1, 0, 1]


@pytest.mark.parametrize("dtype", [pa.int8(), pa.uint8(), pa.int32(), pa.uint32(), pa.uint64()], ids=str)
def test_integer_types(dtype: pa.DataType) -> None:
    """Every integer type is stored as int64."""
    vocabulary, numbers = number_ids(pa.chunked_array([pa.array([7, 3, 7], dtype)]))

    assert pa.array([3, 7], pa.int64()).equals(vocabulary)
    assert numbers.tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.chunked_array([["a", None, None]]), "ids: 2 of 3 rows have no id"),
        (pa.chunked_array([pa.nulls(2)]), "ids: 2 of 2 rows have no id"),
        (
            pa.chunked_array([pa.DictionaryArray.from_arrays(pa.array([0, 1, 1]), pa.array(["a", None]))]),
            "ids: 2 of 3 rows have no id",
        ),
        (pa.chunked_array([["a", "", ""]]), "ids: 2 of 3 rows have an empty id"),
        (pa.chunked_array([[1.0]]), "ids: ids must be text or whole numbers, but the type is double"),
        (pa.chunked_array([[True]]), "ids: ids must be text or whole numbers, but the type is bool"),
        (pa.chunked_array([pa.array([2**63], pa.uint64())]), "ids: ids do not fit 64-bit integers"),
    ],
    ids=["null", "all-null", "null-in-dictionary", "empty", "float", "bool", "too-large"],
)
def test_unusable_ids(column: pa.ChunkedArray, message: str) -> None:
    """Ids that cannot be kept as they are are refused, with counts."""
    with pytest.raises(InputError) as error:
        number_ids(column)
    assert message in str(error.value)
