from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.svd import SVDConfig, train_svd
from embedding_trainers.trainer import RunOptions

ONE_THREAD = RunOptions(seed=1, threads=1)


def small(rng: np.random.Generator) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    dense = np.where(rng.random((40, 25)) < 0.2, rng.choice([0.5, 1, 3], (40, 25)), 0)
    dense[:, 0], dense[0] = 1, 2
    return dense


@pytest.mark.parametrize("factors", [6, 24, 25, 60])
@pytest.mark.parametrize("wide", [False, True])
def test_scores_are_those_of_numpy(rng: np.random.Generator, factors: int, wide: bool) -> None:
    """Scores are √(users·items) R̂ times its own best approximation of the rank, as numpy's whole SVD makes it."""
    dense = small(rng).T if wide else small(rng)
    found = train_svd(csr_matrix(dense, dtype=np.float32), SVDConfig(factors=factors, smoothing=3), ONE_THREAD)

    damped = dense.sum(axis=0) + 3
    normalised = dense / np.sqrt(dense.sum(axis=1))[:, None] / np.sqrt(damped)
    left, singular, right = np.linalg.svd(normalised, full_matrices=False)
    kept = left[:, :factors] * singular[:factors] ** 2 @ right[:factors]
    expected = np.sqrt(dense.size) * kept * np.sqrt(damped)
    np.testing.assert_allclose(found.user_factors @ found.item_factors.T, expected, rtol=1e-3, atol=1e-3)
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


def test_either_side_is_folded_from_the_other(rng: np.random.Generator) -> None:
    """A vector is its own history times the other side's basis, which its vectors give back even when rotated."""
    dense = small(rng)
    config = SVDConfig(factors=6, smoothing=3)
    found = train_svd(csr_matrix(dense, dtype=np.float32), config, ONE_THREAD)
    rotation = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    users, items = found.user_factors @ rotation, found.item_factors @ rotation

    user_degrees, item_degrees = dense.sum(axis=1), dense.sum(axis=0)
    damped = np.sqrt(item_degrees + config.smoothing)
    user_history = dense / np.sqrt(user_degrees)[:, None] / damped
    item_history = dense.T / np.sqrt(user_degrees)
    np.testing.assert_allclose(np.sqrt(25) * user_history @ orthonormal(items / damped[:, None]), users, atol=1e-4)
    np.testing.assert_allclose(np.sqrt(40) * item_history @ orthonormal(users), items, rtol=1e-3, atol=1e-3)


def orthonormal(matrix: Any) -> Any:
    """The nearest matrix with orthonormal columns."""
    left, _, right = np.linalg.svd(matrix, full_matrices=False)
    return left @ right
