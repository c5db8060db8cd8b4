from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.models.least_squares import row_regularization
from embedding_trainers.models.svd import SVDConfig, train_svd
from embedding_trainers.trainer import RunOptions

ONE_THREAD = RunOptions(seed=1, threads=1)


def small(rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    dense = np.where(rng.random((40, 25)) < 0.2, rng.choice([0.5, 1, 3], (40, 25)), 0)
    dense[:, 0], dense[0] = 1, 2
    return dense


def item_vectors(directions: Any, degrees: Any, popularity: float) -> Any:
    return directions / np.linalg.norm(directions, axis=1, keepdims=True) * degrees[:, None] ** popularity


def user_vectors(dense: Any, items: Any, config: SVDConfig) -> Any:
    """Weighted least squares, one user after the other."""
    ridges = row_regularization(dense.sum(axis=1), config.alpha, config.regularization) * (items**2).sum(axis=1).mean()
    solved = []
    for weights, ridge in zip(dense, ridges, strict=True):
        confidence = 1 + config.alpha * weights
        left = items.T @ (confidence[:, None] * items) + ridge * np.eye(items.shape[1])
        solved.append(np.linalg.solve(left, items.T @ (confidence * (weights > 0))))
    return np.array(solved)


@pytest.mark.parametrize("factors", [6, 24, 25, 60])
@pytest.mark.parametrize("wide", [False, True])
def test_scores_are_those_of_numpy(rng: np.random.Generator, factors: int, wide: bool) -> None:
    """Scores are what numpy's whole SVD and written-out least squares give, whatever the weights."""
    dense = small(rng).T if wide else small(rng)
    config = SVDConfig(factors=factors, smoothing=3, refinements=2, alpha=2, regularization=0.1)
    found = train_svd(csr_matrix(dense, dtype=np.float32), config, ONE_THREAD)

    degrees = dense.sum(axis=0)
    normalised = dense / np.sqrt(dense.sum(axis=1))[:, None] / np.sqrt(degrees + 3)
    _, singular, right = np.linalg.svd(normalised, full_matrices=False)
    items = item_vectors((singular[:, None] * right)[:factors].T, degrees, config.popularity)
    users = user_vectors(dense, items, config)
    for _ in range(2):
        items = item_vectors(dense.T @ users, degrees, config.popularity)
        users = user_vectors(dense, items, config)
    np.testing.assert_allclose(found.user_factors @ found.item_factors.T, users @ items.T, atol=5e-3)
    assert found.user_factors.shape == (len(dense), factors)
    assert not found.item_bias.any()


def test_seed_only_starts_the_iteration(rng: np.random.Generator) -> None:
    """Another seed ends at the same vectors: the signs are fixed, and there is nothing else to choose."""
    dense = (rng.random((300, 200)) < 0.05).astype(np.float32)
    dense[:, 0], dense[0] = 1, 1
    matrix = csr_matrix(dense)
    first, second = (train_svd(matrix, SVDConfig(factors=4), RunOptions(seed=s, threads=1)) for s in (1, 2))

    np.testing.assert_allclose(first.user_factors, second.user_factors, rtol=1e-2, atol=1e-3)
    np.testing.assert_allclose(first.item_factors, second.item_factors, rtol=1e-2, atol=1e-3)
