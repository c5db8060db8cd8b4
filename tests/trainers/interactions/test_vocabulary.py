from __future__ import annotations

import uuid
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from embedding_trainers.interactions import vocabulary as module
from embedding_trainers.interactions.vocabulary import IdNumbering, Numbers


def number_ids(*pieces: pa.Array, whole: bool = False) -> tuple[pa.Array, Numbers]:
    numbering = IdNumbering()
    for piece in pieces:
        numbering.add(piece)
    return numbering.finish(whole=whole)


UUID = "0123abcd-4567-89ef-8000-00000000000a"
uuids = st.integers(0, 5).map(lambda n: str(uuid.UUID(int=n << 60)))
# Each reads as a UUID to Python, DuckDB or both, but is not how one is written.
near_uuids = st.sampled_from(
    [
        UUID.upper(),
        UUID[:-1] + "A",
        f"{{{UUID}}}",
        f"urn:uuid:{UUID}",
        UUID.replace("-", ""),
        UUID.replace("-", "_"),
        UUID[:7] + "-" + UUID[7] + UUID[9:],
        UUID[:-1],
        UUID + "0",
        " " + UUID[1:],
        UUID[:-1] + "g",
        UUID[:-2] + "ä",
        UUID[:-3] + "\x7f~`",
    ]
)
ids = (
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1)
    | st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1)
    | st.lists(uuids, min_size=1)
    | st.builds(
        lambda first, *rest: [*first, *(id for ids in rest for id in ids)], *3 * [st.lists(uuids | near_uuids)]
    ).filter(bool)
)


@given(ids=ids, sizes=st.lists(st.integers(1, 4), min_size=1), piece_rows=st.integers(1, 12))
@example(ids=[*6 * [UUID], UUID.upper(), UUID, f"{{{UUID}}}"], sizes=[2], piece_rows=2)
@example(
    ids=[*(str(uuid.UUID(int=n)) for n in range(30)), "x", *(str(uuid.UUID(int=n)) for n in range(40))],
    sizes=[1],
    piece_rows=4,
)
def test_round_trip(ids: list[Any], sizes: list[int], piece_rows: int) -> None:
    """The vocabulary holds each id once in ascending order, and the numbers lead back to the column, however cut."""
    column = pa.array(ids)
    pieces = []
    for start in range(0, len(ids), 4):
        size = sizes[start % len(sizes)]
        part = column.slice(start, 4)
        pieces += [part.slice(0, size), part.slice(size)]
    with patch.object(module, "_PIECE_ROWS", piece_rows):
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
