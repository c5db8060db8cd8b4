"""The ridge map, against the closed form in NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_matrix, random_array

from embedding_trainers.content import ridge
from embedding_trainers.content.ridge import fit_ridges

PENALTIES = (30.0, 3.0, 0.3)


def problem(n: int, p: int) -> tuple[csr_matrix, npt.NDArray[np.float32], npt.NDArray[np.float64]]:
    rng = np.random.default_rng(n)
    features = csr_matrix(random_array((n, p), density=0.3, dtype=np.float32, rng=rng))
    return features, rng.standard_normal((n, 4)).astype(np.float32) + 2, rng.integers(1, 50, n).astype(float)


def closed_form(
    features: csr_matrix, vectors: npt.NDArray[np.float32], weights: npt.NDArray[np.float64], penalty: float
) -> npt.NDArray[np.float64]:
    """Predictions of the training rows; the intercept is one more feature, which is not penalised."""
    x = np.c_[features.toarray(), np.ones(features.shape[0])].astype(np.float64)
    w = np.diag(weights / weights.mean())
    penalties = np.diag([penalty] * features.shape[1] + [0])
    return np.asarray(x @ np.linalg.solve(x.T @ w @ x + penalties, x.T @ w @ vectors))


@pytest.mark.parametrize(("n", "p"), [(80, 12), (20, 60), (30, 30), (1, 3)])
@pytest.mark.parametrize("exactly", [True, False])
def test_closed_form(n: int, p: int, exactly: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """By features, by rows and by conjugate gradient the map is that of the normal equations, for each λ."""
    if not exactly:
        monkeypatch.setattr(ridge, "_MOST_EXACT", 0)
        monkeypatch.setattr(ridge, "_MOST_SPECTRUM", 0)
        monkeypatch.setattr(ridge, "_SOLVED", 1e-8)
        monkeypatch.setattr(ridge, "_STEPS", 300)
    features, vectors, weights = problem(n, p)

    fitted = fit_ridges(features, vectors, weights, PENALTIES)

    for found, penalty in zip(fitted, PENALTIES, strict=True):
        expected = closed_form(features, vectors, weights, penalty)
        np.testing.assert_allclose(found.predict(features), expected, atol=2e-4)


def test_order_of_rows_does_not_count() -> None:
    """Rows in another order give the same map."""
    features, vectors, weights = problem(80, 12)
    order = np.random.default_rng(0).permutation(80)

    (one,) = fit_ridges(features, vectors, weights, [1.0])
    (other,) = fit_ridges(features[order], vectors[order], weights[order], [1.0])

    np.testing.assert_allclose(one.weights, other.weights, atol=1e-5)


def test_rows_without_features() -> None:
    """Features that say nothing lead to the weighted mean, and a row of zeros is mapped to the offset."""
    vectors = np.array([[0.0, 1.0], [3.0, 1.0]], np.float32)

    (found,) = fit_ridges(csr_matrix((2, 3), dtype=np.float32), vectors, np.array([2.0, 1.0]), [1.0])

    np.testing.assert_allclose(found.predict(csr_matrix((1, 3), dtype=np.float32)), [[1.0, 1.0]], atol=1e-6)
    np.testing.assert_allclose(found.offset, [1.0, 1.0], atol=1e-6)


@pytest.mark.parametrize(("density", "by_steps"), [(1.0, False), (0.01, True)])
def test_dense_features_take_no_steps(density: float, by_steps: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """One spectrum is less work than steps over all numbers of a model's vectors; not so for a few words of many."""
    taken, solve = [], ridge._by_conjugate_gradient

    def counted(*given: Any) -> Any:
        taken.append(1)
        return solve(*given)

    monkeypatch.setattr(ridge, "_by_conjugate_gradient", counted)
    features = csr_matrix(np.random.default_rng(1).random((600, 300)).astype(np.float32))
    features.data *= np.random.default_rng(2).random(features.nnz) < density
    features.eliminate_zeros()
    vectors = np.random.default_rng(3).standard_normal((600, 64)).astype(np.float32)

    (found,) = fit_ridges(features, vectors, np.ones(600), [1.0])

    assert bool(taken) is by_steps
    expected = closed_form(features, vectors, np.ones(600), 1.0)
    np.testing.assert_allclose(found.predict(features), expected, atol=0.02)
