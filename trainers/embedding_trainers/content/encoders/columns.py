"""Columns of any Arrow type as the text, numbers or lists that encoders read."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.errors import InputError

__all__ = ["lists_of", "numbers_of", "text_of", "unit_rows", "vectors_of"]


def text_of(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Values as text; null stays null.

    Raises:
        InputError: they are no single values.
    """
    return _cast(column, pa.large_string(), "text")


def numbers_of(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    """Values as float64, shape (n,), NaN for null and for numbers that are not finite.

    Raises:
        InputError: one is no number.
    """
    numbers = np.array(_cast(column, pa.float64(), "a number").to_numpy(), np.float64)
    numbers[~np.isfinite(numbers)] = np.nan
    return numbers


def lists_of(column: pa.ChunkedArray) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """The row of each value, ascending, and the values as text; null rows and null values have none.

    Raises:
        InputError: they are no lists.
    """
    if not _is_list(column.type):
        raise InputError(f"expected lists, got values of type {column.type}")
    lists = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    rows = pc.list_parent_indices(lists).to_numpy()
    values = _cast(pa.chunked_array([pc.list_flatten(lists)]), pa.large_string(), "text").combine_chunks()
    there = values.is_valid()
    return rows[there.to_numpy(zero_copy_only=False)].astype(np.int64), values.filter(there)


def vectors_of(column: pa.ChunkedArray) -> npt.NDArray[np.float32]:
    """Vectors as an array, shape (n, dim), zeros for null.

    Raises:
        InputError: they are no lists of numbers, differ in length, or hold nulls, NaN or infinities.
    """
    if not (_is_list(column.type) and _is_numeric(column.type.value_type)):
        raise InputError(f"expected vectors, lists of as many numbers in each row, got values of type {column.type}")
    there = column.is_valid().to_numpy()
    lists = column.drop_null().combine_chunks()
    sizes = pc.unique(pc.list_value_length(lists)).to_pylist()
    if len(sizes) > 1:
        raise InputError(f"expected vectors of one length, got {min(sizes)} to {max(sizes)} numbers")
    flat = pc.list_flatten(lists).cast(pa.float32())
    values = flat.to_numpy(zero_copy_only=False).reshape(-1, sizes[0]) if sizes else np.empty((0, 0), np.float32)
    if flat.null_count or not np.isfinite(values).all():
        row = int(np.flatnonzero(~np.isfinite(values).all(axis=1))[0])
        raise InputError(f"expected vectors of finite numbers, got {lists[row].as_py()!r:.80}")
    found = np.zeros((len(column), values.shape[1]), np.float32)
    found[there] = values
    return found


def unit_rows(matrix: Any) -> Any:
    """Bring each row of a matrix or array to length 1, in place; rows of zeros stay. scikit-learn's needs columns."""
    if isinstance(matrix, np.ndarray):
        lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
        return np.divide(matrix, lengths, out=matrix, where=lengths > 0)
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    matrix.data /= np.repeat(lengths, np.diff(matrix.indptr))
    return matrix


def _cast(column: pa.ChunkedArray, dtype: pa.DataType, what: str) -> pa.ChunkedArray:
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    try:
        return column.cast(dtype)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(f"expected {what} in each row, got values of type {column.type}: {error}") from None


def _is_list(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype))


def _is_numeric(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_floating(dtype) or pa.types.is_integer(dtype))
