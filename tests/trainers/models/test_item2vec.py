"""Sentences by a dictionary, users by numpy, and neighbours by who stands next to whom."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.models import item2vec
from embedding_trainers.models.item2vec import ITEM2VEC, Item2VecConfig, parts_item2vec
from embedding_trainers.trainer import Factors, KnownSide, RunOptions, TrainingLog
from feast_embeddings.errors import InputError, MissingExtraError

HOUR = 3_600_000_000
CONFIG = Item2VecConfig(factors=8, iterations=5)
ONE_THREAD = RunOptions(seed=1, threads=1)


def summed(log: TrainingLog) -> csr_matrix:
    weights = np.ones(len(log), np.float32) if log.weights is None else log.weights
    matrix = csr_matrix((weights, (log.user_rows, log.item_columns)), dtype=np.float32)
    matrix.sort_indices()
    return matrix


def fit(log: TrainingLog, config: Item2VecConfig = CONFIG) -> Factors:
    return ITEM2VEC.fit(summed(log), config, ONE_THREAD, log)


@pytest.fixture
def log(rng: np.random.Generator) -> TrainingLog:
    """60 users, 30 items, a weight and a time for each interaction; pairs repeat."""
    users = np.append(np.arange(60), rng.integers(0, 60, 600)).astype(np.int32)
    items = np.append(np.arange(60) % 30, rng.integers(0, 30, 600)).astype(np.int32)
    times = rng.integers(1, 2000, 660) * HOUR
    weights = rng.choice(np.array([0.5, 1, 4], np.float32), 660)
    return TrainingLog(users, items, weights, times).by_time()


def sentences(log: TrainingLog, hours: float | None) -> Counter[tuple[int, ...]]:
    found: dict[int, list[list[int]]] = {}
    last: dict[int, int] = {}
    assert log.times is not None
    for user, item, time in zip(log.user_rows.tolist(), log.item_columns.tolist(), log.times.tolist(), strict=True):
        sessions = found.setdefault(user, [])
        if not sessions or (hours is not None and time - last[user] > hours * HOUR) or len(sessions[-1]) == 7:
            sessions.append([])
        sessions[-1].append(item)
        last[user] = time
    return Counter(tuple(session) for sessions in found.values() for session in sessions)


@pytest.mark.parametrize("hours", [None, 100, 24.5, 0.001])
def test_sentences(log: TrainingLog, hours: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session is what a user did, by time, up to a gap; one that is too long is cut."""
    monkeypatch.setattr(item2vec, "_LONGEST", 7)
    sessions = item2vec._Sessions(log, hours, 0)
    first, second = list(sessions), list(sessions)

    assert Counter(map(tuple, first)) == Counter(map(tuple, second)) == sentences(log, hours)
    assert first != second  # in another order
    assert len(sessions) == len(first)
    assert all(type(column) is int for session in first for column in session)


def test_sentences_without_times_are_sets(log: TrainingLog) -> None:
    """They are shuffled in each pass, and nothing is lost."""
    sessions = item2vec._Sessions(replace(log, times=None), None, 0)
    by_user: dict[int, list[int]] = {}
    for user, item in zip(log.user_rows.tolist(), log.item_columns.tolist(), strict=True):
        by_user.setdefault(user, []).append(item)
    first, second = list(sessions), list(sessions)

    whole = Counter(tuple(sorted(items)) for items in by_user.values())
    assert Counter(tuple(sorted(items)) for items in first) == whole
    assert Counter(tuple(sorted(items)) for items in second) == whole
    assert Counter(map(tuple, first)) != Counter(map(tuple, second))


def test_users_are_means_of_their_items(log: TrainingLog) -> None:
    """By weight, of items of length 1; popular items have a larger bias."""
    factors, matrix = fit(log), summed(log).toarray()
    means = np.stack([np.average(factors.item_factors, axis=0, weights=row) for row in matrix])

    np.testing.assert_allclose(factors.user_factors, means, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(factors.item_factors, axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(factors.item_bias, 0.1 * np.log1p((matrix > 0).sum(axis=0)), rtol=1e-6)


def test_a_trained_user_folded_in_is_the_same(log: TrainingLog) -> None:
    """To the byte; and the parts of a user sum to it."""
    factors, matrix = fit(log), summed(log)
    known = KnownSide("item", factors.item_factors, factors.item_bias, matrix.getnnz(axis=0).astype(np.int64))
    assert ITEM2VEC.fold_in is not None
    folded = ITEM2VEC.fold_in(matrix, known, CONFIG, ONE_THREAD)

    assert folded.factors.tobytes() == factors.user_factors.tobytes()
    parts = parts_item2vec(matrix[3], known, CONFIG)
    np.testing.assert_allclose(parts.sum(axis=0), folded.factors[3], atol=1e-6)


@pytest.mark.parametrize("given", [{"window": 10**12}, {"negatives": 10**11}, {"window": 0}])
def test_too_large_numbers(given: dict[str, int]) -> None:
    """gensim's threads would die of them, and its main thread wait for ever."""
    with pytest.raises(InputError, match="Input should be"):
        ITEM2VEC.configure(given)


@pytest.mark.parametrize("seed", [0, 1])
def test_sessions_decide_who_is_near(seed: int) -> None:
    """All users have all items, so only the times say which are alike: those of the same session."""
    rng = np.random.default_rng(seed)
    first, second = np.split(rng.permutation(24), 2)
    items = np.concatenate([np.append(rng.permutation(first), rng.permutation(second)) for _ in range(100)])
    hours = np.tile(np.append(np.arange(1, 13), np.arange(101, 113)), 100)
    log = TrainingLog(np.repeat(np.arange(100, dtype=np.int32), 24), items.astype(np.int32), None, hours * HOUR)
    config = Item2VecConfig(factors=8, iterations=20, session_hours=10)
    vectors = fit(log.by_time(), config).item_factors
    cosines = vectors @ vectors.T
    np.fill_diagonal(cosines, -1)

    np.testing.assert_array_equal(np.isin(cosines.argmax(axis=1), first), np.isin(np.arange(24), first))


def test_refusals(log: TrainingLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it cannot do, it says."""
    with pytest.raises(InputError, match=r"session_hours=2\.0: the log has no times"):
        fit(replace(log, times=None), Item2VecConfig(factors=8, session_hours=2))
    with pytest.raises(InputError, match="here are only their sums"):
        ITEM2VEC.fit(summed(log), CONFIG, ONE_THREAD, None)
    with pytest.raises(InputError, match="item2vec"):
        ITEM2VEC.fit(summed(log), CONFIG, RunOptions(device="gpu"), log)
    blocked: dict[str, Any] = {"gensim": None, "gensim.models": None, "gensim.models.word2vec": None}
    for name, module in blocked.items():
        monkeypatch.setitem(sys.modules, name, module)
    with pytest.raises(MissingExtraError, match=r"item2vec.*feast-embeddings\[item2vec\]"):
        fit(log)


def test_watch_stops(log: TrainingLog) -> None:
    """It says after each pass how far it is, and stops when told."""
    seen: list[int] = []

    def watch(iteration: int, factors: Any) -> bool:
        seen.append(iteration)
        assert np.isfinite(factors().user_factors).all()
        return iteration == 3

    options = replace(ONE_THREAD, watch=watch)
    ITEM2VEC.fit(summed(log), CONFIG, options, log)

    assert seen == [1, 2, 3]
