"""Normalised spectral embedding: the leading singular vectors of the degree-normalised matrix, in closed form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from embedding_trainers.device import refuse_gpu
from embedding_trainers.extra import import_extra
from embedding_trainers.trainer import Factors, Folded, KnownSide, RunOptions, Trainer, TrainerConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["SVD", "SVDConfig", "fold_in_svd", "train_svd"]

_TOLERANCE = 1e-3  # of singular values; far below what ranking notices
_RANK = 1e-10  # of the largest squared singular value; float32 factors know no less

_Floats = npt.NDArray[np.float32]


class SVDConfig(TrainerConfig):
    """Hyper-parameters of `train_svd`."""

    smoothing: float = Field(
        default=50,
        ge=0,
        description="each item is normalised as if it had this many interactions more; damps rare items",
        json_schema_extra={"search": {"low": 1, "high": 300, "log": True}},
    )


def train_svd(user_items: csr_matrix, config: SVDConfig, options: RunOptions) -> Factors:
    """Embed users and items by a truncated SVD of R̂ = D_u^-½ R (D_i + smoothing)^-½.

    D_u and D_i hold the weights of R summed by row and by column. R̂ ≈ U S Vᵀ is the low-pass filter of graph
    collaborative filtering (GF-CF, Shen et al., CIKM 2021, arXiv:2108.07567; SVD-GCN, Peng et al., CIKM 2022,
    arXiv:2208.12689), as is the D_i^½ that gives popularity back. Each side is its own normalised history times the
    basis of the other::

        users = √n_items  R̂ V                         = √n_items  U S
        items = √n_users (D_i + smoothing)^½ R̂ᵀ U     = √n_users (D_i + smoothing)^½ V S

    Nothing is drawn but the start of the iteration, so another seed gives the same vectors, up to rounding. If
    there are fewer users or items than factors, the remaining factors are 0. Weights count as numbers of interactions.

    Args:
        user_items: shape (n_users, n_items); see `Trainer`.
        config: hyper-parameters.
        options: seed and threads; one thread repeats exactly.

    Raises:
        InputError: a GPU is asked for.
        MissingExtraError: scipy is not installed.
    """
    refuse_gpu(options, "svd")
    user_degrees, item_degrees = degrees(user_items)
    damped = item_degrees + np.float32(config.smoothing)
    normalised = import_extra("scipy.sparse").csr_matrix(
        (
            user_items.data / np.sqrt(np.repeat(user_degrees, np.diff(user_items.indptr)) * damped[user_items.indices]),
            user_items.indices,
            user_items.indptr,
        ),
        shape=user_items.shape,
    )
    n_users, n_items = user_items.shape
    with import_extra("threadpoolctl").threadpool_limits(options.threads or None, "blas"):
        basis, singular = _right_singular(normalised, config.factors, options.seed)
        users = np.sqrt(np.float32(n_items)) * (normalised @ basis)
        items = np.sqrt(n_users * damped)[:, None] * basis * singular
    return Factors(
        user_factors=np.ascontiguousarray(users, np.float32),
        item_factors=np.ascontiguousarray(items, np.float32),
        item_bias=np.zeros(n_items, np.float32),
    )


def degrees(user_items: csr_matrix) -> tuple[_Floats, _Floats]:
    """Weights summed by row and by column: float32, shapes (n_users,) and (n_items,)."""
    return tuple(np.asarray(user_items.sum(axis=axis), np.float32).ravel() for axis in (1, 0))  # type: ignore[return-value]


def _right_singular(matrix: Any, k: int, seed: int) -> tuple[_Floats, _Floats]:
    """Right singular vectors, shape (columns, k), and singular values, shape (k,), largest first."""
    n_rows, n_columns = matrix.shape
    found = min(k, n_rows, n_columns)
    if k < min(n_rows, n_columns):
        start = np.random.default_rng(seed).random(min(n_rows, n_columns), dtype=np.float32)
        _, singular, vectors = import_extra("scipy.sparse.linalg").svds(matrix, k=k, v0=start, tol=_TOLERANCE)
    else:
        _, singular, vectors = np.linalg.svd(matrix.toarray(), full_matrices=False)
    order = np.argsort(-singular)[:found]
    basis = np.zeros((n_columns, k), np.float32)
    basis[:, :found] = vectors[order].T
    values = np.zeros(k, np.float32)
    values[:found] = singular[order]
    # A singular vector is defined up to its sign: the coordinate furthest from 0 is positive.
    largest = np.take_along_axis(basis, np.abs(basis).argmax(axis=0)[None], axis=0)
    return basis * np.where(largest < 0, np.float32(-1), np.float32(1)), values


def fold_in_svd(interactions: csr_matrix, known: KnownSide, config: SVDConfig, options: RunOptions) -> Folded:
    """Multiply the normalised history of new users or items with the basis of the known side.

    That is what `train_svd` does at its end, and folding in as in latent semantic indexing (Deerwester et al., JASIS
    1990): a user of the training gets the vector that training gave. The basis is found in the known factors
    themselves, whatever rotation Q they were given since: Y = V S Q has the polar factor Y (YᵀY)^-½ = V Q.

    The degrees of the known side are its numbers of interactions; for a log with weights other than 1 that is not
    what training normalised by, and the vectors are those of an unweighted training.

    Args:
        interactions: shape (n_new, n_known); see `Trainer`.
        known: the other side.
        config: as trained.
        options: not used.
    """
    counts = known.n_interactions.astype(np.float64)
    if known.entity == "item":
        scale = counts + config.smoothing
        root = known.kept(("root", config.smoothing), lambda: _inverse_root(known.factors / np.sqrt(scale)[:, None]))
        length = np.sqrt(len(counts) / np.asarray(interactions.sum(axis=1), np.float64))
    else:
        # The item's own degree, and its smoothing, cancel out: √n_users (D_i + smoothing)^½ R̂ᵀU.
        scale = np.sqrt(counts)
        root = known.kept("root", lambda: _inverse_root(known.factors.astype(np.float64)))
        length = np.full((interactions.shape[0], 1), np.sqrt(len(counts)))
    # Of the basis only the rows that occur: for a few interactions the whole of it costs more than all else.
    columns, places = np.unique(interactions.indices, return_inverse=True)
    basis = (known.factors[columns] / scale[columns, None]) @ root
    narrow = type(interactions)((interactions.data, places, interactions.indptr), shape=(len(length), len(columns)))
    folded = np.asarray(length * (narrow @ basis), np.float32)
    return Folded(folded, np.zeros(len(folded), np.float32))


def _inverse_root(matrix: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(MᵀM)^-½, so that M times it has orthonormal columns; 0 where M has no rank."""
    squares, directions = np.linalg.eigh(matrix.T @ matrix)
    has_rank = squares > squares.max() * _RANK
    lengths = np.sqrt(np.where(has_rank, squares, 1))
    return np.asarray((directions * (has_rank / lengths)) @ directions.T)


SVD = Trainer(SVDConfig, train_svd, fold_in_svd)
