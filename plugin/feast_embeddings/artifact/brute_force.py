"""Nearest neighbours by brute force, to verify graph searches and to compare versions."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feast_embeddings.artifact.table_files import TableFiles

__all__ = ["VECTOR_ROWS", "Matrix", "as_stored", "highest", "kth_best_scores", "matrix_of", "unit"]

Matrix = npt.NDArray[np.float32]

# Rows that are compared with all queries at a time: few enough that their scores stay in the CPU cache.
VECTOR_ROWS = 4096
# Columns per group, when the highest of many columns are searched.
_WIDTH = 64


def unit(vectors: Matrix) -> Matrix:
    """Normalize vectors, shape (n, dim); one of length 0 stays, and has cosine 0 with all."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    units: Matrix = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return units


def as_stored(vectors: Matrix, datatype: str) -> Matrix:
    """Return what a store returns of vectors that it keeps in this datatype."""
    return vectors.astype(np.float16).astype(np.float32) if datatype == "float16" else vectors


def matrix_of(column: pa.Array) -> Matrix:
    """Return a column of vectors without nulls as a matrix, without a copy."""
    matrix: Matrix = column.flatten().to_numpy().reshape(len(column), -1)
    return matrix


def kth_best_scores(
    rows: TableFiles,
    queries: Matrix,
    k: int,
    bias: str | None,
    *,
    cosine: bool,
    datatype: str,
    skip: npt.NDArray[np.intp] | None,
) -> Matrix:
    """Compute the k-th best score of all rows for each query, shape (n queries,).

    Args:
        queries: shape (n, dim), or (n, dim + 1) with a bias.
        bias: the column with one more coordinate of the rows.
        cosine: whether to normalize rows and queries.
        datatype: float16 rounds rows and queries, normalized first, as an engine does that stores them so.
        skip: per query, the row to leave out.
    """
    best = np.full((len(queries), 0), -np.inf, dtype=np.float32)
    queries = as_stored(unit(queries) if cosine else queries, datatype)
    start = 0
    for batch in rows.batches(["embedding", *([bias] if bias else [])], VECTOR_ROWS):
        block = matrix_of(batch["embedding"])
        if cosine:
            block = unit(block)
        if bias is not None:
            block = np.column_stack([block, batch[bias].to_numpy()])
        scores = queries @ as_stored(block, datatype).T
        if skip is not None:
            inside = (skip >= start) & (skip < start + len(block))
            scores[np.flatnonzero(inside), skip[inside] - start] = -np.inf
        best = np.concatenate([best, scores], axis=1)
        if best.shape[1] > k:
            best = -np.partition(-best, k - 1, axis=1)[:, :k] if k else best[:, :0]
        start += len(block)
    return best.min(axis=1) if k else np.full(len(queries), np.inf, dtype=np.float32)


def highest(scores: Matrix, k: int) -> npt.NDArray[np.int64]:
    """Return the columns of the k highest of each row, unordered."""
    n_rows, n = scores.shape
    if n <= 2 * k * _WIDTH:
        return np.argpartition(scores, n - k, axis=1)[:, -k:]
    # The k highest are in the k groups with the highest maxima, and a maximum takes a tenth of a partition's time.
    groups = np.pad(scores, ((0, 0), (0, -n % _WIDTH)), constant_values=-np.inf).reshape(n_rows, -1, _WIDTH)
    best = np.argpartition(groups.max(axis=2), -k, axis=1)[:, -k:]
    within = np.take_along_axis(groups, best[:, :, None], axis=1).reshape(n_rows, -1)
    places = np.argpartition(within, -k, axis=1)[:, -k:]
    top: npt.NDArray[np.int64] = np.take_along_axis(best, places // _WIDTH, axis=1) * _WIDTH + places % _WIDTH
    return top
