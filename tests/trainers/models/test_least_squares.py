from __future__ import annotations

import implicit.cpu.als
import numpy as np
import pytest
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from embedding_trainers.models.als import ALSConfig, train_als
from embedding_trainers.models.least_squares import CpuSolver, groups, row_regularization
from embedding_trainers.trainer import RunOptions


def test_each_row_takes_the_steps_of_conjugate_gradient(rng: np.random.Generator) -> None:
    """Two steps of the method written out for each row in float64, whatever rows are solved together."""
    dense = np.where(rng.random((30, 20)) < 0.3, rng.choice([0.5, 1, 3, 40], (30, 20)), 0)
    dense[:, 0] = 1
    dense = dense[np.argsort(dense.sum(axis=1))]
    start, known = (rng.standard_normal((n, 5)).astype(np.float32) for n in (30, 20))
    regularization = row_regularization(dense.sum(axis=1), 7, 0.1)
    assert len(np.unique(regularization)) > 3

    with threadpool_limits(1, "blas"):
        solver = CpuSolver(5, threads=2)
    rows = solver.matrix(start.copy())
    solver.solve(groups(csr_matrix(dense, dtype=np.float32), regularization, 7, solver), rows, solver.matrix(known), 2)

    y = known.astype(np.float64)
    for found, x, weights, ridge in zip(
        solver.numpy(rows), start.astype(np.float64), dense, regularization, strict=True
    ):
        confidence = 1 + 7 * weights
        matrix = y.T @ (confidence[:, None] * y) + ridge * np.eye(5)
        residual = y.T @ (confidence * (weights > 0)) - matrix @ x
        direction = residual
        for _ in range(2):
            step = (residual @ residual) / (direction @ matrix @ direction)
            x = x + step * direction
            left = residual - step * matrix @ direction
            direction = left + (left @ left) / (residual @ residual) * direction
            residual = left
        np.testing.assert_allclose(found, x, rtol=1e-3, atol=1e-4)


def test_no_index_is_outside_its_array(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """implicit's Cython does not check bounds; its Python, which does, gives the same factors."""
    dense = rng.random((12, 9)) < 0.4
    dense[:, 0] = dense[0] = True
    matrix = csr_matrix(dense, dtype=np.float32)
    config, options = ALSConfig(factors=3, iterations=2), RunOptions(threads=1, device="cpu")
    unchecked = train_als(matrix, config, options)
    monkeypatch.setattr(implicit.cpu.als._als, "least_squares_cg", implicit.cpu.als.least_squares_cg)
    checked = train_als(matrix, config, options)

    np.testing.assert_allclose(checked.user_factors, unchecked.user_factors, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(checked.item_factors, unchecked.item_factors, rtol=1e-3, atol=1e-4)
