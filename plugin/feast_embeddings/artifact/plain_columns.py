"""Convert Arrow columns to layouts that all Arrow functions support: no views, as polars writes, no dictionaries."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

__all__ = ["plain", "plain_type"]


def plain_type(dtype: pa.DataType) -> pa.DataType:
    """Return the type with a plain layout; unchanged if it has one."""
    if pa.types.is_dictionary(dtype):
        return plain_type(dtype.value_type)
    if pa.types.is_string_view(dtype):
        return pa.large_string()
    if pa.types.is_binary_view(dtype):
        return pa.large_binary()
    if pa.types.is_list_view(dtype) or pa.types.is_large_list_view(dtype):
        return pa.large_list(plain_type(dtype.value_type))
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        value = plain_type(dtype.value_type)
        if value != dtype.value_type:
            return pa.large_list(value)
    return dtype


def plain(column: pa.Array) -> pa.Array:
    """Convert the column to a plain layout."""
    dtype = plain_type(column.type)
    if dtype == column.type:
        return column
    if pa.types.is_dictionary(column.type):
        values = plain(column.dictionary)
        return pa.DictionaryArray.from_arrays(column.indices, values).dictionary_decode()
    if pa.types.is_list_view(column.type) or pa.types.is_large_list_view(column.type):
        # Arrow's own cast loses the last list (pyarrow 26).
        lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]), pa.int64())
        return pa.LargeListArray.from_arrays(offsets, plain(column.flatten()), mask=column.is_null())
    return column.cast(dtype)
