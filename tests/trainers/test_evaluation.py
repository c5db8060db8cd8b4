from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from embedding_trainers import ranking
from embedding_trainers.evaluation import evaluate
from embedding_trainers.ranking import top_k
from embedding_trainers.trainer import Factors


def factors_with(scores: Any) -> Factors:
    """Factors whose scores are the given ones: the item side holds them, the user side picks."""
    scores = np.asarray(scores, np.float32)
    return Factors(np.eye(len(scores), dtype=np.float32), scores.T.copy(), np.zeros(scores.shape[1], np.float32))


def sparse(matrix: Any) -> csr_matrix:
    return csr_matrix(np.asarray(matrix, np.float32))


def slow(scores: Any, train: Any, test: Any) -> tuple[float, float]:
    """Recall@20 and NDCG@20 as their definitions read."""
    recalls, ndcgs = [], []
    for own, seen, relevant in zip(scores.tolist(), train.tolist(), test.tolist(), strict=True):
        if not any(relevant):
            continue
        unseen = [item for item in range(len(own)) if not seen[item]]
        top = sorted(unseen, key=lambda item: (-own[item], item))[:20]
        hits = [rank for rank, item in enumerate(top, start=1) if relevant[item]]
        n_relevant = sum(map(bool, relevant))
        recalls.append(len(hits) / n_relevant)
        ideal = sum(1 / math.log2(1 + rank) for rank in range(1, min(n_relevant, 20) + 1))
        ndcgs.append(sum(1 / math.log2(1 + rank) for rank in hits) / ideal)
    return sum(recalls) / len(recalls), sum(ndcgs) / len(ndcgs)


@pytest.mark.parametrize("n_items", [3, 19, 20, 21, 90])
@pytest.mark.parametrize("values", [3, 10**6], ids=["ties", "no-ties"])
def test_against_the_slow_way(n_items: int, values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of users and argpartition give what sorting each user's items gives, ties included."""
    monkeypatch.setattr(ranking, "_BLOCK_SCORES", 7 * n_items)
    rng = np.random.default_rng(n_items)
    kind = rng.choice(3, p=[0.5, 0.3, 0.2], size=(40, n_items))
    train, test = kind == 1, kind == 2
    scores = rng.integers(values, size=kind.shape).astype(np.float32)
    metrics = evaluate(factors_with(scores), sparse(train), sparse(test))
    popular = np.tile(train.sum(axis=0), (40, 1))

    assert (metrics["recall@20"], metrics["ndcg@20"]) == pytest.approx(slow(scores, train, test))
    assert (metrics["popular_recall@20"], metrics["popular_ndcg@20"]) == pytest.approx(slow(popular, train, test))


def test_by_hand() -> None:
    """Two users whose metrics fit on paper."""
    # User 0 saw item 0; the ranking of the rest is 2, 1, 3. Items 1 and 3 are relevant: ranks 2 and 3.
    # User 1 saw item 3; the ranking of the rest is 0, 1, 2. Item 0 is relevant: rank 1.
    metrics = evaluate(
        factors_with([[9, 2, 3, 1], [3, 2, 1, 9]]),
        sparse([[1, 0, 0, 0], [0, 0, 0, 1]]),
        sparse([[0, 1, 0, 1], [1, 0, 0, 0]]),
    )

    assert metrics["recall@20"] == 1
    ndcg = (1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3))
    assert metrics["ndcg@20"] == pytest.approx((ndcg + 1) / 2)


def test_recall_divides_by_all_relevant() -> None:
    """With 25 relevant items the best recall at 20 is 20/25, and the best NDCG is 1."""
    metrics = evaluate(factors_with([np.arange(26)]), sparse([[1] + [0] * 25]), sparse([[0] + [1] * 25]))

    assert {"recall@20": 0.8, "ndcg@20": pytest.approx(1)} == {k: metrics[k] for k in ("recall@20", "ndcg@20")}


def test_bias_counts() -> None:
    """The bias is part of the score."""
    flat = Factors(np.ones((1, 1), np.float32), np.zeros((30, 1), np.float32), np.arange(30, dtype=np.float32))
    train, test = np.zeros((1, 30)), np.zeros((1, 30))
    train[0, 0] = test[0, 29] = 1

    assert evaluate(flat, sparse(train), sparse(test))["ndcg@20"] == 1


def test_no_test_users() -> None:
    """Without a test pair there is nothing to say."""
    assert evaluate(factors_with([[1, 2]]), sparse([[1, 0]]), sparse([[0, 0]])) == {}


@given(data=st.data(), columns=st.integers(1, 12), rows=st.integers(1, 5))
def test_top_k(data: st.DataObject, columns: int, rows: int) -> None:
    """Highest first and, of equal scores, the lower column first, as a stable sort does."""
    values = st.sampled_from([-np.inf, -1.0, 0.0, 1.0, 2.0])
    scores = np.array(
        data.draw(st.lists(st.lists(values, min_size=columns, max_size=columns), min_size=rows, max_size=rows)),
        np.float32,
    )
    k = data.draw(st.integers(1, columns))

    assert np.argsort(-scores, axis=1, kind="stable")[:, :k].tolist() == top_k(scores, k).tolist()
