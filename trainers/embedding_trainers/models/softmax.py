"""Matrix factorisation with a sampled softmax loss on cosines."""

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

_DRAWS = 4096  # items that stand for all in the sum of a batch
_STEPS = 50  # batches a pass, at least, as far as there are users for them
_SMALLEST, _LARGEST = 16, 512  # users in a batch
_FOLD_DRAWS, _FOLD_STEPS, _FOLD_RATE = 2048, 50, 0.2

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
        description="what cosines are divided by; the lower, the more the closest of the wrong items count",
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
    sampler = Sampler(np.bincount(user_items.indices, minlength=n_items), _DRAWS)
    size = int(np.clip(n_users // _STEPS, _SMALLEST, _LARGEST))

    def result() -> Factors:
        return Factors(users.unit(), items.unit(), np.zeros(n_items, np.float32))

    with import_extra("threadpoolctl").threadpool_limits(options.threads or None, "blas"):
        for iteration in tqdm(range(1, config.iterations + 1), "softmax", disable=not options.progress):
            rate = config.learning_rate * (1 - (iteration - 1) / config.iterations)
            order = rng.permutation(n_users)
            for start in range(0, n_users, size):
                batch = np.sort(order[start : start + size])
                _descend(users, items, weights[batch], batch, sampler.draw(rng), config.temperature, rate)
            if options.watch and options.watch(iteration, result):
                break
    return result()


def _descend(
    users: Directions,
    items: Directions,
    entries: csr_matrix,
    rows: npt.NDArray[np.int64],
    sample: Sample,
    temperature: float,
    rate: float,
) -> None:
    """One step, for some users, their items, and the drawn ones."""
    touched, places = np.unique(np.concatenate([sample.rows, entries.indices]), return_inverse=True)
    drawn, columns = places[: len(sample.rows)], places[len(sample.rows) :]
    entries = type(entries)((entries.data, columns, entries.indptr), shape=(len(rows), len(touched)))
    own, others = users.unit(rows), items.unit(touched)
    push, pull = forces(own, entries, others, others[drawn], sample.log_weights, temperature)
    of_items = -(pull.T @ own)
    of_items[drawn] += push.T @ own
    users.descend(rows, push @ others[drawn] - pull @ others, rate)
    items.descend(touched, of_items, rate)


@dataclass(frozen=True)
class Sample:
    """Some rows that stand for all in a sum: each counts as `log_weights` says, the sum of which is about that of all.

    Attributes:
        rows: distinct, ascending, shape (m,).
        log_weights: float32, shape (m,).
    """

    rows: npt.NDArray[np.int64]
    log_weights: _Floats


class Sampler:
    """Draws rows in proportion to the root of their degrees; all of them where they are no more than the draws."""

    def __init__(self, degrees: npt.NDArray[np.integer], draws: int) -> None:
        share = np.sqrt(degrees + 1.0)
        self._share, self._draws = share / share.sum(), draws
        self._up_to = np.cumsum(self._share)

    def draw(self, rng: np.random.Generator) -> Sample:
        n = len(self._share)
        if n <= self._draws:
            return Sample(np.arange(n), np.zeros(n, np.float32))
        drawn = np.searchsorted(self._up_to, rng.random(self._draws) * self._up_to[-1], side="right")
        rows, times = np.unique(drawn, return_counts=True)
        return Sample(rows, np.log(times / (self._draws * self._share[rows])).astype(np.float32))


def forces(
    own: _Floats, entries: csr_matrix, others: _Floats, drawn: _Floats, log_weights: _Floats, temperature: float
) -> tuple[_Floats, csr_matrix]:
    """The gradient of the loss by the cosines: of the drawn, positive, and of the entries, without their sign.

    The loss of an entry is ``log(exp(s) + Σ weight · exp(s_drawn)) - s``, with s = cosine / temperature, times its
    weight.

    Args:
        own: unit vectors, shape (b, dim).
        entries: weights, csr, shape (b, p).
        others: unit vectors of the columns of `entries`, shape (p, dim).
        drawn: unit vectors, shape (m, dim).
        log_weights: of the drawn, shape (m,).

    Returns:
        float32, shape (b, m); and csr like `entries`.
    """
    heat = np.float32(1 / temperature)
    mass = np.asarray((own * heat) @ drawn.T + log_weights, np.float32)
    highest = mass.max(axis=1, keepdims=True)
    np.exp(mass - highest, out=mass)
    total = mass.sum(axis=1)
    rows = np.repeat(np.arange(len(own)), np.diff(entries.indptr))
    scores = np.einsum("ij,ij->i", own[rows], others[entries.indices]) * heat
    # Of what is pushed away, an entry's own share is what is missing to a certainty of one.
    with np.errstate(over="ignore"):  # exp of much is infinity, and one over that is 0
        missing = 1 / (1 + np.exp(scores - (np.log(total) + highest[:, 0])[rows]))
    pull = type(entries)((entries.data * missing * heat, entries.indices, entries.indptr), shape=entries.shape)
    mass *= (np.asarray(pull.sum(axis=1)).ravel() / total)[:, None]
    return mass, pull


def fold_in_softmax(interactions: csr_matrix, known: KnownSide, config: SoftmaxConfig, options: RunOptions) -> Folded:
    """Minimise the loss of training over the vectors of new users or items alone, with the other side as it is.

    A few steps of Adam from the mean of what they interacted with. The sample is drawn once, so a vector depends on its
    row and the seed alone. For items the roles are exchanged: users who have the item stand against all users.

    Args:
        interactions: shape (n_new, n_known); see `Trainer`.
        known: the other side; it has no bias.
        config: as trained.
        options: seed of the draws.
    """
    sample = known.kept(
        ("sample", options.seed), lambda: Sampler(known.degrees, _FOLD_DRAWS).draw(np.random.default_rng(options.seed))
    )
    drawn = known.factors[sample.rows]
    folded = np.empty((interactions.shape[0], known.factors.shape[1]), np.float32)
    for start in range(0, len(folded), _LARGEST):
        rows = slice(start, start + _LARGEST)
        entries = interactions[rows]
        vectors = Directions(_start(entries, known.factors))
        for step in range(_FOLD_STEPS):
            own = vectors.unit()
            push, pull = forces(own, entries, known.factors, drawn, sample.log_weights, config.temperature)
            vectors.descend(slice(None), push @ drawn - pull @ known.factors, _FOLD_RATE * (1 - step / _FOLD_STEPS))
        folded[rows] = vectors.unit()
    return Folded(folded, np.zeros(len(folded), np.float32))


def _start(entries: csr_matrix, factors: _Floats) -> _Floats:
    """The direction of the mean of the entries."""
    sums = np.asarray(entries @ factors, np.float32)
    lengths = np.linalg.norm(sums, axis=1, keepdims=True)
    # Entries that cancel out have none: any is as good.
    start: _Floats = np.divide(sums, lengths, out=np.ones_like(sums), where=lengths > 0)
    return start


SOFTMAX = Trainer(SoftmaxConfig, train_softmax, fold_in_softmax)
