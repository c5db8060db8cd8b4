from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_trainers.vocabulary import IdNumbering, Numbers


def number_ids(*pieces: pa.Array, whole: bool = False) -> tuple[pa.Array, Numbers]:
    numbering = IdNumbering()
    for piece in pieces:
        numbering.add(piece)
    return numbering.finish(whole=whole)


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
        pieces += [part.slice(0, size), part.slice(size)]
    vocabulary, numbers = number_ids(*pieces)

    # Python compares text by code points, which is the order of its UTF-8 bytes.
    assert vocabulary.to_pylist() == sorted(set(ids))
    assert ids == vocabulary.take(pa.array(numbers)).to_pylist()
    assert numbers.dtype == "int32"


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        (["10", "9", "10"], [9, 10]),
        (["-1", str(2**63 - 1)], [-1, 2**63 - 1]),
        (["1", str(2**63)], ["1", str(2**63)]),
    ],
    ids=["numbers", "largest", "beyond-64-bits"],
)
def test_whole_numbers_that_came_as_text(texts: list[str], expected: list[Any]) -> None:
    """They are numbers, in the order of numbers, if all of them fit 64 bits; else all stay text."""
    vocabulary, numbers = number_ids(pa.array(texts), whole=True)

    assert vocabulary.to_pylist() == expected
    assert [str(id) for id in vocabulary.take(pa.array(numbers)).to_pylist()] == texts
