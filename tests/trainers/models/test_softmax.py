from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.models.adam import Directions
from embedding_trainers.models.sampled_softmax import Sampler, gradients, history_gradients
from embedding_trainers.models.softmax import SoftmaxConfig, fold_in_softmax, train_softmax
from embedding_trainers.testing import checkerboard
from embedding_trainers.trainer import KnownSide, RunOptions

ONE_THREAD = RunOptions(seed=1, threads=1)


def unit(vectors: npt.NDArray[Any]) -> npt.NDArray[Any]:
    normed: npt.NDArray[Any] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return normed


def loss(own: Any, entries: Any, others: Any, drawn: Any, log_weights: Any, temperature: float) -> float:
    """The sampled softmax loss, one positive after the other."""
    total = 0.0
    for user, item in zip(*np.nonzero(entries), strict=True):
        score = own[user] @ others[item] / temperature
        rest = np.exp(own[user] @ drawn.T / temperature + log_weights).sum()
        total += entries[user, item] * (np.log(np.exp(score) + rest) - score)
    return total


def test_gradients(rng: np.random.Generator) -> None:
    """By users, by the items of entries and by the drawn ones, as differences of the loss say."""
    dense = np.where(rng.random((5, 7)) < 0.4, rng.choice([0.5, 1, 3], (5, 7)), 0)
    dense[:, 0] = 1
    own, others, drawn = (unit(rng.standard_normal((n, 4))) for n in (5, 7, 6))
    log_weights = rng.standard_normal(6)
    of_negatives, of_positives = gradients(
        own.astype(np.float32),
        csr_matrix(dense, dtype=np.float32),
        others.astype(np.float32),
        drawn.astype(np.float32),
        log_weights.astype(np.float32),
        0.3,
    )
    found = {
        "own": of_negatives @ drawn + of_positives @ others,
        "others": of_positives.T @ own,
        "drawn": of_negatives.T @ own,
    }

    sides = {"own": own, "others": others, "drawn": drawn}
    for name, gradient in found.items():
        expected = np.zeros_like(sides[name])
        for place in np.ndindex(expected.shape):
            ends = []
            for step in (1e-5, -1e-5):
                moved = {**sides, name: sides[name].copy()}
                moved[name][place] += step
                ends.append(
                    loss(moved["own"], dense, moved["others"], moved["drawn"], log_weights=log_weights, temperature=0.3)
                )
            expected[place] = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(gradient, expected, rtol=1e-4, atol=1e-4, err_msg=name)


def history_loss(histories: Any, weights: Any, others: Any, drawn: Any, log_weights: Any, temperature: float) -> float:
    """The same where a user is the sum of their items, one positive after the other, each left out of its own sum."""
    total = 0.0
    for user, row in enumerate(histories):
        whole = row @ others
        rest = np.exp(whole / np.linalg.norm(whole) @ drawn.T / temperature + log_weights).sum()
        for item in np.flatnonzero(row):
            without = whole - row[item] * others[item]
            if np.count_nonzero(row) > 1:
                score = without / np.linalg.norm(without) @ others[item] / temperature
                total += weights[user, item] * (np.log(np.exp(score) + rest) - score)
    return total


def test_gradients_through_histories(rng: np.random.Generator) -> None:
    """By the items of users and by the drawn ones, along the sphere, as differences of the loss say."""
    dense = np.where(rng.random((5, 7)) < 0.4, rng.choice([0.5, 1, 3], (5, 7)), 0)
    dense[:, 0] = 1
    dense[4] = 0
    dense[4, 2] = 2  # a user of one item
    weights = np.where(dense > 0, rng.choice([0.5, 2], dense.shape), 0)
    others, drawn = (unit(rng.standard_normal((n, 4))) for n in (7, 6))
    log_weights = rng.standard_normal(6)
    histories = csr_matrix(dense, dtype=np.float32)
    found = history_gradients(
        histories,
        weights[dense > 0].astype(np.float32),
        others.astype(np.float32),
        drawn.astype(np.float32),
        log_weights.astype(np.float32),
        0.3,
    )
    for at, (vectors, gradient) in enumerate(zip((others, drawn), found, strict=True)):
        expected = np.zeros_like(vectors)
        for place in np.ndindex(vectors.shape):
            ends = []
            for step in (1e-5, -1e-5):
                sides = [others, drawn]
                sides[at] = vectors.copy()
                sides[at][place] += step
                sides[at][place[0]] /= np.linalg.norm(sides[at][place[0]])
                ends.append(history_loss(dense, weights, sides[0], sides[1], log_weights, 0.3))
            expected[place] = (ends[0] - ends[1]) / 2e-5
        along = gradient - (gradient * vectors).sum(axis=1, keepdims=True) * vectors
        np.testing.assert_allclose(along, expected, rtol=1e-4, atol=1e-4)


def test_items_that_cancel_out() -> None:
    """A user whose items cancel out, alone or without one of them, leads to no infinity."""
    vector = unit(np.ones((1, 3)))[0]
    others = np.array([vector, -vector, vector], np.float32)
    histories = csr_matrix(np.array([[1, 1, 0], [2, 1, 1], [0, 0, 1]], np.float32))
    found = history_gradients(histories, histories.data, others, others, np.zeros(3, np.float32), 0.01)
    for gradient in found:
        assert np.isfinite(gradient).all()


def test_gradients_of_a_low_temperature_are_finite(rng: np.random.Generator) -> None:
    """Exponents far beyond float32 lead to no infinity, whichever side they favour."""
    own = unit(rng.standard_normal((4, 3))).astype(np.float32)
    for others in (own, -own):
        of_negatives, of_positives = gradients(
            own, csr_matrix(np.eye(4, dtype=np.float32)), others, -others, np.zeros(4, np.float32), 1e-3
        )
        assert np.isfinite(of_negatives).all()
        assert np.isfinite(of_positives.data).all()


def test_sample_stands_for_all(rng: np.random.Generator) -> None:
    """Sums over samples are those over all in the mean; few rows are taken as they are."""
    degrees, values = rng.integers(1, 1000, 300), rng.random(300)
    sampler = Sampler(degrees, 200)
    sums = []
    for _ in range(400):
        sample = sampler.draw(rng)
        assert (np.diff(sample.rows) > 0).all()
        sums.append((np.exp(sample.log_weights) * values[sample.rows]).sum())
    assert np.mean(sums) == pytest.approx(values.sum(), abs=4 * np.std(sums) / 20)

    whole = Sampler(degrees, 300).draw(rng)
    assert whole.rows.tolist() == list(range(300))
    assert not whole.log_weights.any()


def test_adam_of_directions(rng: np.random.Generator) -> None:
    """Steps are those of Adam's paper on the gradient along the sphere; other rows stay."""
    start = unit(rng.standard_normal((3, 4)))
    target, rate = rng.standard_normal((3, 4)), 0.1
    directions = Directions(start.astype(np.float32))
    values, mean, square = start.copy(), np.zeros((3, 4)), np.zeros((3, 4))
    rows = np.array([0, 2])
    for step in range(1, 6):
        directions.descend(rows, target[rows].astype(np.float32), rate)
        for row in rows:
            gradient = target[row] - (target[row] @ values[row]) * values[row]
            mean[row] = 0.9 * mean[row] + 0.1 * gradient
            square[row] = 0.999 * square[row] + 0.001 * gradient**2
            values[row] -= rate * (mean[row] / (1 - 0.9**step)) / np.sqrt(square[row] / (1 - 0.999**step))
            values[row] /= np.linalg.norm(values[row])
    np.testing.assert_allclose(directions.vectors, values, atol=1e-4)
    np.testing.assert_array_equal(directions.vectors[1], start[1].astype(np.float32))


def test_vectors_have_length_one() -> None:
    """Scores are cosines, and the bias is the share of log-popularity that the config names."""
    board = checkerboard()
    found = train_softmax(board, SoftmaxConfig(factors=8, temperature=0.2, popularity=0.5), ONE_THREAD)
    for vectors in (found.user_factors, found.item_factors):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(found.item_bias, 0.1 * np.log1p(board.getnnz(axis=0)), rtol=1e-6)


def test_a_new_user_is_as_a_trained_one(rng: np.random.Generator) -> None:
    """The same history gives the same vector to the byte, whoever is folded in next to it."""
    dense = np.where(rng.random((60, 30)) < 0.2, rng.choice([1, 3], (60, 30)), 0)
    dense[range(60), np.arange(60) % 30] = 2
    entries = csr_matrix(dense, dtype=np.float32)
    config = SoftmaxConfig(factors=8)
    trained = train_softmax(entries, config, ONE_THREAD)
    known = KnownSide("item", trained.item_factors, trained.item_bias, entries.getnnz(axis=0).astype(np.int64))
    for rows in (slice(None), slice(3, 4)):
        folded = fold_in_softmax(entries[rows], known, config, ONE_THREAD)
        np.testing.assert_array_equal(folded.factors, trained.user_factors[rows])
        assert not folded.bias.any()


@pytest.mark.parametrize("scale", [1e-42, 1e-30, 1e30, 1e37])
def test_a_new_user_is_as_heavy_as_any(rng: np.random.Generator, scale: float) -> None:
    """Their direction does not depend on the unit of the weights, though squares of sums are beyond float32."""
    items = unit(rng.standard_normal((6, 4))).astype(np.float32)
    known = KnownSide("item", items, np.zeros(6, np.float32), np.ones(6, np.int64))
    history = np.array([[1, 2, 0, 0, 4, 0], [0, 0, 1, 0, 0, 0]])
    config = SoftmaxConfig(factors=4)
    folded = fold_in_softmax(csr_matrix(history * scale, dtype=np.float32), known, config, ONE_THREAD)
    np.testing.assert_allclose(folded.factors, unit(history @ items), atol=2e-3 if scale < 1e-38 else 1e-6)


def test_fold_in_finds_the_minimum(rng: np.random.Generator) -> None:
    """No vector of many tried fits a new item better by more than half a per cent."""
    factors = unit(rng.standard_normal((30, 3))).astype(np.float32)
    dense = np.where(rng.random((6, 30)) < 0.2, rng.choice([1.0, 3.0], (6, 30)), 0)
    dense[:, 0] = 1
    config = SoftmaxConfig(factors=3, temperature=0.3, popularity=0.5)
    known = KnownSide("user", factors, np.zeros(30, np.float32), np.ones(30, np.int64))
    folded = fold_in_softmax(csr_matrix(dense, dtype=np.float32), known, config, ONE_THREAD)

    np.testing.assert_allclose(folded.bias, 0.15 * np.log1p((dense > 0).sum(axis=1)), rtol=1e-6)
    tried = unit(rng.standard_normal((2000, 3)))
    for row, vector in enumerate(folded.factors):
        of_row = [loss(v[None], dense[row : row + 1], factors, factors, np.zeros(30), 0.3) for v in (vector, *tried)]
        assert of_row[0] <= 1.005 * min(of_row[1:])


def test_fold_in_of_a_row_depends_on_that_row(rng: np.random.Generator) -> None:
    """Whoever is folded in next to it."""
    factors = unit(rng.standard_normal((30, 5))).astype(np.float32)
    entries = csr_matrix((rng.random((700, 30)) < 0.2) + np.eye(1, 30), dtype=np.float32)
    known = KnownSide("user", factors, np.zeros(30, np.float32), np.ones(30, np.int64))
    together = fold_in_softmax(entries, known, SoftmaxConfig(factors=5), ONE_THREAD).factors
    for row in (0, 511, 512, 699):
        alone = fold_in_softmax(entries[row], known, SoftmaxConfig(factors=5), ONE_THREAD).factors
        np.testing.assert_allclose(alone[0], together[row], atol=1e-4)


@pytest.mark.parametrize("extreme", [{"learning_rate": 1}, {"temperature": 0.001}, {"temperature": 10}])
def test_extreme_settings_give_vectors(extreme: dict[str, float]) -> None:
    """Whatever is allowed ends in vectors of length 1, without a warning."""
    found = train_softmax(checkerboard(), SoftmaxConfig(factors=8, iterations=100, **extreme), ONE_THREAD)
    np.testing.assert_allclose(np.linalg.norm(found.user_factors, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(found.item_factors, axis=1), 1, atol=1e-5)
