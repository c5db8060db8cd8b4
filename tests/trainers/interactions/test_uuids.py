from __future__ import annotations

import uuid
from unittest.mock import patch

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_trainers.interactions import uuids
from embedding_trainers.interactions.uuids import PACKED, pack_uuids, unpack_uuids

UUID = "0123abcd-4567-89ef-8000-00000000000a"


@given(ids=st.lists(st.uuids(), min_size=1), offset=st.integers(0, 3), rows=st.integers(1, 5))
def test_bytes_and_back(ids: list[uuid.UUID], offset: int, rows: int) -> None:
    """UUIDs become the bytes that Python gives them, and their text again, in slices and blocks of any size."""
    texts = pa.array([*offset * ["before"], *map(str, ids), "behind"])
    with patch.object(uuids, "_ROWS", rows):
        packed = pack_uuids(texts.slice(offset, len(ids)))
        assert packed is not None
        part = packed.slice(min(offset, len(ids) - 1))

        assert packed.type == PACKED
        assert packed.to_pylist() == [id.bytes for id in ids]
        assert unpack_uuids(packed).to_pylist() == list(map(str, ids))
        assert unpack_uuids(part).to_pylist() == [str(uuid.UUID(bytes=id)) for id in part.to_pylist()]


@given(place=st.integers(0, 35), character=st.characters(max_codepoint=127))
def test_text_with_one_other_character(place: int, character: str) -> None:
    """It is packed only if it is how Python writes the UUID that it reads."""
    text = UUID[:place] + character + UUID[place + 1 :]
    try:
        canonical = str(uuid.UUID(text)) == text
    except ValueError:
        canonical = False

    packed = pack_uuids(pa.array([UUID, text]))

    assert (packed is not None) == canonical
    assert packed is None or unpack_uuids(packed).to_pylist() == [UUID, text]


@pytest.mark.parametrize(
    "ids",
    [
        [UUID.upper()],
        [f"{{{UUID}}}"],
        [UUID.replace("-", "")],
        [UUID + "0", UUID[:-1]],
        [UUID[:-2] + "ä"],
        [1, 2],
    ],
    ids=["upper-case", "braces", "no-dashes", "lengths", "two-bytes", "numbers"],
)
def test_other_ids_are_not_packed(ids: list[str] | list[int]) -> None:
    assert pack_uuids(pa.array([UUID, *ids] if isinstance(ids[0], str) else ids)) is None
