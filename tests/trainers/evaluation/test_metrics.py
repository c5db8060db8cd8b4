from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.evaluation import metrics

# Items 2 and 5 are relevant to user 0; item 0 to user 1, whose list ends early; items 0 to 3 to user 2, without a hit.
RANKING = np.array([[2, 0, 5, 1], [4, 0, -1, -1], [4, 5, 4, 5]], np.int32)
RELEVANT = csr_matrix(np.array([[0, 0, 1, 0, 0, 1], [1, 0, 0, 0, 0, 0], [1, 1, 1, 1, 0, 0]], np.float32))
N_RELEVANT = np.array([2, 1, 4])
HITS = metrics.find_hits(RANKING, RELEVANT)


def test_hits() -> None:
    """Hits are where the list meets the relevant items; a rank that is not there is none."""
    assert HITS.tolist() == [[True, False, True, False], [False, True, False, False], [False] * 4]


def test_no_rank_is_no_hit() -> None:
    """The -1 of a missing rank does not meet the last item of the user before."""
    relevant = csr_matrix(np.array([[0, 1], [1, 0]], np.float32))
    assert metrics.find_hits(np.array([[0, 1], [1, -1]], np.int32), relevant).tolist() == [[False, True], [False] * 2]


def test_recall_by_hand() -> None:
    """Hits over all relevant items, also when more are relevant than k."""
    assert metrics.recall(HITS, N_RELEVANT, 2).tolist() == [1 / 2, 1, 0]
    assert metrics.recall(HITS, N_RELEVANT, 3).tolist() == [1, 1, 0]
    assert metrics.recall(np.ones((1, 3), bool), np.array([6]), 3).tolist() == [0.5]


def test_ndcg_by_hand() -> None:
    """Discounts 1, 1/log₂3, 1/2, …; the ideal has as many hits as fit."""
    two = 1 + 1 / math.log2(3)
    assert metrics.ndcg(HITS, N_RELEVANT, 3) == pytest.approx([(1 + 1 / 2) / two, 1 / math.log2(3), 0])
    assert metrics.ndcg(HITS, N_RELEVANT, 1).tolist() == [1, 0, 0]
    assert metrics.ndcg(np.ones((1, 3), bool), np.array([6]), 3).tolist() == [1]


def test_average_precision_by_hand() -> None:
    """Precision at each hit, over as many hits as there can be."""
    assert metrics.average_precision(HITS, N_RELEVANT, 3) == pytest.approx([(1 + 2 / 3) / 2, 1 / 2, 0])
    assert metrics.average_precision(HITS, N_RELEVANT, 1).tolist() == [1, 0, 0]
    assert metrics.average_precision(np.ones((1, 3), bool), np.array([6]), 3).tolist() == [1]


def test_hit_rate_and_reciprocal_rank_by_hand() -> None:
    """Whether there is a hit, and where the first is."""
    assert metrics.hit_rate(HITS, 1).tolist() == [1, 0, 0]
    assert metrics.hit_rate(HITS, 2).tolist() == [1, 1, 0]
    assert metrics.reciprocal_rank(HITS, 1).tolist() == [1, 0, 0]
    assert metrics.reciprocal_rank(HITS, 4).tolist() == [1, 1 / 2, 0]


def test_average_popularity_by_hand() -> None:
    """A mean over the ranks that are there."""
    popularity = np.array([7, 1, 3, 1, 5, 2])
    assert metrics.average_popularity(RANKING, popularity, 3).tolist() == [
        (3 + 7 + 2) / 3,
        (5 + 7) / 2,
        (5 + 2 + 5) / 3,
    ]


def test_coverage_and_gini_by_hand() -> None:
    """Of six items, listed at ranks 1 and 2: 2, 0, 4, 0, 4, 5, so 0 and 4 twice, 2 and 5 once, 1 and 3 never."""
    assert metrics.coverage(RANKING, 6, 2) == 4 / 6
    assert metrics.gini(RANKING, 6, 2) == pytest.approx((-5 * 0 - 3 * 0 - 1 * 1 + 1 * 1 + 3 * 2 + 5 * 2) / 6 / 5)


@pytest.mark.parametrize(("lists", "expected"), [([[0, 1], [2, 3]], 0.0), ([[3], [3]], 1.0)])
def test_gini_ends(lists: list[list[int]], expected: float) -> None:
    """0 when all items are listed equally often, 1 when it is always the same one."""
    assert metrics.gini(np.array(lists, np.int32), 4, 2) == pytest.approx(expected)


def test_gini_of_one_item() -> None:
    """A catalogue of one item has nothing to be unequal."""
    assert metrics.gini(np.array([[0]], np.int32), 1, 1) == 0
