"""A few steps of conjugate gradient for each row of `least_squares` (Takács et al., RecSys 2011), on a CPU or a GPU."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedding_trainers.extra import import_extra
from embedding_trainers.models.padded_rows import PaddedRows, padded, row_blocks

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["CpuSolver", "GpuSolver"]

_BLOCK_FLOATS = 1 << 19  # factors of the entries of a block: they stay in the cache
_BUFFER_FLOATS = 1 << 22  # the factors of a row of more entries are looked up a stretch at a time, for each step
_GRAM_ROWS = 1 << 14
_SOLVED = 1e-7  # of the first residual; beyond, float32 has nothing but rounding

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class _Equations:
    """The equations of all rows. Blocks are padded while they are solved: padded, they take twice the matrix."""

    weights: csr_matrix
    ridge: _Floats  # shape (n_rows,)
    alpha: np.float32
    blocks: list[npt.NDArray[np.int64]]


@dataclass(frozen=True)
class _Block:
    """The equations of some rows."""

    entries: PaddedRows
    ridge: _Floats  # shape (b, 1)
    alpha: np.float32


class CpuSolver:
    """Blocks of rows of about equal length, each solved by one thread.

    The result does not depend on the number of threads, if BLAS has one of its own in each, as its callers see to.
    """

    def __init__(self, factors: int, threads: int) -> None:
        self._factors = factors
        self._threads = threads or os.cpu_count() or 1

    def matrix(self, values: _Floats) -> _Floats:
        return values

    def numpy(self, values: _Floats) -> _Floats:
        return values

    def equations(self, weights: csr_matrix, ridge: npt.NDArray[np.float64], alpha: float) -> _Equations:
        """Lay out rows for `solve`; `ridge`, shape (n_rows,), is the λ of each."""
        blocks = row_blocks(weights, entries=max(1, _BLOCK_FLOATS // self._factors))
        return _Equations(weights, ridge.astype(np.float32), np.float32(alpha), list(blocks))

    def solve(self, equations: _Equations, rows: _Floats, known: _Floats, cg_steps: int) -> None:
        """Move `rows` towards the solution for `known`, in place."""
        of_thread = threading.local()

        def start_thread() -> None:  # a buffer each, as fresh memory for each block takes longer than the rest
            of_thread.buffer = np.empty((max(1, _BUFFER_FLOATS // self._factors), self._factors), np.float32)

        with ThreadPoolExecutor(self._threads, initializer=start_thread) as pool:
            parts = (known[start : start + _GRAM_ROWS] for start in range(0, len(known), _GRAM_ROWS))
            gram = np.sum(list(pool.map(lambda part: part.T @ part, parts)), axis=0)

            def solve_block(of_block: npt.NDArray[np.int64]) -> None:
                entries = padded(equations.weights, of_block)
                block = _Block(entries, equations.ridge[of_block, None], equations.alpha)
                factors = _FactorsOfEntries(known, entries.columns, of_thread.buffer)
                rows[of_block] = _solved(block, rows[of_block], factors, gram, cg_steps)

            for _ in pool.map(solve_block, reversed(equations.blocks)):  # long rows first, so that threads end together
                pass


class _FactorsOfEntries:
    """Y of the entries of a block: all of them if the buffer is large enough, and else a stretch of them at a time."""

    def __init__(self, known: _Floats, columns: npt.NDArray[Any], buffer: _Floats) -> None:
        starts = range(0, columns.shape[1], len(buffer))
        self._stretches = [slice(start, start + len(buffer)) for start in starts]
        self._known, self._columns, self._buffer = known, columns, buffer
        self._kept: _Floats | None = self._taken(columns) if len(self._stretches) == 1 else None

    def _taken(self, columns: npt.NDArray[Any]) -> _Floats:
        into = self._buffer[: columns.size].reshape(*columns.shape, -1)
        # Columns come from the matrix, so nothing is clipped; checking them would go through another buffer.
        return self._known.take(columns, axis=0, out=into, mode="clip")

    def __iter__(self) -> Iterator[tuple[slice, _Floats]]:
        for stretch in self._stretches:
            yield stretch, self._taken(self._columns[:, stretch]) if self._kept is None else self._kept


def _solved(block: _Block, x: _Floats, factors: _FactorsOfEntries, gram: _Floats, steps: int) -> _Floats:
    weights = block.entries.weights
    more = block.alpha * weights  # c - 1
    confidence = np.where(weights > 0, 1 + more, np.float32(0))

    residual = -x @ gram - block.ridge * x
    for stretch, y in factors:
        left = confidence[:, stretch] - more[:, stretch] * _scores(y, x)
        residual += _summed(left, y)
    direction = residual
    squared = first = _dot(residual, residual)
    for _ in range(steps):
        moves = squared > _SOLVED**2 * first
        ahead = direction @ gram + block.ridge * direction  # A p
        for stretch, y in factors:
            ahead += _summed(more[:, stretch] * _scores(y, direction), y)
        length = _ratio(squared, _dot(direction, ahead), moves)
        x = x + length * direction
        residual = residual - length * ahead
        left = _dot(residual, residual)
        direction = residual + _ratio(left, squared, moves) * direction
        squared = left
    return x


def _scores(y: _Floats, x: _Floats) -> _Floats:
    """Of each entry, shape (b, w)."""
    found: _Floats = np.matmul(y, x[..., None])[..., 0]
    return found


def _summed(t: _Floats, y: _Floats) -> _Floats:
    """Σ t y over the entries of each row, shape (b, dim)."""
    found: _Floats = np.matmul(t[:, None], y)[:, 0]
    return found


def _dot(a: _Floats, b: _Floats) -> npt.NDArray[np.float64]:
    """Of each row, in float64: a square can be too large for float32, or too small."""
    found: npt.NDArray[np.float64] = np.einsum("ij,ij->i", a, b, dtype=np.float64)
    return found


def _ratio(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], where: npt.NDArray[np.bool_]) -> _Floats:
    return np.divide(a, b, out=np.zeros_like(a), where=where)[:, None].astype(np.float32)


@dataclass(frozen=True)
class _Group:
    """Neighbouring rows of one regularisation, and their confidences."""

    regularization: float
    start: int
    stop: int
    confidence: Any


class GpuSolver:
    """implicit's CUDA code, which takes rows of one regularisation at a time."""

    def __init__(self, factors: int) -> None:
        self._gpu = import_extra("implicit.gpu")
        self._solver = self._gpu.LeastSquaresSolver()
        self._gram = self._gpu.Matrix.zeros(factors, factors)

    def matrix(self, values: _Floats) -> Any:
        return self._gpu.Matrix(values)

    def numpy(self, values: Any) -> Any:
        return values.to_numpy()

    def equations(self, weights: csr_matrix, ridge: npt.NDArray[np.float64], alpha: float) -> list[_Group]:
        """Split rows where `ridge`, shape (n_rows,), which ascends, changes."""
        confidence = weights.copy()
        confidence.data = 1 + np.float32(alpha) * weights.data
        values, starts = np.unique(ridge, return_index=True)
        bounds = [*starts.tolist(), len(ridge)]
        return [
            _Group(value, start, stop, self._gpu.CSRMatrix(confidence[start:stop]))
            for value, start, stop in zip(values.tolist(), bounds[:-1], bounds[1:], strict=True)
        ]

    def solve(self, equations: list[_Group], rows: Any, known: Any, cg_steps: int) -> None:
        """Move `rows` towards the solution for `known`, in place."""
        for group in equations:
            self._solver.calculate_yty(known, self._gram, group.regularization)
            part = rows[group.start : group.stop]  # a view
            self._solver.least_squares(group.confidence, part, self._gram, known, cg_steps)
