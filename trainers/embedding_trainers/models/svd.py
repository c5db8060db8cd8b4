"""Normalised spectral embedding: leading singular vectors of the degree-normalised matrix, refined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from embedding_trainers.extra import import_extra
from embedding_trainers.models.device import refuse_gpu
from embedding_trainers.models.least_squares import Spectrum, solve_exactly, solve_many, solve_parts
from embedding_trainers.trainer import Factors, Folded, KnownSide, RaceEntry, RunOptions, Trainer, TrainerConfig

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["SVD", "SVDConfig", "fold_in_svd", "parts_svd", "train_svd"]

_TOLERANCE = 1e-3  # of singular values; far below what ranking notices

_Floats = npt.NDArray[np.float32]


class SVDConfig(TrainerConfig):
    """Hyper-parameters of `train_svd`.

    The defaults are a compromise between MovieLens 100K, a generated shop and Gowalla, each with interactions of its
    training part held back.
    """

    smoothing: float = Field(
        default=50,
        ge=0,
        description="each item is normalised as if it had this many interactions more; damps rare items",
        json_schema_extra={"search": {"low": 1, "high": 300, "log": True}},
    )
    refinements: int = Field(
        default=4,
        ge=1,
        description="times that items and users are computed from each other after that",
        json_schema_extra={"search": {"low": 1, "high": 10}},
    )
    popularity: float = Field(
        default=0.4,
        ge=0,
        le=2,
        description="an item's vector is as long as its summed weight to this power",
        json_schema_extra={"search": {"low": 0.1, "high": 0.8}},
    )
    alpha: float = Field(
        default=20,
        gt=0,
        description="weight of an interaction when users are solved for, next to 1 for a pair without any",
        json_schema_extra={"search": {"low": 1, "high": 300, "log": True}},
    )
    regularization: float = Field(
        default=0.02,
        gt=0,
        description="L2 penalty on users, for each unit of weight in the row, relative to the length of items",
        json_schema_extra={"search": {"low": 0.002, "high": 0.2, "log": True}},
    )


def train_svd(user_items: csr_matrix, config: SVDConfig, options: RunOptions) -> Factors:
    """Embed users and items by a truncated SVD of R̂ = D_u^-½ R (D_i + smoothing)^-½ ≈ U S Vᵀ.

    D_u and D_i hold the weights of R summed by row and by column. The leading singular vectors are the low-pass
    filter of graph collaborative filtering (GF-CF, Shen et al., CIKM 2021, arXiv:2108.07567; SVD-GCN, Peng et al.,
    CIKM 2022, arXiv:2208.12689). By themselves they give short vectors to rare items, and take each missing pair as
    seriously as a present one. So they are only the start of the items; then, as often as `refinements` says,

    * users are the least squares of R on the items, where present pairs count more (see `least_squares`),
    * items are the sum of their users, given the length D_i^popularity,

    and users are solved for once more. The start is normed as items are, as in spectral clustering (Ng, Jordan &
    Weiss, NIPS 2001). What each part is worth is in docs/quality.md.

    Nothing is drawn but the start of the iteration, so another seed gives the same vectors, up to rounding. If
    there are fewer users or items than factors, the remaining factors are 0.

    Args:
        user_items: shape (n_users, n_items); see `Trainer`.
        config: hyper-parameters.
        options: seed and threads; one thread repeats exactly.

    Raises:
        InputError: a GPU is asked for.
        MissingExtraError: scipy is not installed.
    """
    refuse_gpu(options, "svd")
    # First, as limits hold only for the BLAS libraries that are loaded, and scipy brings one.
    import_extra("scipy.sparse.linalg")
    limits = import_extra("threadpoolctl").threadpool_limits
    user_degrees, item_degrees = (np.asarray(user_items.sum(axis=axis), np.float32).ravel() for axis in (1, 0))
    with limits(options.threads or None, "blas"):
        normalised = _normalised(user_items, user_degrees, item_degrees + np.float32(config.smoothing))
        basis, singular = _right_singular(normalised, config.factors, options.seed)
    items = _item_vectors(basis * singular, item_degrees, config)
    with limits(1, "blas"):  # the solver has threads of its own
        users = _user_vectors(user_items, items, config, options.threads)
        for _ in range(config.refinements):
            items = _item_vectors(user_items.T @ users, item_degrees, config)
            users = _user_vectors(user_items, items, config, options.threads)
    return Factors(users, items, item_bias=np.zeros(len(items), np.float32))


def _normalised(user_items: csr_matrix, user_degrees: _Floats, item_degrees: _Floats) -> csr_matrix:
    degrees = np.repeat(user_degrees, np.diff(user_items.indptr)) * item_degrees[user_items.indices]
    return import_extra("scipy.sparse").csr_matrix(
        (user_items.data / np.sqrt(degrees), user_items.indices, user_items.indptr), shape=user_items.shape
    )


def _item_vectors(directions: _Floats, degrees: _Floats, config: SVDConfig) -> _Floats:
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    directions = np.divide(directions, lengths, out=np.zeros_like(directions), where=lengths > 0)
    return np.ascontiguousarray(directions * degrees[:, None] ** np.float32(config.popularity), np.float32)


def _user_vectors(user_items: csr_matrix, items: _Floats, config: SVDConfig, threads: int) -> _Floats:
    # Relative to the mean squared length of items, so that scores do not depend on the unit of length.
    regularization = config.regularization * float((items * items).sum(axis=1, dtype=np.float64).mean())
    return solve_many(user_items, items, alpha=config.alpha, regularization=regularization, threads=threads)


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
    """Take the last step of the training for new users, and the last but one for new items.

    A user of the training gets the vector that training gave. An item of the training gets about that, as the users
    were moved once more after it. Both turn with the known side if that was rotated since.

    Args:
        interactions: shape (n_new, n_known); see `Trainer`.
        known: the other side.
        config: as trained.
        options: not used.
    """
    if known.entity == "item":
        folded = solve_exactly(interactions, **_equations(known, config))
    else:
        degrees = np.asarray(interactions.sum(axis=1), np.float32).ravel()
        folded = _item_vectors(interactions @ known.factors, degrees, config)
    return Folded(folded, np.zeros(len(folded), np.float32))


def parts_svd(interactions: csr_matrix, known: KnownSide, config: SVDConfig) -> _Floats:
    """What each item of a user adds to their vector, see `least_squares.solve_parts` and `Trainer`."""
    return solve_parts(interactions, **_equations(known, config))


def _equations(items: KnownSide, config: SVDConfig) -> dict[str, Any]:
    trained = items.trained_factors
    spectrum = items.kept("spectrum", lambda: Spectrum.of(trained))
    return {
        "known": items.factors,
        "spectrum": spectrum,
        "alpha": config.alpha,
        "regularization": config.regularization * float(spectrum.values.sum()) / len(trained),
        "in_spectrum": items.trained,
    }


SVD = Trainer(SVDConfig, train_svd, fold_in_svd, race=RaceEntry(cost=1), parts=parts_svd)
