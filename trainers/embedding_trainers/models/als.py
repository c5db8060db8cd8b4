"""Alternating least squares for implicit feedback (Hu, Koren & Volinsky, ICDM 2008)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from tqdm import tqdm

from embedding_trainers.extra import import_extra
from embedding_trainers.models.conjugate_gradient import CpuSolver, GpuSolver
from embedding_trainers.models.device import use_gpu
from embedding_trainers.models.least_squares import Spectrum, row_regularization, solve_exactly, solve_parts
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

__all__ = ["ALS", "ALSConfig", "fold_in_als", "parts_als", "train_als"]

_CG_STEPS = 2  # for each row and iteration; 3 ranked no better
_LAST_CG_STEPS = 7  # more, for users
_WEIGHT_OF_INTERACTIONS, _ALPHAS = 0.06, (0.1, 200)  # next to 1 for all pairs


class ALSConfig(TrainerConfig):
    """Hyper-parameters of `train_als`."""

    iterations: int = Field(
        default=10,
        ge=1,
        description="times that both sides are solved",
        json_schema_extra={"search": {"low": 3, "high": 20}},
    )
    alpha: float | None = Field(
        default=None,
        gt=0,
        description="weight of an interaction, next to 1 for a pair without any; derived from the log if not given",
        json_schema_extra={"search": {"low": 0.3, "high": 300, "log": True}},
    )
    regularization: float = Field(
        default=0.1,
        gt=0,
        description="L2 penalty, for each unit of weight in the row",
        json_schema_extra={"search": {"low": 0.005, "high": 0.5, "log": True}},
    )


def with_alpha(log: LogShape, config: ALSConfig) -> ALSConfig:
    """Give a config without alpha the one by which all interactions weigh 6 % of what all pairs weigh.

    So a dense log gets a small one and a sparse log a large one, between 0.1 and 200 for an interaction of mean weight.
    On each of five logs that is near the best of a grid, where a fixed one is far from it on some
    (`tests.benchmarks.als_defaults`).
    """
    if config.alpha is not None:
        return config
    of_mean = float(np.clip(_WEIGHT_OF_INTERACTIONS * log.n_users * log.n_items / log.n_pairs, *_ALPHAS))
    return config.model_copy(update={"alpha": of_mean * log.n_pairs / log.weight})


def _alpha(config: ALSConfig) -> float:
    if config.alpha is None:
        raise InputError("parameter alpha is not given: take the config of the version, or Trainer.complete")
    return config.alpha


def train_als(user_items: csr_matrix, config: ALSConfig, options: RunOptions) -> Factors:
    """Factorise by weighted least squares over all pairs (Hu, Koren & Volinsky, ICDM 2008).

    What is solved is in `least_squares`, regularised by how much is known of each row. Items have no bias. The users
    are solved last, and better than before, so that they equal the fold-in of their own history.

    Args:
        user_items: shape (n_users, n_items); see `Trainer`.
        config: hyper-parameters.
        options: seed, threads, progress and device; on a CPU the result is the same with any number of threads.

    Raises:
        InputError: a GPU is asked for and there is none.
        MissingExtraError: implicit is not installed.
    """
    config = with_alpha(LogShape.of(user_items), config)
    with import_extra("threadpoolctl").threadpool_limits(1, "blas"):  # the solver has threads of its own
        if not use_gpu(options):
            return _train(user_items, config, options, CpuSolver(config.factors, options.threads))
        # Rows of one regularisation are neighbours while it lasts, so that a GPU solves them together, in place.
        user_order, item_order = (np.argsort(ridge, kind="stable") for ridge in _ridges(user_items, config))

        def as_given(factors: Factors) -> Factors:
            users, items = np.empty_like(factors.user_factors), np.empty_like(factors.item_factors)
            users[user_order], items[item_order] = factors.user_factors, factors.item_factors
            return Factors(users, items, factors.item_bias)

        ordered = user_items[user_order][:, item_order]
        return _train(ordered, config, options, GpuSolver(config.factors), as_given)


def _ridges(user_items: csr_matrix, config: ALSConfig) -> list[npt.NDArray[np.float64]]:
    """The λ of each user, and of each item."""
    weights = [np.asarray(user_items.sum(axis=axis)).ravel() for axis in (1, 0)]
    return [row_regularization(each, _alpha(config), config.regularization) for each in weights]


def _train(
    user_items: csr_matrix,
    config: ALSConfig,
    options: RunOptions,
    solver: Any,
    as_given: Callable[[Factors], Factors] = lambda factors: factors,
) -> Factors:
    """Train with rows and columns in this order; `as_given` puts the factors into the caller's order."""
    n_users, n_items = user_items.shape
    of_users, of_items = _ridges(user_items, config)
    to_users = solver.equations(user_items, of_users, _alpha(config))
    to_items = solver.equations(user_items.T.tocsr(), of_items, _alpha(config))

    rng = np.random.default_rng(options.seed)
    users, items = (
        solver.matrix(rng.random((n, config.factors), dtype=np.float32) * np.float32(0.01)) for n in (n_users, n_items)
    )

    def result() -> Factors:
        solver.solve(to_users, users, items, _LAST_CG_STEPS)
        return as_given(Factors(solver.numpy(users), solver.numpy(items), np.zeros(n_items, np.float32)))

    def so_far() -> Factors:
        factors = result()
        # What comes next changes them in place.
        return Factors(factors.user_factors.copy(), factors.item_factors.copy(), factors.item_bias)

    for iteration in tqdm(range(1, config.iterations + 1), "als", disable=not options.progress):
        solver.solve(to_users, users, items, _CG_STEPS)
        solver.solve(to_items, items, users, _CG_STEPS)
        if options.watch and options.watch(iteration, so_far):
            break
    return result()


def fold_in_als(interactions: csr_matrix, known: KnownSide, config: ALSConfig, options: RunOptions) -> Folded:
    """Solve the normal equations of new users or items, with the other side as it is.

    It is the last step of the training, so a user of the training gets the vector that training gave.

    Args:
        interactions: shape (n_new, n_known); see `Trainer`.
        known: the other side; its bias plays no part.
        config: as trained.
        options: not used.
    """
    folded = solve_exactly(interactions, **_equations(known, config))
    return Folded(folded, np.zeros(len(folded), np.float32))


def parts_als(interactions: csr_matrix, known: KnownSide, config: ALSConfig) -> npt.NDArray[np.float32]:
    """What each item of a user adds to their vector, see `least_squares.solve_parts` and `Trainer`."""
    return solve_parts(interactions, **_equations(known, config))


def _equations(known: KnownSide, config: ALSConfig) -> dict[str, Any]:
    return {
        "known": known.factors,
        "spectrum": known.kept("spectrum", lambda: Spectrum.of(known.trained_factors)),
        "alpha": _alpha(config),
        "regularization": config.regularization,
        "in_spectrum": known.trained,
    }


ALS = Trainer(ALSConfig, train_als, fold_in_als, derive=with_alpha, race=RaceEntry(cost=2), parts=parts_als)
