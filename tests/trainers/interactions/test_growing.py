from __future__ import annotations

from unittest.mock import patch

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedding_trainers.interactions import growing
from embedding_trainers.interactions.growing import GrowingArray


@given(parts=st.lists(st.lists(st.integers(-(2**31), 2**31 - 1))), block_bytes=st.integers(4, 40))
def test_parts_in_order(parts: list[list[int]], block_bytes: int) -> None:
    """Joined is what the parts are in turn, however they lie in blocks."""
    with patch.object(growing, "_BLOCK_BYTES", block_bytes):
        array = GrowingArray(np.int32)
        for part in parts:
            array.append(np.array(part, np.int32))
        joined = array.joined()

    assert joined.dtype == "int32"
    assert joined.tolist() == [value for part in parts for value in part]
    assert not len(array.joined())
