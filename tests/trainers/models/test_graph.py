from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.models.graph import GRAPH, GraphConfig, Propagation, parameter_gradient, train_graph
from embedding_trainers.models.sampled_softmax import Sampler
from embedding_trainers.testing import checkerboard
from embedding_trainers.trainer import KnownSide, RunOptions

ONE_THREAD = RunOptions(seed=1, threads=1)


def tiny(rng: np.random.Generator, n_users: int = 6, n_items: int = 5) -> Any:
    """Weights, shape (n_users, n_items), each row and column with at least two."""
    dense = np.where(rng.random((n_users, n_items)) < 0.4, rng.choice([0.5, 1, 3], (n_users, n_items)), 0)
    dense[:, 0], dense[0] = 1, 2
    dense[range(n_users), np.arange(n_users) % (n_items - 1) + 1] = 3
    return dense


def unit(vectors: Any) -> Any:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def propagated(dense: Any, parameters: Any, layers: int, weight: float) -> Any:
    """The formula of `Propagation`, with dense matrices."""
    shares = dense / np.sqrt(dense.sum(axis=1, keepdims=True) * dense.sum(axis=0))
    matrix = shares.T @ shares
    return sum((weight**k * np.linalg.matrix_power(matrix, k) @ parameters for k in range(layers + 1)), start=0.0)


def loss(dense: Any, items: Any, temperature: float) -> float:
    """Of all users against all items, one positive after the other, each left out of its own sum."""
    total = 0.0
    for row in dense:
        whole = row @ items
        rest = np.exp(whole / np.linalg.norm(whole) @ items.T / temperature).sum()
        for item in np.flatnonzero(row):
            without = whole - row[item] * items[item]
            score = without / np.linalg.norm(without) @ items[item] / temperature
            total += row[item] / np.sqrt(row.sum()) * (np.log(np.exp(score) + rest) - score)
    return total


@pytest.mark.parametrize(("layers", "weight"), [(0, 1), (1, 1), (2, 3), (4, 0.5)])
def test_propagation(rng: np.random.Generator, layers: int, weight: float) -> None:
    """It is the sum of powers of the normalised item-item matrix, and symmetric."""
    dense, parameters = tiny(rng, 9, 7), rng.standard_normal((7, 3))
    propagation = Propagation(csr_matrix(dense, dtype=np.float32), layers, weight)
    found = propagation.apply(parameters.astype(np.float32))
    np.testing.assert_allclose(found, propagated(dense, parameters, layers, weight), atol=1e-4)
    whole = propagation.apply(np.eye(7, dtype=np.float32))
    np.testing.assert_allclose(whole, whole.T, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_unit_of_weights_plays_no_part(rng: np.random.Generator, scale: float) -> None:
    """Vectors propagate alike, though sums of weights are beyond float32 when multiplied."""
    dense, parameters = tiny(rng), rng.standard_normal((5, 3)).astype(np.float32)
    one, other = (Propagation(csr_matrix(d, dtype=np.float32), 2, 3).apply(parameters) for d in (dense, dense * scale))
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


def test_gradient_through_the_propagation(rng: np.random.Generator) -> None:
    """By the parameters of the items, as differences of the loss say."""
    dense, parameters = tiny(rng), unit(rng.standard_normal((5, 3)))
    matrix = csr_matrix(dense, dtype=np.float32)
    sampler = Sampler(np.ones(5, np.int64), 5)  # all items take part
    gradient = parameter_gradient(
        Propagation(matrix, 2, 1.5), parameters.astype(np.float32), matrix, rng.permutation(6), sampler, 0.3, rng
    )
    expected = np.zeros_like(parameters)
    for place in np.ndindex(expected.shape):
        ends = []
        for step in (1e-5, -1e-5):
            moved = parameters.copy()
            moved[place] += step
            ends.append(loss(dense, unit(propagated(dense, moved, 2, 1.5)), 0.3))
        expected[place] = (ends[0] - ends[1]) / 2e-5
    np.testing.assert_allclose(gradient, expected, rtol=1e-3, atol=1e-3)


def test_the_gradient_is_a_sum_over_users(rng: np.random.Generator) -> None:
    """A batch of more users than fit into memory at once adds up the parts."""
    dense = np.where(rng.random((1100, 8)) < 0.3, 1.0, 0)
    dense[:, 0] = 1
    matrix, parameters = csr_matrix(dense, dtype=np.float32), unit(rng.standard_normal((8, 4))).astype(np.float32)
    propagation, sampler = Propagation(matrix, 1, 1), Sampler(np.ones(8, np.int64), 8)

    def of(rows: Any) -> Any:
        return parameter_gradient(propagation, parameters, matrix, rows, sampler, 0.3, rng)

    order = rng.permutation(1100)
    np.testing.assert_allclose(of(order), of(order[:400]) + of(order[400:]), rtol=1e-3, atol=1e-2)


def test_training_lowers_the_loss(rng: np.random.Generator) -> None:
    """After 30 passes it is lower than after the first."""
    dense = tiny(rng, 40, 20)
    seen: list[float] = []

    def watch(_: int, factors: Any) -> bool:
        seen.append(loss(dense, factors().item_factors, 0.1))
        return False

    config = GraphConfig(factors=8, iterations=30)
    train_graph(csr_matrix(dense, dtype=np.float32), config, RunOptions(seed=1, threads=1, watch=watch))
    assert len(seen) == 30
    assert seen[-1] < 0.95 * seen[0]


def test_a_new_user_is_as_a_trained_one(rng: np.random.Generator) -> None:
    """The same history gives the same vector to the byte, whoever is folded in next to it."""
    dense = tiny(rng, 60, 30)
    matrix, config = csr_matrix(dense, dtype=np.float32), GraphConfig(factors=8)
    trained = train_graph(matrix, config, ONE_THREAD)
    known = KnownSide("item", trained.item_factors, trained.item_bias, matrix.getnnz(axis=0).astype(np.int64))
    assert GRAPH.fold_in is not None
    for rows in (slice(None), slice(3, 4)):
        folded = GRAPH.fold_in(matrix[rows], known, config, ONE_THREAD)
        np.testing.assert_array_equal(folded.factors, trained.user_factors[rows])
        assert not folded.bias.any()


def test_two_components() -> None:
    """Users and items without a path between them get vectors, and each its own items first."""
    dense = np.zeros((20, 12))
    dense[:10, :6], dense[10:, 6:] = 1, 1
    dense[range(20), np.arange(20) % 6 + np.repeat([0, 6], 10)] = 0
    found = train_graph(csr_matrix(dense, dtype=np.float32), GraphConfig(factors=4), ONE_THREAD)
    own = (found.user_factors @ found.item_factors.T)[:10]
    assert own[:, :6].min() > own[:, 6:].max()


@pytest.mark.parametrize(
    "extreme",
    [{"learning_rate": 1}, {"temperature": 0.001}, {"temperature": 10}, {"layers": 8, "layer_weight": 100}],
)
def test_extreme_settings_give_vectors(extreme: dict[str, float]) -> None:
    """Whatever is allowed ends in vectors of length 1, without a warning."""
    config = GraphConfig.model_validate({"factors": 8, "iterations": 30, **extreme})
    found = train_graph(checkerboard(), config, ONE_THREAD)
    for vectors in (found.user_factors, found.item_factors):
        np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
