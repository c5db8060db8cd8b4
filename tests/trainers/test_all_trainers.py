"""What holds for each trainer that comes with the package."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.trainer import Factors, RunOptions, Trainer, find_trainer

NAMES = ["als", "bpr", "svd"]


@pytest.fixture(params=NAMES)
def trainer(request: pytest.FixtureRequest) -> Trainer[Any]:
    """Each of them in turn."""
    return find_trainer(request.param)


def scores(factors: Factors) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return factors.user_factors @ factors.item_factors.T + factors.item_bias


@pytest.mark.parametrize("threads", [1, 2])
def test_checkerboard(trainer: Trainer[Any], checkerboard: csr_matrix, threads: int) -> None:
    """The first recommendation is the item that was withheld from the user."""
    factors = trainer.train(checkerboard, trainer.config(factors=8), RunOptions(seed=1, threads=threads))
    unseen = np.where(checkerboard.toarray() > 0, -np.inf, scores(factors))

    assert list(range(50)) == unseen.argmax(axis=1).tolist()


def test_shapes(trainer: Trainer[Any], checkerboard: csr_matrix) -> None:
    """Factors are float32, contiguous, and as long as asked."""
    factors = trainer.train(checkerboard[:40], trainer.config(factors=7), RunOptions(threads=1))

    assert (
        factors.user_factors.shape,
        factors.item_factors.shape,
        factors.item_bias.shape,
    ) == ((40, 7), (50, 7), (50,))
    for part in (factors.user_factors, factors.item_factors, factors.item_bias):
        assert np.float32 == part.dtype
        assert part.flags.c_contiguous


def test_same_seed_same_bytes(trainer: Trainer[Any], checkerboard: csr_matrix) -> None:
    """One thread and the same seed repeat to the byte."""
    first, second = (
        trainer.train(checkerboard, trainer.config(factors=8), RunOptions(seed=1, threads=1)) for _ in range(2)
    )

    assert first.user_factors.tobytes() == second.user_factors.tobytes()
    assert first.item_factors.tobytes() == second.item_factors.tobytes()
    assert first.item_bias.tobytes() == second.item_bias.tobytes()


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1), (2, 2)], ids=str)
@pytest.mark.parametrize("threads", [1, 4])
def test_tiny(trainer: Trainer[Any], shape: tuple[int, int], threads: int) -> None:
    """One user, one item, or nothing that a user did not like: done at once, and finite."""
    matrix = csr_matrix(np.ones(shape, np.float32))
    factors = trainer.train(matrix, trainer.config(), RunOptions(threads=threads))

    assert np.isfinite(scores(factors)).all()
    assert shape == scores(factors).shape


def test_input_is_not_changed(trainer: Trainer[Any], checkerboard: csr_matrix) -> None:
    """The matrix is the caller's: training leaves it as it is."""
    before = checkerboard.copy()
    trainer.train(checkerboard, trainer.config(factors=4), RunOptions(threads=1))

    assert before.data.tobytes() == checkerboard.data.tobytes()
    assert before.indices.tobytes() == checkerboard.indices.tobytes()
