"""Ids and numbers: an id is what the caller calls a user or item, a number is its row in the factors."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.errors import InputError

__all__ = ["Numbers", "as_ids", "number_ids"]

Numbers = npt.NDArray[np.int32]


def number_ids(column: pa.ChunkedArray, what: str) -> tuple[pa.Array, Numbers]:
    """Number the distinct ids of a column in sorted order (text by its UTF-8 bytes).

    Args:
        column: one id per row.
        what: what to call the column in an error.

    Returns:
        The vocabulary, distinct and ascending, string or int64, shape (n,); and for each row the number of
        its id, so that ``vocabulary[numbers]`` is the column again.

    Raises:
        InputError: null or empty ids, or ids that are neither text nor whole numbers.
    """
    if column.null_count:
        raise InputError(f"{what}: {column.null_count:,} of {len(column):,} rows have no id")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    encoded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    distinct = as_ids(encoded.dictionary, what)
    order = pc.sort_indices(distinct)
    vocabulary = distinct.take(order)
    ranks = np.empty(len(distinct), dtype=np.int32)
    ranks[order.to_numpy()] = np.arange(len(distinct), dtype=np.int32)
    numbers = ranks[encoded.indices.to_numpy()]
    if vocabulary.type == pa.string() and vocabulary[0].as_py() == "":
        raise InputError(f"{what}: {int((numbers == 0).sum()):,} of {len(column):,} rows have an empty id")
    return vocabulary, numbers


def as_ids(values: pa.Array, what: str) -> pa.Array:
    """Cast ids of any text or integer type to string or int64.

    Raises:
        InputError: another type, or whole numbers that do not fit 64 bits with a sign.
    """
    dtype = values.type
    if pa.types.is_dictionary(dtype):
        values, dtype = values.cast(dtype.value_type), dtype.value_type
    if pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype):
        return values.cast(pa.string())
    if pa.types.is_integer(dtype):
        try:
            return values.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise InputError(f"{what}: ids do not fit 64-bit integers ({error}); make them text") from None
    raise InputError(f"{what}: ids must be text or whole numbers, but the type is {dtype}")
