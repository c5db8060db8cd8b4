"""Bayesian personalised ranking (Rendle et al., UAI 2009, arXiv:1205.2618) with a popularity bias."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from embedding_trainers.extra import import_extra
from embedding_trainers.models import pairwise
from embedding_trainers.models.device import use_gpu
from embedding_trainers.trainer import (
    Factors,
    Folded,
    KnownSide,
    LogShape,
    RaceEntry,
    RunOptions,
    Trainer,
    TrainerConfig,
)
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["BPR", "BPRConfig", "fold_in_bpr", "train_bpr"]

_DECAY = 4  # how much more weight late passes have; 2 and 8 did no better

_REGULARIZATION, _DENSITY, _MOST_REGULARIZATION = 0.03, 0.05, 0.04
# Items a user on average, and the share of pairs that occur: below the one and above the other it takes part in races.
_SHORT_HISTORY, _DENSE = 15, 0.01


class BPRConfig(TrainerConfig):
    """Hyper-parameters of `train_bpr`.

    The defaults are a compromise between MovieLens 100K and Gowalla, found on a fifth of each user's training
    items held back. A sparse log like Gowalla gains from more iterations.
    """

    iterations: int = Field(
        default=150,
        ge=1,
        description="passes over the interactions",
        json_schema_extra={"search": {"low": 20, "high": 300, "log": True}},
    )
    learning_rate: float = Field(
        default=0.1,
        gt=0,
        description="step of gradient descent",
        json_schema_extra={"search": {"low": 0.02, "high": 0.2, "log": True}},
    )
    regularization: float | None = Field(
        default=None,
        ge=0,
        description="L2 penalty on every factor; derived from the log if not given",
        json_schema_extra={"search": {"low": 0.001, "high": 0.05, "log": True}},
    )
    popularity_correction: float = Field(
        default=0.75,
        ge=0,
        description="share of log-popularity put back",
        json_schema_extra={"search": {"low": 0.5, "high": 1.1}},
    )


def with_regularization(log: LogShape, config: BPRConfig) -> BPRConfig:
    """Give a config without regularization one that grows with the fourth root of the log's density.

    It is 0.03 where one of twenty pairs occurs. On each of six logs that is near the best of a grid, where a fixed one
    loses up to a fifth of NDCG on some (`tests.benchmarks.one_parameter`).
    """
    if config.regularization is not None:
        return config
    density = log.n_pairs / (log.n_users * log.n_items)
    most_likely = _REGULARIZATION * (density / _DENSITY) ** 0.25
    return config.model_copy(update={"regularization": min(most_likely, _MOST_REGULARIZATION)})


def _regularization(config: BPRConfig) -> float:
    if config.regularization is None:
        raise InputError("parameter regularization is not given: take the config of the version, or Trainer.complete")
    return config.regularization


def train_bpr(user_items: csr_matrix, config: BPRConfig, options: RunOptions) -> Factors:
    """Factorise by BPR (Rendle et al., UAI 2009, arXiv:1205.2618). It asks whether a pair occurs, not how often.

    implicit draws negative items in proportion to their popularity. The score learned so is the wanted one
    less the logarithm of that popularity, as in sampled softmax; adding it to the item bias puts it right
    (logQ correction: Bengio & Senécal, IEEE TNN 2008; Yi et al., RecSys 2019).

    The result is the mean of the factors after each pass, late ones with more weight (polynomial-decay averaging:
    Shamir & Zhang, ICML 2013, arXiv:1212.1824): gradient descent with a constant rate ends somewhere around a
    minimum, and the mean is nearer to it than any of its steps.

    Args:
        user_items: shape (n_users, n_items); see `Trainer`.
        config: hyper-parameters.
        options: seed, threads, progress and device; implicit's threads race, so only one thread repeats exactly.

    Raises:
        MissingExtraError: implicit is not installed.
        InputError: training diverged, or a GPU is asked for and there is none.
    """
    config = with_regularization(LogShape.of(user_items), config)
    on_gpu = use_gpu(options)
    diverged = import_extra("implicit.recommender_base").ModelFitError
    model = (_gpu_model if on_gpu else _cpu_model)(config, options)
    popularity = np.log1p(np.bincount(user_items.indices, minlength=user_items.shape[1]))
    users, items = _RunningMean(), _RunningMean()

    def result() -> Factors:
        bias = config.popularity_correction * popularity
        if on_gpu:
            return Factors(users.value.copy(), items.value.copy(), bias.astype(np.float32))
        # implicit appends the item bias to the item factors, and a one to the user factors to pick it up.
        bias = bias + items.value[:, -1]
        return Factors(users.value[:, :-1].copy(), items.value[:, :-1].copy(), bias.astype(np.float32))

    def after(epoch: int, *_: Any) -> None:
        for mean, factors in ((users, model.user_factors), (items, model.item_factors)):
            mean.add(factors.to_numpy() if on_gpu else factors)
        if options.watch and options.watch(epoch + 1, result):
            raise _StopEarly

    try:
        model.fit(user_items, show_progress=options.progress, callback=after)
    except _StopEarly:
        pass
    except diverged as error:
        raise InputError(f"training diverged ({error}); lower the learning rate or raise the regularization") from None
    return result()


class _RunningMean:
    """The mean of matrices that come one after the other, late ones with more weight.

    After n of them the t-th counts in proportion to t (t + 1) … (t + _DECAY - 1), so that most of the weight is on the
    last n / _DECAY, for every n: ending earlier gives the result of that many iterations.
    """

    def __init__(self) -> None:
        self._n = 0
        self.value: npt.NDArray[np.float32]

    def add(self, matrix: npt.NDArray[np.float32]) -> None:
        self._n += 1
        if self._n == 1:
            self.value = matrix.copy()
        else:
            self.value += np.float32((_DECAY + 1) / (self._n + _DECAY)) * (matrix - self.value)


class _StopEarly(Exception):  # noqa: N818 (no error)
    """Leaves implicit's loop: it has no other way out."""


def _cpu_model(config: BPRConfig, options: RunOptions) -> Any:
    return import_extra("implicit.cpu.bpr").BayesianPersonalizedRanking(
        factors=config.factors,
        iterations=config.iterations,
        learning_rate=config.learning_rate,
        regularization=_regularization(config),
        num_threads=options.threads,
        random_state=options.seed,  # implicit crashes on a RandomState
    )


def _gpu_model(config: BPRConfig, options: RunOptions) -> Any:
    """A model whose bias column is the last of the factors asked for.

    On the GPU implicit trains the user's column of ones too (bpr.cu), so that it is a factor like the others.
    """
    if config.factors < 2:
        raise InputError("parameter factors=1: on a GPU it must be at least 2; or take --device cpu")
    return import_extra("implicit.gpu.bpr").BayesianPersonalizedRanking(
        factors=config.factors - 1,
        iterations=config.iterations,
        learning_rate=config.learning_rate,
        regularization=_regularization(config),
        random_state=options.seed,
    )


def fold_in_bpr(interactions: csr_matrix, known: KnownSide, config: BPRConfig, options: RunOptions) -> Folded:
    """Minimise the loss of BPR over the vectors of new users or items alone, with the other side as it is.

    The loss is the one that `train_bpr` descends: each entry is preferred to known ones drawn in proportion to their
    degree, by the scores without the popularity that was put back. With the other side frozen that is convex;
    `pairwise.solve` finds its minimum. Training stops earlier, after `iterations` passes at `learning_rate`, and
    stopping early pulls towards zero as a ridge of one over (rate · steps) does (Ali, Kolter & Tibshirani, AISTATS
    2019, arXiv:1810.10082), so that much is added to the regularization.

    For items the roles are exchanged: users who have the item are preferred to users who have not, which says nothing
    about a bias; that is the popularity put back, as for any item, and 0 for the rest.

    Args:
        interactions: shape (n_new, n_known); see `Trainer`. It asks whether a pair occurs, not how often.
        known: the other side.
        config: as trained.
        options: seed of the draws.
    """
    n_entries = np.diff(interactions.indptr)
    put_back = config.popularity_correction * np.log1p(known.degrees)
    folded = pairwise.solve(
        interactions,
        known.factors,
        known.bias - put_back.astype(np.float32) if known.entity == "item" else known.bias,
        popularity=known.degrees,
        ridge=_regularization(config) + 1 / (config.learning_rate * config.iterations * n_entries),
        seed=options.seed,
    )
    bias = np.zeros(len(folded)) if known.entity == "item" else config.popularity_correction * np.log1p(n_entries)
    return Folded(folded, bias.astype(np.float32))


def _races(log: LogShape) -> bool:
    """It was best where histories are short and where logs are dense (`tests.benchmarks.auto`).

    Elsewhere the race would cost more than the fit of who wins. With fewer passes it is behind on short histories.
    """
    return log.n_pairs < _SHORT_HISTORY * log.n_users or log.n_pairs > _DENSE * log.n_users * log.n_items


BPR = Trainer(
    BPRConfig,
    train_bpr,
    fold_in_bpr,
    uses_weights=False,
    derive=with_regularization,
    race=RaceEntry(20, {"iterations": 60}, _races),
)
