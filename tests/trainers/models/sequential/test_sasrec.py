"""SASRec learns an order that no matrix shows, and folds in what it trained."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.models.sequential import SASREC, SASRecConfig
from embedding_trainers.models.sequential.encoder import new_weights
from embedding_trainers.testing import TrainerTests
from embedding_trainers.train import train_model
from embedding_trainers.trainer import Factors, KnownSide, LogShape, RunOptions, TrainingLog, find_trainer
from feast_embeddings.artifact import Network
from feast_embeddings.errors import InputError, MissingExtraError

ONE_THREAD = RunOptions(seed=1, threads=1)
CONFIG = SASRecConfig(factors=16, iterations=30, learning_rate=0.01, batch=32, dropout=0.1, length=8)
ITEMS = 20


def needs_torch() -> None:
    pytest.importorskip("torch", reason="the extra torch is not installed")


class TestSASRec(TrainerTests):
    trainer = SASREC
    parameters: ClassVar = {"factors": 8, "iterations": 40, "learning_rate": 0.01, "batch": 16, "dropout": 0.1}

    @pytest.fixture(autouse=True)
    def _torch(self) -> None:
        needs_torch()


@pytest.fixture
def log(rng: np.random.Generator) -> TrainingLog:
    """200 users walk around a ring of 20 items, half of them forwards and half backwards, 2 to 12 steps."""
    users, items = [], []
    for user in range(200):
        n = int(rng.integers(3, 13))
        users += [user] * n
        first, step = int(rng.integers(ITEMS)), 1 if user % 2 else -1
        items += [(first + step * place) % ITEMS for place in range(n)]
    n = len(users)
    return TrainingLog(np.array(users, np.int32), np.array(items, np.int32), times=np.arange(n, dtype=np.int64))


def summed(log: TrainingLog) -> csr_matrix:
    shape = (int(log.user_rows.max()) + 1, ITEMS)
    matrix = csr_matrix((np.ones(len(log), np.float32), (log.user_rows, log.item_columns)), shape=shape)
    matrix.sort_indices()
    return matrix


def known(factors: Factors, entity: Any = "item") -> KnownSide:
    side = factors.item_factors if entity == "item" else factors.user_factors
    return KnownSide(entity, side, np.zeros(len(side), np.float32), np.ones(len(side), np.int64), factors.network)


@pytest.mark.parametrize("negatives", [None, 12])
def test_the_next_item(log: TrainingLog, negatives: int | None) -> None:
    """The same two items in another order ask for the other neighbour of the ring."""
    needs_torch()
    config = CONFIG.model_copy(update={"negatives": negatives})
    factors = SASREC.fit(summed(log), config, ONE_THREAD, log)
    walks = [[item, (item + step) % ITEMS, (item + 2 * step) % ITEMS] for item in range(ITEMS) for step in (1, -1)]
    rows = np.repeat(np.arange(len(walks), dtype=np.int32), 3)
    asked = TrainingLog(rows, np.ravel(walks).astype(np.int32), times=np.arange(len(rows), dtype=np.int64))

    assert SASREC.fold_in is not None
    folded = SASREC.fold_in(summed(asked), known(factors), config, replace(ONE_THREAD, log=asked))

    scores = folded.factors @ factors.item_factors.T
    scores[rows, np.ravel(walks)] = -np.inf
    wanted = [(2 * walk[2] - walk[1]) % ITEMS for walk in walks]
    assert (scores.argmax(axis=1) == wanted).mean() > 0.9


def test_a_training_user_folded_in_is_the_same(log: TrainingLog) -> None:
    needs_torch()
    factors = SASREC.fit(summed(log), CONFIG, ONE_THREAD, log)
    some = log.of(np.arange(5, 40), np.arange(ITEMS))

    assert SASREC.fold_in is not None
    folded = SASREC.fold_in(summed(some), known(factors), CONFIG, replace(ONE_THREAD, log=some))

    np.testing.assert_allclose(folded.factors, factors.user_factors[5:40], rtol=1e-4, atol=1e-5)


def test_another_seed_is_aligned(log: TrainingLog, repo: Path) -> None:
    """Two trainings begin at the items of als, so that one can be turned into the space of the other."""
    needs_torch()
    assert log.times is not None
    table = pa.table({"user_id": log.user_rows, "item_id": log.item_columns, "timestamp": log.times + 1_000_000_000})
    parameters = CONFIG.model_dump(exclude={"negatives"})
    for seed in (1, 2):
        options = RunOptions(seed=seed, threads=1)
        found = train_model(
            repo, "m", table, trainer="sasrec", parameters=parameters, options=options, evaluation=False
        )
    residual = found.artifact.manifest.alignment_residual
    assert residual is not None
    assert residual < 0.6


def test_an_item_differs_as_its_users_do(rng: np.random.Generator) -> None:
    """The direction of mean less mean, at the length that is kept with the version; no torch is needed."""
    users = rng.normal(size=(6, 4)).astype(np.float32)
    network = Network(new_weights(rng, 4, 3, 1) | {"item_length": np.array([2], np.float32)})
    side = KnownSide("user", users, np.zeros(6, np.float32), np.ones(6, np.int64), network)

    assert SASREC.fold_in is not None
    folded = SASREC.fold_in(csr_matrix(np.array([[1, 0, 3, 0, 0, 0]], np.float32)), side, CONFIG, ONE_THREAD)

    direction = (users[0] + 3 * users[2]) / 4 - users.mean(axis=0)
    np.testing.assert_allclose(folded.factors[0], 2 * direction / np.linalg.norm(direction), rtol=1e-5)


def test_what_it_refuses(log: TrainingLog, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix, user = summed(log), np.zeros((ITEMS, 16), np.float32)
    with pytest.raises(InputError, match="the log has no times; name their column"):
        SASREC.fit(matrix, CONFIG, ONE_THREAD, replace(log, times=None))
    with pytest.raises(InputError, match="single interactions"):
        SASREC.train(matrix, CONFIG, ONE_THREAD)
    assert SASREC.fold_in is not None
    side = KnownSide("item", user, np.zeros(ITEMS, np.float32), np.ones(ITEMS, np.int64), Network({}))
    with pytest.raises(InputError, match="here are only their sums"):
        SASREC.fold_in(matrix, side, CONFIG, ONE_THREAD)
    with pytest.raises(InputError, match="'sasrec' reads the order of items, and cannot be a part"):
        find_trainer("concat").configure({"parts": "als,sasrec"})
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError, match=r"feast-embeddings\[torch\]"):
        SASREC.fit(matrix, CONFIG, ONE_THREAD, log)


def test_large_catalogues_are_sampled() -> None:
    """The whole catalogue takes part up to 60,000 items, unless asked otherwise."""
    given = [
        SASREC.complete(SASRecConfig(negatives=asked), LogShape(10, n, 100, 100)).negatives
        for n, asked in ((60_000, None), (60_001, None), (60_001, 0), (10, 5))
    ]
    assert given == [0, 4096, 0, 5]
