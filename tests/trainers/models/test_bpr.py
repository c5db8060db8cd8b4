from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.models.bpr import BPRConfig, _RunningMean, train_bpr
from embedding_trainers.trainer import Factors, RunOptions
from feast_embeddings.errors import InputError

ONE_THREAD = RunOptions(seed=1, threads=1)


def scores(factors: Factors) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return factors.user_factors @ factors.item_factors.T + factors.item_bias


def test_same_seed_same_bytes(checkerboard: csr_matrix) -> None:
    """One thread and the same seed repeat to the byte; another seed does not."""
    first, second, other = (
        train_bpr(checkerboard, BPRConfig(factors=8, iterations=5), RunOptions(seed=seed, threads=1))
        for seed in (1, 1, 2)
    )

    assert first.user_factors.tobytes() == second.user_factors.tobytes()
    assert first.item_factors.tobytes() == second.item_factors.tobytes()
    assert first.item_bias.tobytes() == second.item_bias.tobytes()
    assert first.item_factors.tobytes() != other.item_factors.tobytes()


def test_popularity_correction() -> None:
    """The bias gains correction · log(1 + users of the item), and nothing else changes."""
    matrix = csr_matrix(np.array([[1, 1, 0], [5, 0, 0], [1, 0, 1], [1, 1, 0]], np.float32))
    plain, corrected = (
        train_bpr(matrix, BPRConfig(factors=4, iterations=3, popularity_correction=c), ONE_THREAD) for c in (0, 2)
    )

    np.testing.assert_array_equal(plain.item_factors, corrected.item_factors)
    np.testing.assert_array_equal(plain.user_factors, corrected.user_factors)
    np.testing.assert_allclose(corrected.item_bias - plain.item_bias, 2 * np.log([1 + 4, 1 + 2, 1 + 1]), rtol=1e-5)
    # Among items that learning left almost alike, the popular one comes first.
    assert np.argsort(-scores(corrected), axis=1).tolist() == [[0, 1, 2]] * 4


def test_divergence(checkerboard: csr_matrix) -> None:
    """A learning rate that explodes is an error that says what to change, not NaN vectors."""
    with pytest.raises(InputError, match=r"diverged.*lower the learning rate"):
        train_bpr(checkerboard, BPRConfig(learning_rate=1e9), ONE_THREAD)


def test_mean_of_passes() -> None:
    """The t-th matrix of n counts in proportion to t (t + 1) (t + 2) (t + 3)."""
    matrices = np.random.default_rng(0).normal(size=(7, 3, 2)).astype(np.float32)
    mean = _RunningMean()
    for n, matrix in enumerate(matrices, start=1):
        mean.add(matrix)
        t = np.arange(1.0, n + 1)
        expected = np.average(matrices[:n], axis=0, weights=t * (t + 1) * (t + 2) * (t + 3))
        np.testing.assert_allclose(mean.value, expected, rtol=1e-5, atol=1e-6)


def test_stopped_early_is_trained_shorter(checkerboard: csr_matrix) -> None:
    """What a watched training has after an iteration is what one with so many iterations gives, to the byte."""
    seen: list[Factors] = []

    def watch(iteration: int, factors: Callable[[], Factors]) -> bool:
        seen.append(factors())
        return iteration == 4

    stopped = train_bpr(checkerboard, BPRConfig(factors=8, iterations=20), replace(ONE_THREAD, watch=watch))
    shorter = train_bpr(checkerboard, BPRConfig(factors=8, iterations=4), ONE_THREAD)

    for found in (stopped, seen[-1]):
        assert found.item_factors.tobytes() == shorter.item_factors.tobytes()
        assert found.item_bias.tobytes() == shorter.item_bias.tobytes()
    assert seen[0].item_factors.tobytes() != seen[-1].item_factors.tobytes()
