"""Alternating least squares for implicit feedback, regularised by how much is known of each user and item."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field
from tqdm import tqdm

from embedding_trainers.device import use_gpu
from embedding_trainers.extra import import_extra
from embedding_trainers.padded_rows import padded_rows
from embedding_trainers.trainer import Factors, Folded, KnownSide, RunOptions, Trainer, TrainerConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["ALS", "ALSConfig", "fold_in_als", "row_regularization", "train_als"]

_STEPS_PER_OCTAVE = 1.5  # rows whose weights differ by less than this share a regularisation
_CG_STEPS = 3  # for each row and iteration
_FINAL_CG_STEPS = 10

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
    RecSys 2022, arXiv:2110.14037), see `row_regularization`. Items have no bias. The users are solved last, and
    better than before, so that they are what folding in their own history gives.

    Args:
        user_items: shape (n_users, n_items); see `Trainer`.
        config: hyper-parameters.
        options: seed, threads, progress and device; one thread of the CPU repeats exactly.

    Raises:
        InputError: a GPU is asked for and there is none.
        MissingExtraError: implicit is not installed.
    """
    solver_of = _GpuSolver if use_gpu(options) else _CpuSolver
    # implicit has threads of its own, and wants BLAS to have one in each.
    with import_extra("threadpoolctl").threadpool_limits(1, "blas"):
        return _train(user_items, config, options, solver_of(config.factors, options.threads))


def _train(user_items: csr_matrix, config: ALSConfig, options: RunOptions, solver: _CpuSolver | _GpuSolver) -> Factors:
    n_users, n_items = user_items.shape
    sums = (np.asarray(user_items.sum(axis=axis)).ravel() for axis in (1, 0))
    of_users, of_items = (row_regularization(weights, config) for weights in sums)
    # Rows of one regularisation are neighbours while it lasts, and so are solved together, in place.
    user_order, item_order = np.argsort(of_users, kind="stable"), np.argsort(of_items, kind="stable")
    confidence = user_items[user_order][:, item_order]
    confidence.data = 1 + np.float32(config.alpha) * confidence.data
    to_users = _groups(confidence, of_users[user_order], solver)
    to_items = _groups(confidence.T.tocsr(), of_items[item_order], solver)

    rng = np.random.default_rng(options.seed)
    users, items = (
        solver.matrix(rng.random((n, config.factors), dtype=np.float32) * np.float32(0.01)) for n in (n_users, n_items)
    )

    def result() -> Factors:
        solver.solve(to_users, users, items, _FINAL_CG_STEPS)
        user_factors, item_factors = (np.empty((n, config.factors), np.float32) for n in (n_users, n_items))
        user_factors[user_order], item_factors[item_order] = solver.numpy(users), solver.numpy(items)
        return Factors(user_factors, item_factors, item_bias=np.zeros(n_items, np.float32))

    for iteration in tqdm(range(1, config.iterations + 1), "als", disable=not options.progress):
        solver.solve(to_users, users, items)
        solver.solve(to_items, items, users)
        if options.watch and options.watch(iteration, result):
            break
    return result()


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


@dataclass(frozen=True)
class _Group:
    """Neighbouring rows of one regularisation, and their confidences as the solver takes them."""

    regularization: float
    start: int
    stop: int
    confidence: Any


def _groups(confidence: csr_matrix, regularization: npt.NDArray[np.float64], solver: Any) -> list[_Group]:
    values, starts = np.unique(regularization, return_index=True)
    bounds = [*starts.tolist(), len(regularization)]
    return [
        _Group(value, start, stop, solver.csr(confidence[start:stop]))
        for value, start, stop in zip(values.tolist(), bounds[:-1], bounds[1:], strict=True)
    ]


class _CpuSolver:
    """implicit's solvers on numpy arrays."""

    def __init__(self, factors: int, threads: int) -> None:
        self._model = import_extra("implicit.cpu.als").AlternatingLeastSquares(factors=factors)
        self._threads = threads

    def matrix(self, values: _Floats) -> _Floats:
        return values

    def csr(self, confidence: csr_matrix) -> csr_matrix:
        return confidence

    def numpy(self, values: _Floats) -> _Floats:
        return values

    def solve(self, groups: list[_Group], rows: _Floats, known: _Floats, cg_steps: int = _CG_STEPS) -> None:
        """Move `rows` towards the solution for `known`, in place."""
        self._model.cg_steps = cg_steps
        for g in groups:
            part = rows[g.start : g.stop]
            self._model.solver(g.confidence, part, known, g.regularization, num_threads=self._threads)


class _GpuSolver:
    """The same on a GPU."""

    def __init__(self, factors: int, threads: int) -> None:
        self._gpu = import_extra("implicit.gpu")
        self._solver = self._gpu.LeastSquaresSolver()
        self._gram = self._gpu.Matrix.zeros(factors, factors)

    def matrix(self, values: _Floats) -> Any:
        return self._gpu.Matrix(values)

    def csr(self, confidence: csr_matrix) -> Any:
        return self._gpu.CSRMatrix(confidence)

    def numpy(self, values: Any) -> Any:
        return values.to_numpy()

    def solve(self, groups: list[_Group], rows: Any, known: Any, cg_steps: int = _CG_STEPS) -> None:
        """Move `rows` towards the solution for `known`, in place."""
        for g in groups:
            self._solver.calculate_yty(known, self._gram, g.regularization)
            part = rows[g.start : g.stop]  # a view
            self._solver.least_squares(g.confidence, part, self._gram, known, cg_steps)


def fold_in_als(interactions: csr_matrix, known: KnownSide, config: ALSConfig, options: RunOptions) -> Folded:
    """Solve the normal equations of new users or items, with the other side as it is.

    It is one step of the training (Hu, Koren & Volinsky, ICDM 2008, eq. 4), so a user of the training gets the vector
    that training gave. With Y the known factors, and c = 1 + alpha · w for the row's entries of weight w::

        (YᵀY + Σ (c - 1) y yᵀ + λ I) x = Σ c y

    Args:
        interactions: shape (n_new, n_known); see `Trainer`.
        known: the other side; its bias and counts play no part.
        config: as trained.
        options: not used.
    """
    dim = known.factors.shape[1]
    everything = known.kept("gram", lambda: _gram(known.factors))
    diagonal = np.arange(dim)
    folded = np.empty((interactions.shape[0], dim), np.float32)
    for block in padded_rows(interactions):
        entries = known.factors[block.columns].astype(np.float64)
        confidence = config.alpha * block.weights.astype(np.float64)
        left = everything + np.matmul((entries * confidence[..., None]).transpose(0, 2, 1), entries)
        left[:, diagonal, diagonal] += row_regularization(block.weights.sum(axis=1), config)[:, None]
        right = (entries * np.where(confidence > 0, 1 + confidence, 0)[..., None]).sum(axis=1)
        folded[block.rows] = np.linalg.solve(left, right[..., None])[..., 0]
    return Folded(folded, np.zeros(len(folded), np.float32))


def _gram(factors: _Floats) -> npt.NDArray[np.float64]:
    exact = factors.astype(np.float64)
    return np.asarray(exact.T @ exact)


ALS = Trainer(ALSConfig, train_als, fold_in_als)
