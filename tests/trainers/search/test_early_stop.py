from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.interactions import Interactions
from embedding_trainers.search import find_iterations
from embedding_trainers.trainer import Factors, RunOptions, Trainer, TrainerConfig, find_trainer
from feast_embeddings.errors import InputError

ONE_THREAD = RunOptions(seed=1, threads=1)


class StagedConfig(TrainerConfig):
    """Of `staged`."""

    iterations: int = 60


def staged(best: int) -> Trainer[Any]:
    """A trainer that knows the two halves of `halves` after `best` iterations, and less before and after it."""

    def train(user_items: csr_matrix, config: StagedConfig, options: RunOptions) -> Factors:
        n_users, n_items = user_items.shape
        noise = np.random.default_rng(0).normal(size=(n_users, n_items)).astype(np.float32)

        def factors(iteration: int) -> Factors:
            parity = np.arange(n_users)[:, None] % 2 == np.arange(n_items) % 2
            scores = parity + abs(iteration - best) * np.float32(0.3) * noise
            return Factors(scores, np.eye(n_items, dtype=np.float32), np.zeros(n_items, np.float32))

        iteration = 0
        for iteration in range(1, config.iterations + 1):
            if options.watch and options.watch(iteration, functools.partial(factors, iteration)):
                break
        return factors(iteration)

    return Trainer(StagedConfig, train)


@pytest.fixture
def halves() -> Interactions:
    """120 users and 40 items; even users met most even items, odd ones most odd ones."""
    users, items = np.nonzero(np.arange(120)[:, None] % 2 == np.arange(40) % 2)
    kept = np.random.default_rng(0).random(len(users)) < 0.8
    return Interactions(
        pa.array(range(120)), pa.array(range(40)), users[kept].astype(np.int32), items[kept].astype(np.int32)
    )


def test_the_best_is_kept(halves: Interactions) -> None:
    """The number of iterations is where the score was highest, and training ended `patience` checks later."""
    stop = find_iterations(staged(best=20), StagedConfig(), halves, ONE_THREAD, patience=3)

    assert stop.config == StagedConfig(iterations=20)
    assert stop.ran == 20 + 3 * 2  # a check every 2 of 60 iterations
    assert str(stop).startswith("20 iterations were best")


def test_it_may_run_to_the_end(halves: Interactions) -> None:
    """Without a decline all iterations are run and kept."""
    stop = find_iterations(staged(best=60), StagedConfig(), halves, ONE_THREAD, patience=3)

    assert stop.config == StagedConfig(iterations=60)
    assert stop.ran == 60


@pytest.mark.parametrize("name", ["als", "bpr", "graph", "softmax"])
def test_trainers_can_be_stopped(checkerboard: csr_matrix, name: str) -> None:
    """A watcher sees each iteration, and what it saw last when it stops is the result."""
    trainer = find_trainer(name)
    seen: list[Factors] = []

    def watch(iteration: int, factors: Any) -> bool:
        seen.append(factors())
        return iteration == 3

    found = trainer.train(checkerboard, trainer.config(factors=4), RunOptions(seed=1, threads=1, watch=watch))
    assert len(seen) == 3
    np.testing.assert_allclose(found.item_factors, seen[-1].item_factors)
    assert np.abs(seen[0].item_factors - seen[-1].item_factors).max() > 1e-4


def test_what_cannot_be_stopped(halves: Interactions) -> None:
    """A trainer without iterations, no patience and a log too small to hold back from are errors."""
    svd, als = find_trainer("svd"), find_trainer("als")
    with pytest.raises(InputError, match="no iterations to stop"):
        find_iterations(svd, svd.config(), halves, ONE_THREAD, patience=1)
    with pytest.raises(InputError, match="patience 0: expected at least 1"):
        find_iterations(als, als.config(), halves, ONE_THREAD, patience=0)
    numbers = np.arange(3, dtype=np.int32)
    small = Interactions(pa.array(range(3)), pa.array(range(3)), numbers, numbers)
    with pytest.raises(InputError, match="no user has 5 items"):
        find_iterations(als, als.config(), small, ONE_THREAD, patience=1)
