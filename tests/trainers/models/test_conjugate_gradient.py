from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from embedding_trainers.models import conjugate_gradient
from embedding_trainers.models.conjugate_gradient import CpuSolver
from embedding_trainers.models.least_squares import row_regularization

Array = npt.NDArray[np.float64]


def steps(dense: Array, start: Array, known: Array, ridges: Array, alpha: float, n: int) -> Array:
    """The method written out for each row in float64."""
    found = []
    for x, weights, ridge in zip(start, dense, ridges, strict=True):
        confidence = 1 + alpha * weights
        matrix = known.T @ (confidence[:, None] * known) + ridge * np.eye(known.shape[1])
        residual = known.T @ (confidence * (weights > 0)) - matrix @ x
        direction = residual
        for _ in range(n):
            step = (residual @ residual) / (direction @ matrix @ direction)
            x = x + step * direction
            left = residual - step * matrix @ direction
            direction = left + (left @ left) / (residual @ residual) * direction
            residual = left
        found.append(x)
    return np.array(found)


@pytest.mark.parametrize("limit", [None, 5, 40], ids=["large blocks", "a buffer of one entry", "of eight entries"])
@pytest.mark.parametrize("scale", [1, 1e-6, 1e6])
def test_each_row_takes_the_steps_of_conjugate_gradient(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator, limit: int | None, scale: float
) -> None:
    """Two steps, whatever rows are solved together and by how many threads, and rows that no buffer holds."""
    if limit:
        monkeypatch.setattr(conjugate_gradient, "_BLOCK_FLOATS", limit)
        monkeypatch.setattr(conjugate_gradient, "_BUFFER_FLOATS", limit)
        monkeypatch.setattr(conjugate_gradient, "_GRAM_ROWS", 7)
    dense = np.where(rng.random((30, 20)) < 0.3, rng.choice([0.5, 1, 3, 40], (30, 20)), 0)
    dense[:, 0] = 1
    dense *= scale
    start, known = (rng.standard_normal((n, 5)).astype(np.float32) for n in (30, 20))
    ridge = row_regularization(dense.sum(axis=1), 7, 0.1)
    expected = steps(dense, start.astype(np.float64), known.astype(np.float64), ridge, 7, 2)

    found = []
    with threadpool_limits(1, "blas"):
        for threads in (1, 3):
            solver, rows = CpuSolver(5, threads), start.copy()
            solver.solve(solver.equations(csr_matrix(dense, dtype=np.float32), ridge, 7), rows, known, 2)
            found.append(rows)
    np.testing.assert_allclose(found[0], expected, rtol=1e-3, atol=1e-4)
    assert found[0].tobytes() == found[1].tobytes()


def test_solved_rows_stay(rng: np.random.Generator) -> None:
    """Steps beyond the solution change nothing: there is no division by a residual of 0, nor by one of rounding."""
    dense = np.where(rng.random((30, 20)) < 0.3, 1, 0)
    dense[:, 0] = 1
    known = rng.standard_normal((20, 3)).astype(np.float32)
    matrix, ridge = csr_matrix(dense, dtype=np.float32), np.full(30, 0.1)
    solver, rows = CpuSolver(3, 1), np.zeros((30, 3), np.float32)
    solver.solve(solver.equations(matrix, ridge, 7), rows, known, 100)

    y = known.astype(np.float64)
    for x, weights in zip(rows, dense, strict=True):
        confidence = 1 + 7 * weights
        left = y.T @ (confidence[:, None] * y) + 0.1 * np.eye(3)
        np.testing.assert_allclose(x, np.linalg.solve(left, y.T @ (confidence * weights)), rtol=1e-4, atol=1e-5)
    none = np.zeros_like(known)
    solver.solve(solver.equations(matrix, ridge, 7), rows := np.zeros_like(rows), none, 2)
    assert not rows.any()
