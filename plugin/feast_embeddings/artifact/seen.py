"""What a user has seen: the list of items, and next to it lists in its order, of weights and of times."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["NEXT_TO_SEEN", "SEEN", "SEEN_TIMES", "SEEN_WEIGHTS", "misfit"]

SEEN, SEEN_WEIGHTS, SEEN_TIMES = "seen_items", "seen_weights", "seen_times"
NEXT_TO_SEEN: Mapping[str, pa.DataType] = {
    SEEN_WEIGHTS: pa.list_(pa.float32()),
    SEEN_TIMES: pa.list_(pa.timestamp("us", tz="UTC")),
}
"""The columns that are optional, and no features."""


def misfit(name: str, lists: pa.Array | pa.ChunkedArray, seen: pa.Array | pa.ChunkedArray) -> tuple[int, str] | None:
    """Return the first row whose list of weights or times does not fit the seen items, from 0, and the error."""
    expected = NEXT_TO_SEEN[name].value_type
    if not pa.types.is_list(lists.type) or lists.type.value_type != expected:
        return 0, f"the type is {lists.type}, expected lists of {expected}"
    lengths, wanted = (pc.list_value_length(column).fill_null(-1) for column in (lists, seen))
    if (row := pc.index(pc.not_equal(lengths, wanted), True).as_py()) >= 0:
        return row, f"{max(lengths[row].as_py(), 0):,} values for {max(wanted[row].as_py(), 0):,} items of {SEEN!r}"
    values = pc.list_flatten(lists)
    bad, what = pc.is_null(values), "a null"
    if name == SEEN_WEIGHTS and not values.null_count:
        # Not NaN either.
        bad = pc.invert(pc.and_(pc.greater(values, 0), pc.is_finite(values)))
        what = "a weight that is not a number above 0"
    if (place := pc.index(bad, True).as_py()) >= 0:
        return pc.list_parent_indices(lists)[place].as_py(), what
    return None
