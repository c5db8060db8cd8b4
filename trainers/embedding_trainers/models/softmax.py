"""Item vectors by a sampled softmax loss on cosines; a user is the sum of their items."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field
from tqdm import tqdm

from embedding_trainers.extra import import_extra
from embedding_trainers.models.adam import Directions
from embedding_trainers.models.als import ALSConfig, train_als
from embedding_trainers.models.device import refuse_gpu
from embedding_trainers.models.sampled_softmax import Sample, Sampler, batch_gradient, gradients, unit
from embedding_trainers.trainer import Factors, Folded, KnownSide, RaceEntry, RunOptions, Trainer, TrainerConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = [
    "SOFTMAX",
    "SoftmaxConfig",
    "fold_in_softmax",
    "popularity_bias",
    "start_of_items",
    "sum_directions",
    "train_softmax",
]

_START_ITERATIONS = 4  # of als
_NEGATIVES = 4096  # items drawn for the denominator of a batch
_BATCHES = 4  # a pass, at least, as far as there are users for them: more steps fit a small log too closely
_SMALLEST_BATCH, _LARGEST_BATCH = 16, 512  # users
_FOLD_NEGATIVES, _FOLD_STEPS, _FOLD_LEARNING_RATE = 2048, 50, 0.2

_Floats = npt.NDArray[np.float32]


class SoftmaxConfig(TrainerConfig):
    """Hyper-parameters of `train_softmax`."""

    iterations: int = Field(
        default=10,  # more ranks better on some logs and worse on others (`tests.benchmarks.one_parameter`)
        ge=1,
        description="passes over the users",
        json_schema_extra={"search": {"low": 5, "high": 50, "log": True}},
    )
    learning_rate: float = Field(
        default=0.03,
        gt=0,
        le=1,
        description="first step of Adam; it falls to 0 in equal parts",
        json_schema_extra={"search": {"low": 0.005, "high": 0.05, "log": True}},
    )
    temperature: float = Field(
        default=0.1,
        ge=0.001,
        le=10,
        description="what cosines are divided by; the lower, the more the hardest negatives count",
        json_schema_extra={"search": {"low": 0.05, "high": 0.5, "log": True}},
    )
    popularity: float = Field(
        default=0.35,
        ge=0,
        le=10,
        description="share of log-popularity added to the logits, as the bias of items",
        json_schema_extra={"search": {"low": 0, "high": 1}},
    )


def train_softmax(user_items: csr_matrix, config: SoftmaxConfig, options: RunOptions) -> Factors:
    """Maximise, over all interactions, the logarithm of the softmax of cosine / temperature over the items.

    A user's vector is the sum of the vectors of their items, by weight, scaled to length 1 (FISM: Kabbur, Ning &
    Karypis, KDD 2013); so only items are learned, and a new user's vector is as exact as a trained one's. An item is
    predicted from the others of its user. See `sampled_softmax` for the loss and the draws; a catalogue that is no
    larger than the sample takes part as a whole. An interaction counts as its weight, and a user as the root of what
    theirs weigh.

    It starts from the items of `als`, and is descended by Adam (Kingma & Ba, ICLR 2015, arXiv:1412.6980). All vectors
    have length 1. A cosine cannot say how popular an item is, so its bias does: popularity · temperature ·
    log(1 + degree).

    Args:
        user_items: shape (n_users, n_items); see `Trainer`.
        config: hyper-parameters.
        options: seed, threads and progress; one thread repeats exactly.

    Raises:
        InputError: a GPU is asked for.
        MissingExtraError: scipy is not installed.
    """
    refuse_gpu(options, "softmax")
    n_users, n_items = user_items.shape
    rng = np.random.default_rng(options.seed)
    degrees = np.bincount(user_items.indices, minlength=n_items)
    items = Directions(start_of_items(user_items, config.factors, options, rng))
    totals = np.asarray(user_items.sum(axis=1), np.float32).ravel()
    sampler = Sampler(degrees, _NEGATIVES)
    batch_size = int(np.clip(n_users // _BATCHES, _SMALLEST_BATCH, _LARGEST_BATCH))

    def result() -> Factors:
        return Factors(
            sum_directions(user_items, items.vectors), items.vectors.copy(), popularity_bias(degrees, config)
        )

    with import_extra("threadpoolctl").threadpool_limits(options.threads or None, "blas"):
        for iteration in tqdm(range(1, config.iterations + 1), "softmax", disable=not options.progress):
            learning_rate = config.learning_rate * (1 - (iteration - 1) / config.iterations)
            order = rng.permutation(n_users)
            for start in range(0, n_users, batch_size):
                batch = np.sort(order[start : start + batch_size])
                touched, gradient = batch_gradient(
                    items.vectors, user_items[batch], totals[batch], sampler.draw(rng), config.temperature
                )
                items.descend(touched, gradient, learning_rate)
            if options.watch and options.watch(iteration, result):
                break
    return result()


def start_of_items(user_items: csr_matrix, factors: int, options: RunOptions, rng: np.random.Generator) -> _Floats:
    """Directions of the items of `als`, at random where it has none; shape (n_items, factors)."""
    als = ALSConfig(factors=factors, iterations=_START_ITERATIONS)
    items = train_als(user_items, als, replace(options, device="cpu", watch=None)).item_factors
    return unit(items, unit(rng.standard_normal(items.shape, dtype=np.float32)))


def sum_directions(interactions: csr_matrix, vectors: _Floats) -> _Floats:
    """The direction of the sum of each row's vectors; if they cancel out there is none, and any is as good."""
    return unit(np.asarray(interactions @ vectors, np.float32), 1 / np.sqrt(vectors.shape[1]))


def popularity_bias(degrees: npt.NDArray[np.integer], config: SoftmaxConfig) -> _Floats:
    """What a cosine cannot say: popularity · temperature · log(1 + degree), shape (len(degrees),)."""
    return np.asarray(config.popularity * config.temperature * np.log1p(degrees), np.float32)


def fold_in_softmax(interactions: csr_matrix, known: KnownSide, config: SoftmaxConfig, options: RunOptions) -> Folded:
    """Make vectors of new users or items, with the other side as it is.

    A user's vector is the sum of their items, as in training: the same history gives the same vector. An item's
    minimises the loss over its vector alone, with the users who have it against all users: a few steps of Adam from the
    mean of its users. The sample is drawn once, so a vector depends on its row and the seed alone.

    Args:
        interactions: shape (n_new, n_known); see `Trainer`.
        known: the other side.
        config: as trained.
        options: seed of the draws.
    """
    if known.entity == "item":
        folded = sum_directions(interactions, known.factors)
        return Folded(folded, np.zeros(len(folded), np.float32))

    def draw() -> Sample:
        return Sampler(known.degrees, _FOLD_NEGATIVES).draw(np.random.default_rng(options.seed))

    sample = known.kept(("sample", options.seed), draw)
    negatives = known.factors[sample.rows]
    folded = np.empty((interactions.shape[0], known.factors.shape[1]), np.float32)
    for start in range(0, len(folded), _LARGEST_BATCH):
        rows = slice(start, start + _LARGEST_BATCH)
        positives = interactions[rows]
        items = Directions(sum_directions(positives, known.factors))
        for step in range(_FOLD_STEPS):
            of_negatives, of_positives = gradients(
                items.vectors, positives, known.factors, negatives, sample.log_weights, config.temperature
            )
            gradient = of_negatives @ negatives + of_positives @ known.factors
            items.descend(slice(None), gradient, _FOLD_LEARNING_RATE * (1 - step / _FOLD_STEPS))
        folded[rows] = items.vectors
    return Folded(folded, popularity_bias(np.diff(interactions.indptr), config))


# A few passes rank about as well as all, but for the best on large logs.
SOFTMAX = Trainer(SoftmaxConfig, train_softmax, fold_in_softmax, race=RaceEntry(cost=15, parameters={"iterations": 3}))
