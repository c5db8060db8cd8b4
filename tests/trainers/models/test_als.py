from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.models.als import ALS, ALSConfig, fold_in_als, train_als
from embedding_trainers.models.least_squares import row_regularization
from embedding_trainers.trainer import Factors, KnownSide, LogShape, RunOptions
from feast_embeddings.errors import InputError

ONE_THREAD = RunOptions(seed=1, threads=1)


def objective(matrix: csr_matrix, factors: Factors, config: ALSConfig) -> float:
    """What ALS minimises, written out over all pairs."""
    assert config.alpha is not None
    weights = matrix.toarray().astype(np.float64)
    scores = factors.user_factors.astype(np.float64) @ factors.item_factors.T
    loss = ((1 + config.alpha * weights) * ((weights > 0) - scores) ** 2).sum()
    for rows, sums in ((factors.user_factors, weights.sum(axis=1)), (factors.item_factors, weights.sum(axis=0))):
        loss += row_regularization(sums, config.alpha, config.regularization) @ (rows.astype(np.float64) ** 2).sum(
            axis=1
        )
    return float(loss)


def test_users_solve_the_normal_equations(rng: np.random.Generator) -> None:
    """Each user vector is the closed form of Hu et al. for the item vectors, whatever the weights."""
    dense = np.where(rng.random((30, 20)) < 0.3, rng.choice([0.5, 1, 3], (30, 20)), 0)
    dense[:, 0] = 1
    alpha = 7
    config = ALSConfig(factors=5, iterations=3, alpha=alpha)
    factors = train_als(csr_matrix(dense, dtype=np.float32), config, ONE_THREAD)

    items = factors.item_factors.astype(np.float64)
    for user, weights in enumerate(dense):
        confidence = 1 + alpha * weights
        regularization = row_regularization(np.array([weights.sum()]), alpha, config.regularization)[0]
        left = items.T @ (confidence[:, None] * items) + regularization * np.eye(5)
        expected = np.linalg.solve(left, items.T @ (confidence * (weights > 0)))
        np.testing.assert_allclose(factors.user_factors[user], expected, rtol=1e-3, atol=1e-5)


def test_iterations_lower_the_objective(checkerboard: csr_matrix) -> None:
    """More iterations come closer to the minimum, and both sides are moved."""
    losses = [
        objective(checkerboard, train_als(checkerboard, config, ONE_THREAD), config)
        for config in (ALSConfig(factors=4, iterations=n, alpha=5) for n in (1, 3, 30))
    ]

    assert losses == sorted(losses, reverse=True)
    assert losses[2] < 0.99 * losses[0]


def test_regularization_follows_the_weight() -> None:
    """It is regularization · alpha · weight up to the steps that rows are grouped by, and does not fall."""
    weights = np.geomspace(0.01, 1e6, 200)
    found = row_regularization(weights, 10, 0.5)

    np.testing.assert_allclose(found, 5 * weights, rtol=0.27)
    assert (np.diff(found) >= 0).all()
    assert len(np.unique(found)) < 45


def test_alpha_follows_the_log(rng: np.random.Generator) -> None:
    """Interactions weigh 6 % of what all pairs weigh, on dense and sparse logs, whatever the unit of the weights."""
    assert ALS.complete(ALSConfig(), LogShape(5000, 5000, 5000, 5000)).alpha == 200
    assert ALS.complete(ALSConfig(), LogShape(5, 5, 25, 25)).alpha == 0.1
    for density in (0.02, 0.5):
        dense = np.where(rng.random((60, 60)) < density, rng.choice([0.5, 1, 300], (60, 60)), 0) + np.eye(60)
        matrix = csr_matrix(dense, dtype=np.float32)
        completed = ALS.complete(ALSConfig(factors=4), LogShape.of(matrix))
        assert completed.alpha is not None
        assert completed.alpha * dense.sum() == pytest.approx(0.06 * dense.size)
        for unit in (1e-3, 1e3):
            assert ALS.complete(ALSConfig(), LogShape.of(matrix * unit)).alpha == pytest.approx(completed.alpha / unit)
        for given in (completed, ALSConfig(factors=4, alpha=3)):
            assert ALS.complete(given, LogShape.of(matrix)) == given
        derived, told = (train_als(matrix, config, ONE_THREAD) for config in (ALSConfig(factors=4), completed))
        np.testing.assert_array_equal(derived.user_factors, told.user_factors)


def test_fold_in_needs_an_alpha() -> None:
    """It depends on the log of the training, which a fold-in does not see."""
    known = KnownSide("item", np.eye(3, dtype=np.float32), np.zeros(3, np.float32), np.ones(3, np.int64))
    with pytest.raises(InputError, match="alpha is not given"):
        fold_in_als(csr_matrix(np.eye(3, dtype=np.float32)), known, ALSConfig(factors=3), ONE_THREAD)
