"""One side of a factorisation by weighted least squares over all pairs, with the other side as it is.

A pair of weight w counts 1 + alpha · w towards a score of 1, and a pair without interactions counts 1 towards 0 (Hu,
Koren & Volinsky, ICDM 2008). With Y the known factors and c = 1 + alpha · w for the entries of a row, its vector solves
(eq. 4 there)::

    (YᵀY + Σ (c - 1) y yᵀ + λ I) x = Σ c y

λ grows with the weight of the row, see `row_regularization`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedding_trainers.models.conjugate_gradient import CpuSolver
from embedding_trainers.models.padded_rows import PaddedRows, padded_rows

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["Spectrum", "row_regularization", "solve_exactly", "solve_many", "solve_parts"]

_STEPS_PER_OCTAVE = 1.5  # rows whose weights differ by less than this share a regularisation
_STEPS_FROM_ZERO = 10  # of conjugate gradient

_Floats = npt.NDArray[np.float32]


def row_regularization(weights: npt.NDArray[Any], alpha: float, regularization: float) -> npt.NDArray[np.float64]:
    """Regularise each row by its summed weights: regularization · alpha · weight.

    It ranks better than one for all (Zhou et al., AAIM 2008; Rendle et al., RecSys 2022, arXiv:2110.14037). Weights
    are rounded to steps of a factor of 1.6, as a GPU solves all rows of one regularisation together.

    Args:
        weights: summed weights of each row, shape (n,).
        alpha: weight of an interaction.
        regularization: L2 penalty for each unit of weight.

    Returns:
        float64, shape (n,).
    """
    steps = np.round(_STEPS_PER_OCTAVE * np.log2(weights.astype(np.float64)))
    return regularization * alpha * 2 ** (steps / _STEPS_PER_OCTAVE)


def solve_many(weights: csr_matrix, known: _Floats, *, alpha: float, regularization: float, threads: int) -> _Floats:
    """The vector of each row by conjugate gradient, for many rows: as `solve_exactly` but for a thousandth.

    Args:
        weights: shape (n_rows, n_known), no empty row.
        known: float32 in C order, shape (n_known, dim).
        alpha: see `row_regularization`.
        regularization: see `row_regularization`.
        threads: 0 takes one per core.

    Returns:
        float32, shape (n_rows, dim).
    """
    solver = CpuSolver(known.shape[1], threads)
    ridge = row_regularization(np.asarray(weights.sum(axis=1)).ravel(), alpha, regularization)
    rows = np.zeros((len(ridge), known.shape[1]), np.float32)
    solver.solve(solver.equations(weights, ridge, alpha), rows, known, _STEPS_FROM_ZERO)
    return rows


@dataclass(frozen=True)
class Spectrum:
    """YᵀY = Q diag(e) Qᵀ of known factors: values e, shape (dim,), and directions Q, shape (dim, dim), in float64."""

    values: npt.NDArray[np.float64]
    directions: npt.NDArray[np.float64]

    @classmethod
    def of(cls, factors: _Floats) -> Spectrum:
        exact = factors.astype(np.float64)
        values, directions = np.linalg.eigh(exact.T @ exact)
        return cls(np.maximum(values, 0), directions)


def solve_exactly(
    weights: csr_matrix,
    known: _Floats,
    spectrum: Spectrum,
    *,
    alpha: float,
    regularization: float,
    in_spectrum: npt.NDArray[np.bool_] | None = None,
) -> _Floats:
    """The vector of each row, for few rows: in float64, and depending on that row alone.

    With Z = Y Q for the w entries of a row and D = diag(e + λ), the Woodbury identity leaves w unknowns instead of
    dim::

        x = Q D⁻¹ Zᵀ t,   (I + diag(c - 1) Z D⁻¹ Zᵀ) t = c

    A row with more entries than dimensions is solved as it stands.

    Args:
        spectrum: of `known`, or of those `in_spectrum`; the others, and the result, are as in `solve_many`.
        in_spectrum: which of the known ones count for rows without them too, shape (n_known,); None for all.
    """
    system = _System(known, spectrum, alpha, regularization, in_spectrum)
    solved = np.empty((weights.shape[0], known.shape[1]))
    for block in padded_rows(weights):
        solved[block.rows] = system.solve(block, system.confidence(block)[..., None])[..., 0]
    return np.asarray(solved @ spectrum.directions.T, np.float32)


def solve_parts(
    weights: csr_matrix,
    known: _Floats,
    spectrum: Spectrum,
    *,
    alpha: float,
    regularization: float,
    in_spectrum: npt.NDArray[np.bool_] | None = None,
) -> _Floats:
    """What each entry of a row adds to its vector, which is their sum, as the equations are linear in Σ c y.

    The product of a part with the vector of an item is the entry's share of the item's score (Hu, Koren & Volinsky,
    ICDM 2008, section 5).

    Args:
        weights: shape (1, n_known), not empty; see `solve_exactly` for the rest.

    Returns:
        float32, shape (entries of the row, dim), in the order of its indices.
    """
    system = _System(known, spectrum, alpha, regularization, in_spectrum)
    (block,) = padded_rows(weights)
    parts = system.solve(block, system.confidence(block)[..., None] * np.eye(block.columns.shape[1]))
    return np.asarray(parts[0].T @ spectrum.directions.T, np.float32)


@dataclass(frozen=True)
class _System:
    """The left side of the equations of any rows; the fields are the arguments of `solve_exactly`."""

    known: _Floats
    spectrum: Spectrum
    alpha: float
    regularization: float
    in_spectrum: npt.NDArray[np.bool_] | None

    def confidence(self, block: PaddedRows) -> npt.NDArray[np.float64]:
        """Return c of each entry, 0 where there is none, shape (b, w)."""
        return np.where(block.weights > 0, 1 + self.alpha * block.weights.astype(np.float64), 0)

    def solve(self, block: PaddedRows, right: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Solve for each column of `right`, shape (b, w, r), in place of c; shape (b, dim, r), in the directions Q."""
        dim = self.known.shape[1]
        z, more = self.known[block.columns] @ self.spectrum.directions, self.alpha * block.weights.astype(np.float64)
        if self.in_spectrum is not None:
            more = np.where(self.in_spectrum[block.columns], more, self.confidence(block))
        ridge = row_regularization(block.weights.sum(axis=1), self.alpha, self.regularization)
        diagonal = self.spectrum.values + ridge[:, None]
        if block.columns.shape[1] < dim:
            scaled = z / diagonal[:, None, :]
            left = more[..., None] * np.matmul(scaled, z.transpose(0, 2, 1)) + np.eye(z.shape[1])
            solved = np.matmul(scaled.transpose(0, 2, 1), np.linalg.solve(left, right))
        else:
            left = np.matmul((z * more[..., None]).transpose(0, 2, 1), z)
            left[:, np.arange(dim), np.arange(dim)] += diagonal
            solved = np.linalg.solve(left, np.matmul(z.transpose(0, 2, 1), right))
        return np.asarray(solved)
