"""Items by propagation over the graph of users and items, trained through it; a user is the sum of their items."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field
from tqdm import tqdm

from embedding_trainers.extra import import_extra
from embedding_trainers.models.adam import Directions
from embedding_trainers.models.device import refuse_gpu
from embedding_trainers.models.sampled_softmax import Sampler, batch_gradient, unit
from embedding_trainers.models.softmax import (
    SoftmaxConfig,
    fold_in_softmax,
    popularity_bias,
    start_of_items,
    sum_directions,
)
from embedding_trainers.trainer import Factors, RunOptions, Trainer

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["GRAPH", "GraphConfig", "Propagation", "train_graph"]

_NEGATIVES = 4096  # items drawn for the denominator of a part of a batch
_BATCH_SHARE, _SMALLEST_BATCH, _SMALL_BATCH = 10, 16, 512  # users; of a batch, to propagate no more often than that
_FEWEST_BATCHES = 4  # a pass, as far as there are users for them
_PART = 512  # users whose logits are in memory at once

_Floats = npt.NDArray[np.float32]


class GraphConfig(SoftmaxConfig):
    """Hyper-parameters of `train_graph`: those of `softmax`, and of the propagation."""

    layers: int = Field(
        default=1,
        ge=1,
        le=8,
        description="how many times items take over from the items of their users",
        json_schema_extra={"search": {"low": 1, "high": 4}},
    )
    layer_weight: float = Field(
        default=3,  # sparse logs take more, dense ones less (`tests.benchmarks.one_parameter`)
        gt=0,
        le=100,
        description="of each layer next to the one before; 1 is the equal weights of LightGCN",
        json_schema_extra={"search": {"low": 1, "high": 30, "log": True}},
    )


class Propagation:
    """The linear propagation of LightGCN (He et al., SIGIR 2020, arXiv:2002.02126), from items to items.

    With R the weights, D those of users and items summed, and Ã = D_u^-½ R D_i^-½, it is Σ_k weight^k · (ÃᵀÃ)^k over
    the layers, from 0.

    Args:
        user_items: shape (n_users, n_items); see `Trainer`.
        layers: 0 propagates nothing.
        weight: of each layer next to the one before.
    """

    def __init__(self, user_items: csr_matrix, layers: int, weight: float) -> None:
        of_users, of_items = (np.asarray(user_items.sum(axis=axis, dtype=np.float64)).ravel() for axis in (1, 0))
        rows = np.repeat(of_users, np.diff(user_items.indptr))
        shares = (user_items.data / np.sqrt(rows * of_items[user_items.indices])).astype(np.float32)
        self._to_users = type(user_items)((shares, user_items.indices, user_items.indptr), shape=user_items.shape)
        self._to_items = self._to_users.T.tocsr()
        self._layers, self._weight = layers, np.float32(weight)

    def apply(self, vectors: _Floats) -> _Floats:
        """Propagate vectors of items, shape (n_items, dim); as the matrix is symmetric, gradients go back alike."""
        total, layer = vectors.copy(), vectors
        for _ in range(self._layers):
            layer = self._weight * (self._to_items @ (self._to_users @ layer))
            total += layer
        return total


def train_graph(user_items: csr_matrix, config: GraphConfig, options: RunOptions) -> Factors:
    """Maximise the likelihood of `softmax` with items that are propagated over the graph of interactions.

    Each item has parameters of its own, of length 1, which start from the items of `als`. Its vector is the direction
    of what `Propagation` makes of them. A user's is the direction of the sum of their items' vectors, by weight: there
    are no parameters of users, as LightGCN has, and a new user's vector is as exact as a trained one's. Loss, draws and
    bias are those of `train_softmax`. The gradient goes through the propagation to the parameters, and Adam steps for
    all of them. As each step propagates twice, batches are larger: about a tenth of the users.

    Args:
        user_items: shape (n_users, n_items); see `Trainer`.
        config: hyper-parameters.
        options: seed, threads and progress; one thread repeats exactly.

    Raises:
        InputError: a GPU is asked for.
        MissingExtraError: scipy is not installed.
    """
    refuse_gpu(options, "graph")
    rng = np.random.default_rng(options.seed)
    degrees = np.bincount(user_items.indices, minlength=user_items.shape[1])
    propagation = Propagation(user_items, config.layers, config.layer_weight)
    parameters = Directions(start_of_items(user_items, config.factors, options, rng))
    sampler = Sampler(degrees, _NEGATIVES)

    def result() -> Factors:
        items = unit(propagation.apply(parameters.vectors), 1 / np.sqrt(config.factors))
        return Factors(sum_directions(user_items, items), items, popularity_bias(degrees, config))

    with import_extra("threadpoolctl").threadpool_limits(options.threads or None, "blas"):
        for iteration in tqdm(range(1, config.iterations + 1), "graph", disable=not options.progress):
            learning_rate = config.learning_rate * (1 - (iteration - 1) / config.iterations)
            for batch in _batches(user_items.shape[0], rng):
                gradient = parameter_gradient(
                    propagation, parameters.vectors, user_items, batch, sampler, config.temperature, rng
                )
                parameters.descend(slice(None), gradient, learning_rate)
            if options.watch and options.watch(iteration, result):
                break
    return result()


def _batches(n_users: int, rng: np.random.Generator) -> Iterator[npt.NDArray[np.int64]]:
    order = rng.permutation(n_users)
    size = max(n_users // _BATCH_SHARE, int(np.clip(n_users // _FEWEST_BATCHES, _SMALLEST_BATCH, _SMALL_BATCH)))
    for start in range(0, n_users, size):
        yield order[start : start + size]


def parameter_gradient(
    propagation: Propagation,
    parameters: _Floats,
    user_items: csr_matrix,
    batch: npt.NDArray[np.int64],
    sampler: Sampler,
    temperature: float,
    rng: np.random.Generator,
) -> _Floats:
    """The gradient of the loss of some users by the parameters of all items.

    Args:
        propagation: of `user_items`.
        parameters: shape (n_items, dim).
        user_items: shape (n_users, n_items).
        batch: the users' rows.
        sampler: of the negatives, which are drawn for each 512 users.
        temperature: of the loss, see `sampled_softmax`.
        rng: for the draws.

    Returns:
        float32, shape (n_items, dim).
    """
    sums = propagation.apply(parameters)
    items, gradient = unit(sums), np.zeros_like(sums)
    for start in range(0, len(batch), _PART):
        histories = user_items[np.sort(batch[start : start + _PART])]
        totals = np.asarray(histories.sum(axis=1), np.float32).ravel()
        touched, of_touched = batch_gradient(items, histories, totals, sampler.draw(rng), temperature)
        gradient[touched] += of_touched
    # From the directions to the sums that have them; one of length 0 has no direction to turn.
    gradient -= np.einsum("ij,ij->i", gradient, items)[:, None] * items
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    np.divide(gradient, lengths, out=gradient, where=lengths > 0)
    return propagation.apply(gradient)


GRAPH = Trainer(GraphConfig, train_graph, fold_in_softmax)
