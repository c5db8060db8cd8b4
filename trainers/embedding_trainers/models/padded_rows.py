"""Sparse rows of unequal length as dense blocks, so that many small problems are solved by one call."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["PaddedRows", "padded", "padded_rows", "row_blocks"]

_BLOCK_ENTRIES = 1 << 10  # few, as a block is as wide as its longest row


@dataclass(frozen=True)
class PaddedRows:
    """Some rows of a sparse matrix, each filled up to the longest of them.

    Attributes:
        rows: which rows of the matrix these are, shape (b,).
        columns: columns of their entries, shape (b, w); 0 where there is no entry.
        weights: float32, shape (b, w); 0 where there is no entry.
    """

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]


def padded_rows(matrix: csr_matrix, *, entries: int = _BLOCK_ENTRIES) -> Iterator[PaddedRows]:
    """All rows of a matrix of positive entries, short first, in blocks of at most `entries` entries, or of one row."""
    return (padded(matrix, rows) for rows in row_blocks(matrix, entries=entries))


def row_blocks(matrix: csr_matrix, *, entries: int) -> Iterator[npt.NDArray[np.int64]]:
    """The rows of each block of `padded_rows`."""
    lengths = np.diff(matrix.indptr)
    order = np.argsort(lengths, kind="stable")
    start = 0
    while start < len(order):
        # Rows are ascending in length, so a block is as wide as its last row, and none is below the first.
        most = max(1, entries // max(1, int(lengths[order[start]])))
        found = lengths[order[start : start + most]]
        sizes = np.arange(1, len(found) + 1) * found
        stop = start + max(1, int(np.searchsorted(sizes, entries, side="right")))
        yield order[start:stop]
        start = stop


def padded(matrix: csr_matrix, rows: npt.NDArray[np.int64]) -> PaddedRows:
    """These rows of a matrix, filled up to the longest."""
    starts = matrix.indptr[rows]
    lengths = matrix.indptr[rows + 1] - starts
    width = np.arange(lengths.max())
    filled = width < lengths[:, None]
    places = (starts[:, None] + width)[filled]
    columns = np.zeros(filled.shape, np.int64)
    weights = np.zeros(filled.shape, np.float32)
    columns[filled] = matrix.indices[places]
    weights[filled] = matrix.data[places]
    return PaddedRows(rows, columns, weights)
