from __future__ import annotations

import numpy as np
import pytest

from embedding_trainers.evaluation import beyond_accuracy


def test_novelty_by_hand() -> None:
    """Bits: 2 for an item of one user of four, 0 for one that all have; an item of no user counts as of one."""
    ranking, popularity = np.array([[0, 1, 2], [3, -1, -1]], np.int32), np.array([1, 4, 2, 0])
    assert beyond_accuracy.novelty(ranking, popularity, 4, 3).tolist() == [(2 + 0 + 1) / 3, 2]
    assert beyond_accuracy.novelty(ranking, popularity, 4, 2).tolist() == [(2 + 0) / 2, 2]


def test_diversity_by_hand() -> None:
    """Two items alike and one at a right angle: one of three pairs is alike. The length of vectors does not count."""
    vectors = np.array([[2, 0], [5, 0], [0, 3], [-1, 0], [0, 0]], np.float32)
    ranking = np.array([[0, 1, 2], [0, 3, -1], [2, -1, -1], [4, 0, 1]], np.int32)
    assert beyond_accuracy.diversity(ranking, vectors, 3) == pytest.approx([2 / 3, 2, 0, 2 / 3])
    assert beyond_accuracy.diversity(ranking, vectors, 1).tolist() == [0, 0, 0, 0]


def test_diversity_in_blocks(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """As from the matrix of all cosines, whatever the size of the blocks."""
    vectors = rng.normal(size=(50, 6)).astype(np.float32)
    ranking = np.array([rng.permutation(50)[:10] for _ in range(23)], np.int32)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    upper = np.triu_indices(10, 1)
    expected = [1 - (unit[row] @ unit[row].T)[upper].mean() for row in ranking]
    for size in (1, 200, 1 << 20):
        monkeypatch.setattr(beyond_accuracy, "_BLOCK_VALUES", size)
        assert beyond_accuracy.diversity(ranking, vectors, 10) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("most", [10_000, 20])
def test_popularity_lift_by_brute_force(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """As from the matrix of all cosines without its diagonal; of many items a sample is asked about."""
    monkeypatch.setattr(beyond_accuracy, "_MOST_ITEMS", most)
    vectors, popularity = rng.normal(size=(50, 6)).astype(np.float32), rng.integers(1, 100, 50)
    asked = np.arange(50) if most > 50 else np.random.default_rng(0).choice(50, 20, replace=False)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosines = unit @ unit.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argsort(-cosines, axis=1)[asked]
    expected = {k: popularity[nearest[:, :k]].mean() / popularity[asked].mean() - 1 for k in (3, 10)}

    assert beyond_accuracy.popularity_lift(vectors, popularity, (3, 10)) == pytest.approx(expected)


def test_popularity_lift_by_hand() -> None:
    """Two pairs of similar items, one popular item in each; more ranks than there are others; a single item."""
    vectors = np.array([[1, 0], [2, 0], [0, 1], [0, 3]], np.float32)
    assert beyond_accuracy.popularity_lift(vectors, np.array([9, 1, 9, 1]), (1, 9)) == pytest.approx({1: 0, 9: 0})
    # Of three items two are similar to the popular one.
    star = np.array([[1, 0.0], [1, 0.2], [1, -0.2]], np.float32)
    assert beyond_accuracy.popularity_lift(star, np.array([8, 2, 2]), (1,)) == pytest.approx({1: (2 + 8 + 8) / 12 - 1})
    assert beyond_accuracy.popularity_lift(star[:1], np.array([8]), (1, 2)) == {1: 0, 2: 0}
