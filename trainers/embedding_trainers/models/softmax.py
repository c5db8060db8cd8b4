"""Matrix factorisation with a sampled softmax loss on cosines (Wu et al., ACM TOIS 2024, arXiv:2201.02327)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from pydantic import Field
from tqdm import tqdm

from embedding_trainers.extra import import_extra
from embedding_trainers.models.adam import Directions
from embedding_trainers.models.device import refuse_gpu
from embedding_trainers.trainer import Factors, Folded, KnownSide, RunOptions, Trainer, TrainerConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["SOFTMAX", "SoftmaxConfig", "fold_in_softmax", "train_softmax"]

_NEGATIVES = 4096  # items drawn for the denominator of a batch
_BATCHES = 50  # a pass, at least, as far as there are users for them
_SMALLEST_BATCH, _LARGEST_BATCH = 16, 512  # users
_FOLD_NEGATIVES, _FOLD_STEPS, _FOLD_LEARNING_RATE = 2048, 50, 0.2

_Floats = npt.NDArray[np.float32]


class SoftmaxConfig(TrainerConfig):
    """Hyper-parameters of `train_softmax`."""

    iterations: int = Field(
        default=50,
        ge=1,
        description="passes over the users",
        json_schema_extra={"search": {"low": 10, "high": 100, "log": True}},
    )
    learning_rate: float = Field(
        default=0.03,
        gt=0,
        le=1,
        description="first step of Adam; it falls to 0 in equal parts",
        json_schema_extra={"search": {"low": 0.005, "high": 0.05, "log": True}},
    )
    temperature: float = Field(
        default=0.2,
        ge=0.001,
        le=10,
        description="what cosines are divided by; the lower, the more the hardest negatives count",
        json_schema_extra={"search": {"low": 0.05, "high": 0.5, "log": True}},
    )


def train_softmax(user_items: csr_matrix, config: SoftmaxConfig, options: RunOptions) -> Factors:
    """Maximise, over all interactions, the logarithm of the softmax of cosine / temperature over the items.

    The loss is that of sampled softmax (Bengio & Senécal, IEEE TNN 2008; for recommenders: Wu et al., ACM TOIS 2024,
    arXiv:2201.02327): the sum over all items is estimated by items drawn for a batch of users, in proportion to the
    root of their popularity, each divided by how often it is expected. A catalogue that is no larger than the sample
    takes part as a whole. An interaction counts as its weight, and a user as the root of what theirs weigh.

    It is descended by Adam (Kingma & Ba, ICLR 2015, arXiv:1412.6980), for the rows of a batch only. All vectors have
    length 1, so the score is the cosine, and items have no bias.

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
    users, items = (Directions.at_random(n, config.factors, rng) for n in (n_users, n_items))
    weights = user_items.copy()
    totals = np.asarray(user_items.sum(axis=1), np.float32).ravel()
    weights.data /= np.sqrt(np.repeat(totals, np.diff(user_items.indptr)))
    sampler = Sampler(np.bincount(user_items.indices, minlength=n_items), _NEGATIVES)
    batch_size = int(np.clip(n_users // _BATCHES, _SMALLEST_BATCH, _LARGEST_BATCH))

    def result() -> Factors:
        return Factors(users.unit(), items.unit(), np.zeros(n_items, np.float32))

    with import_extra("threadpoolctl").threadpool_limits(options.threads or None, "blas"):
        for iteration in tqdm(range(1, config.iterations + 1), "softmax", disable=not options.progress):
            learning_rate = config.learning_rate * (1 - (iteration - 1) / config.iterations)
            order = rng.permutation(n_users)
            for start in range(0, n_users, batch_size):
                batch = np.sort(order[start : start + batch_size])
                _descend(users, items, weights[batch], batch, sampler.draw(rng), config.temperature, learning_rate)
            if options.watch and options.watch(iteration, result):
                break
    return result()


def _descend(
    users: Directions,
    items: Directions,
    positives: csr_matrix,
    batch: npt.NDArray[np.int64],
    sample: Sample,
    temperature: float,
    learning_rate: float,
) -> None:
    """Take a step for the users of a batch, their items (the positives), and the drawn items (the negatives)."""
    touched, places = np.unique(np.concatenate([sample.rows, positives.indices]), return_inverse=True)
    drawn, columns = places[: len(sample.rows)], places[len(sample.rows) :]
    positives = type(positives)((positives.data, columns, positives.indptr), shape=(len(batch), len(touched)))
    queries, candidates = users.unit(batch), items.unit(touched)
    negatives = candidates[drawn]
    of_negatives, of_positives = gradients(queries, positives, candidates, negatives, sample.log_weights, temperature)
    of_items = of_positives.T @ queries
    of_items[drawn] += of_negatives.T @ queries
    users.descend(batch, of_negatives @ negatives + of_positives @ candidates, learning_rate)
    items.descend(touched, of_items, learning_rate)


@dataclass(frozen=True)
class Sample:
    """Rows drawn for a sum over all, with weights by which that sum is estimated without bias.

    Attributes:
        rows: distinct, ascending, shape (m,).
        log_weights: float32, shape (m,): how often each was drawn over how often that is expected (logQ correction).
    """

    rows: npt.NDArray[np.int64]
    log_weights: _Floats


class Sampler:
    """Draws rows in proportion to the root of their degrees; all of them where there are no more than `size`."""

    def __init__(self, degrees: npt.NDArray[np.integer], size: int) -> None:
        share = np.sqrt(degrees + 1.0)
        self._share, self._size = share / share.sum(), size
        self._up_to = np.cumsum(self._share)

    def draw(self, rng: np.random.Generator) -> Sample:
        n = len(self._share)
        if n <= self._size:
            return Sample(np.arange(n), np.zeros(n, np.float32))
        drawn = np.searchsorted(self._up_to, rng.random(self._size) * self._up_to[-1], side="right")
        rows, times = np.unique(drawn, return_counts=True)
        return Sample(rows, np.log(times / (self._size * self._share[rows])).astype(np.float32))


def gradients(
    queries: _Floats,
    positives: csr_matrix,
    candidates: _Floats,
    negatives: _Floats,
    log_weights: _Floats,
    temperature: float,
) -> tuple[_Floats, csr_matrix]:
    """The gradient of the sampled softmax loss with respect to the cosines.

    The loss of a positive is ``log(exp(s) + Σ weight · exp(s_negative)) - s``, with the logit s = cosine /
    temperature, times its weight.

    Args:
        queries: unit vectors, shape (b, dim).
        positives: weights, csr, shape (b, p).
        candidates: unit vectors of the columns of `positives`, shape (p, dim).
        negatives: unit vectors, shape (m, dim).
        log_weights: of the negatives, shape (m,).

    Returns:
        Of the cosines with the negatives, float32, shape (b, m); and of those with the positives, csr like `positives`.
    """
    scale = np.float32(1 / temperature)
    logits = np.asarray((queries * scale) @ negatives.T + log_weights, np.float32)
    highest = logits.max(axis=1, keepdims=True)
    of_negatives = np.exp(logits - highest, out=logits)
    total = of_negatives.sum(axis=1)
    rows = np.repeat(np.arange(len(queries)), np.diff(positives.indptr))
    positive_logits = np.einsum("ij,ij->i", queries[rows], candidates[positives.indices]) * scale
    # 1 minus the softmax probability of the positive.
    with np.errstate(over="ignore"):  # exp of much is infinity, and one over that is 0
        error = 1 / (1 + np.exp(positive_logits - (np.log(total) + highest[:, 0])[rows]))
    of_positives = type(positives)(
        (-(positives.data * error * scale), positives.indices, positives.indptr), shape=positives.shape
    )
    of_negatives *= (-np.asarray(of_positives.sum(axis=1)).ravel() / total)[:, None]
    return of_negatives, of_positives


def fold_in_softmax(interactions: csr_matrix, known: KnownSide, config: SoftmaxConfig, options: RunOptions) -> Folded:
    """Minimise the loss of training over the vectors of new users or items alone, with the other side as it is.

    A few steps of Adam from the mean of what they interacted with. The sample is drawn once, so a vector depends on its
    row and the seed alone. For items the roles are exchanged: users who have the item against all users.

    Args:
        interactions: shape (n_new, n_known); see `Trainer`.
        known: the other side; it has no bias.
        config: as trained.
        options: seed of the draws.
    """

    def draw() -> Sample:
        return Sampler(known.degrees, _FOLD_NEGATIVES).draw(np.random.default_rng(options.seed))

    sample = known.kept(("sample", options.seed), draw)
    negatives = known.factors[sample.rows]
    folded = np.empty((interactions.shape[0], known.factors.shape[1]), np.float32)
    for start in range(0, len(folded), _LARGEST_BATCH):
        rows = slice(start, start + _LARGEST_BATCH)
        positives = interactions[rows]
        vectors = Directions(_start(positives, known.factors))
        for step in range(_FOLD_STEPS):
            of_negatives, of_positives = gradients(
                vectors.unit(), positives, known.factors, negatives, sample.log_weights, config.temperature
            )
            gradient = of_negatives @ negatives + of_positives @ known.factors
            vectors.descend(slice(None), gradient, _FOLD_LEARNING_RATE * (1 - step / _FOLD_STEPS))
        folded[rows] = vectors.unit()
    return Folded(folded, np.zeros(len(folded), np.float32))


def _start(positives: csr_matrix, factors: _Floats) -> _Floats:
    """The direction of the mean of the positives."""
    sums = np.asarray(positives @ factors, np.float32)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    # Positives that cancel out have none: any is as good.
    start: _Floats = np.divide(sums, lengths, out=np.ones_like(sums), where=lengths > 0)
    return start


SOFTMAX = Trainer(SoftmaxConfig, train_softmax, fold_in_softmax)
