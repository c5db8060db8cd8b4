"""Alternating least squares for implicit feedback, regularised by how much is known of each user and item."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from tqdm import tqdm

from embedding_trainers.extra import import_extra
from embedding_trainers.trainer import Factors, RunOptions, Trainer, TrainerConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["ALS", "ALSConfig", "row_regularization", "train_als"]

_STEPS_PER_OCTAVE = 1.5  # rows whose weights differ by less than this share a regularisation
_CG_STEPS = 3

_Floats = npt.NDArray[np.float32]


class ALSConfig(TrainerConfig):
    """Hyper-parameters of `train_als`."""

    iterations: int = Field(
        default=10,
        ge=1,
        description="times that both sides are solved",
        json_schema_extra={"search": {"low": 3, "high": 20}},
    )
    alpha: float = Field(
        default=40,
        gt=0,
        description="weight of an interaction, beside 1 for a pair without any",
        json_schema_extra={"search": {"low": 1, "high": 400, "log": True}},
    )
    regularization: float = Field(
        default=0.03,
        gt=0,
        description="pull towards zero, for each unit of weight in the row",
        json_schema_extra={"search": {"low": 0.005, "high": 0.5, "log": True}},
    )


def train_als(user_items: csr_matrix, config: ALSConfig, options: RunOptions) -> Factors:
    """Factorise by weighted least squares over all pairs (Hu, Koren & Volinsky, ICDM 2008).

    A pair of weight w counts 1 + alpha · w towards a score of 1, and a pair without interactions counts 1 towards 0.
    The solver is implicit's (conjugate gradient: Takács et al., RecSys 2011). implicit has one regularisation for
    all rows; here it grows with the weight of the row, which ranks better (Zhou et al., AAIM 2008; Rendle et al.,
    RecSys 2022, arXiv:2110.14037), see `row_regularization`. Items have no bias. At the end each user is solved
    exactly for the items as they are.

    Args:
        user_items: shape (n_users, n_items); see `Trainer`.
        config: hyper-parameters.
        options: seed, threads and progress; one thread repeats exactly.

    Raises:
        MissingExtraError: implicit is not installed.
    """
    als = import_extra("implicit.cpu.als")
    rng = np.random.default_rng(options.seed)
    n_users, n_items = user_items.shape
    users = rng.random((n_users, config.factors), dtype=np.float32) * np.float32(0.01)
    items = rng.random((n_items, config.factors), dtype=np.float32) * np.float32(0.01)
    # implicit's own threads, and BLAS with one in each.
    with import_extra("threadpoolctl").threadpool_limits(1, "blas"):
        model = als.AlternatingLeastSquares(factors=config.factors, num_threads=options.threads)
        model.cg_steps = _CG_STEPS
        to_users, to_items = _Side(user_items, config), _Side(user_items.T.tocsr(), config)
        for _ in tqdm(range(config.iterations), "als", disable=not options.progress):
            to_users.solve(model.solver, users, items, options.threads)
            to_items.solve(model.solver, items, users, options.threads)
        model.use_cg = False
        to_users.solve(model.solver, users, items, options.threads)
    return Factors(user_factors=users, item_factors=items, item_bias=np.zeros(n_items, np.float32))


def row_regularization(weights: npt.NDArray[Any], config: ALSConfig) -> npt.NDArray[np.float64]:
    """The regularisation of rows by their summed weights: regularization · alpha · weight.

    Weights are rounded to steps of a factor of 1.6, as all rows of one regularisation are solved together.

    Args:
        weights: summed weights of each row, shape (n,).
        config: hyper-parameters.

    Returns:
        float64, shape (n,).
    """
    steps = np.round(_STEPS_PER_OCTAVE * np.log2(weights.astype(np.float64)))
    return config.regularization * config.alpha * 2 ** (steps / _STEPS_PER_OCTAVE)


class _Side:
    """The rows of one side, ordered and grouped by their regularisation."""

    def __init__(self, matrix: csr_matrix, config: ALSConfig) -> None:
        regularization = row_regularization(np.asarray(matrix.sum(axis=1)).ravel(), config)
        self._order = np.argsort(regularization, kind="stable")
        confidence = matrix[self._order]
        confidence.data = 1 + np.float32(config.alpha) * confidence.data
        values, starts = np.unique(regularization[self._order], return_index=True)
        ends = [*starts[1:], len(regularization)]
        self._groups = [(float(v), slice(a, b), confidence[a:b]) for v, a, b in zip(values, starts, ends, strict=True)]

    def solve(self, solver: Callable[..., None], rows: _Floats, known: _Floats, threads: int) -> None:
        """Move `rows` towards the solution for `known`, in place."""
        ordered = rows[self._order]
        for regularization, group, confidence in self._groups:
            solver(confidence, ordered[group], known, regularization, num_threads=threads)
        rows[self._order] = ordered


ALS = Trainer(ALSConfig, train_als)
