from __future__ import annotations

from itertools import permutations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from embedding_trainers.evaluation import ranking
from embedding_trainers.evaluation.ranking import factors_ranking, popularity_ranking, random_ranking, top_k
from embedding_trainers.trainer import Factors
from feast_embeddings.errors import InputError

from .slow_evaluation import rank


@st.composite
def matrices(draw: st.DrawFn, values: st.SearchStrategy[Any]) -> Any:
    rows, columns = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    row = st.lists(values, min_size=columns, max_size=columns)
    return np.array(draw(st.lists(row, min_size=rows, max_size=rows)))


def padded(lists: list[list[int]], width: int) -> list[list[int]]:
    return [[*items, *[-1] * (width - len(items))] for items in lists]


@given(scores=matrices(st.sampled_from([-np.inf, -1.0, 0.0, 1.0, 2.0])), data=st.data())
def test_top_k(scores: Any, data: st.DataObject) -> None:
    """Highest first and, of equal scores, the lower column first, as a stable sort does."""
    scores = scores.astype(np.float32)
    k = data.draw(st.integers(1, scores.shape[1]))
    assert np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist() == top_k(scores, k).tolist()


@pytest.mark.parametrize("values", [3, 10**6], ids=["ties", "no-ties"])
@pytest.mark.parametrize("k", [1, 20, 400])
def test_top_k_of_long_rows(values: int, k: int, rng: np.random.Generator) -> None:
    """Rows long enough that columns are grouped, with a remainder."""
    scores = rng.integers(values, size=(9, 1003)).astype(np.float32)
    assert np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist() == top_k(scores, k).tolist()


@given(scores=matrices(st.integers(-2, 2)), data=st.data())
def test_by_score(scores: Any, data: st.DataObject) -> None:
    """Each asked user's unseen items by score, ties included, padded when they run out."""
    n_users, n_items = scores.shape
    seen = np.array(data.draw(st.lists(st.booleans(), min_size=scores.size, max_size=scores.size))).reshape(
        scores.shape
    )
    users = np.array(data.draw(st.lists(st.integers(0, n_users - 1), min_size=1, max_size=4, unique=True)))
    k = data.draw(st.integers(1, 15))
    # The bias of an item is its score for the first user; the factors hold the rest.
    factors = Factors(
        np.eye(n_users, dtype=np.float32),
        (scores - scores[0]).T.astype(np.float32).copy(),
        scores[0].astype(np.float32),
    )
    found = factors_ranking(factors, csr_matrix(seen.astype(np.float32)), users, k, progress=False)
    expected = [rank(scores[user].tolist(), np.flatnonzero(seen[user]).tolist(), k) for user in users]
    assert found.dtype == np.int32
    assert padded(expected, min(k, n_items)) == found.tolist()


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    """Users ranked one by one, in blocks that do not divide them, and all at once rank the same."""
    factors = Factors(*(rng.integers(-3, 3, size=size).astype(np.float32) for size in ((50, 4), (70, 4), 70)))
    seen = csr_matrix((rng.random((50, 70)) < 0.1).astype(np.float32))
    rankings = []
    for users_at_a_time in (1, 7, 50):
        monkeypatch.setattr(ranking, "_BLOCK_SCORES", users_at_a_time * 70)
        monkeypatch.setattr(ranking, "_LEAST_USERS", 1)
        rankings.append(factors_ranking(factors, seen, np.arange(50), 20, progress=False).tolist())
    assert rankings[0] == rankings[1] == rankings[2]


def test_scores_that_overflow() -> None:
    """Factors that are finite, with scores that may not be, are refused and not ranked by NaN."""
    huge = np.full((2, 3), 1e30, np.float32)
    with pytest.raises(InputError, match="scores exceed what float32 holds; lower the learning rate"):
        factors_ranking(
            Factors(huge, huge, np.zeros(2, np.float32)),
            csr_matrix((2, 2), dtype=np.float32),
            np.arange(2),
            1,
            progress=False,
        )


@given(seen=matrices(st.booleans()), data=st.data())
def test_by_popularity(seen: Any, data: st.DataObject) -> None:
    """Each user's unseen items by popularity, as sorting them does."""
    n_items = seen.shape[1]
    popularity = data.draw(st.lists(st.integers(0, 3), min_size=n_items, max_size=n_items))
    k = data.draw(st.integers(1, 15))
    found = popularity_ranking(csr_matrix(seen.astype(np.float32)), np.array(popularity), k)
    expected = [rank(popularity, np.flatnonzero(own).tolist(), k) for own in seen]
    assert padded(expected, min(k, n_items)) == found.tolist()


@given(seen=matrices(st.booleans()), k=st.integers(1, 15), seed=st.integers(0, 100))
def test_random_lists(seen: Any, k: int, seed: int) -> None:
    """Distinct unseen items, as many as there are up to k, then -1; the same again with the same seed."""
    matrix = csr_matrix(seen.astype(np.float32))
    found = random_ranking(matrix, k, np.random.default_rng(seed)).tolist()
    assert random_ranking(matrix, k, np.random.default_rng(seed)).tolist() == found
    for row, own in zip(found, seen, strict=True):
        unseen = set(np.flatnonzero(~own).tolist())
        n = min(k, len(unseen))
        assert row[n:] == [-1] * (min(k, seen.shape[1]) - n)
        assert len(set(row[:n])) == n
        assert set(row[:n]) <= unseen


def test_random_lists_are_uniform() -> None:
    """Each of the 12 ordered pairs of 4 unseen items comes up equally often."""
    n = 60_000
    seen = csr_matrix(np.tile(np.array([0, 1, 0, 0, 1, 0], np.float32), (n, 1)))
    found = random_ranking(seen, 2, np.random.default_rng(0))
    counts = [int((found == pair).all(axis=1).sum()) for pair in permutations([0, 2, 3, 5], 2)]
    assert sum(counts) == n
    # Five standard deviations of a count of 60,000 draws with chance 1/12.
    assert max(abs(count - n / 12) for count in counts) < 5 * (n / 12 * 11 / 12) ** 0.5
