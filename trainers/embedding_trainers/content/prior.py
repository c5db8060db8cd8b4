"""From content to behaviour: one formula for cold and new rows, and the strength of the prior in it.

A row with n interactions, whose own vector is v and whose content says m, gets (n v + τ m) / (n + τ): m without
interactions, half of each at τ of them, v with many. It needs nothing of the trainer but its vectors and its fold-in,
and stays in their space. For least squares with the prior in the equations, (A + τ I) x = b + τ m, see
`tests.benchmarks.cold_start`; for trained rows see `content.trained_rows`.

λ of the map, how much each column counts in it, and τ are chosen on trained rows that are held back: the first two by
the mean square of (m - v) · u over the other side's u, along the directions in which that varies most, where v was
trained on all of the row's interactions; τ by the correlation of x · u with v · u for rows folded in from a few of
them, as such vectors are short.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from embedding_trainers.content.ridge import Ridge
from embedding_trainers.content.scales import PENALTIES, Rows, choose_map, fit_scaled
from embedding_trainers.trainer import Folded, KnownSide

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["FoldIn", "Prior", "Trained", "blend", "fit_prior"]

_STRENGTHS = (0.3, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_UNKNOWN_STRENGTH = 4.0  # where the trainer cannot fold in, or no row has interactions to spare
# Interactions that a held-back row is folded in from. Not fewer: the other side was trained with these rows too, and a
# few of it tell more than they would of a new row.
_GIVEN = (10, 30)
_HELD_BACK, _MOST_HELD_BACK, _MOST_FOLDED = 0.2, 2000, 300
_MOST_ROWS, _MOST_TO_CHOOSE = 1 << 18, 20_000
# Directions of the vectors that the map is chosen by: of others content says little, and each costs as much.
_DIRECTIONS = 16

_Floats = npt.NDArray[np.float32]
_Numbers = npt.NDArray[np.int64]
FoldIn = Callable[["csr_matrix", KnownSide], Folded]


@dataclass(frozen=True)
class Trained:
    """One side as it was trained, and what it was trained on.

    Attributes:
        vectors: float32, shape (n, dim).
        bias: float32, shape (n,).
        interactions: csr, shape (n, n_known), a row for each.
        known: the other side, in the same space.
    """

    vectors: _Floats
    bias: _Floats
    interactions: csr_matrix
    known: KnownSide

    @property
    def joint(self) -> _Floats:
        """Vectors and bias side by side."""
        return np.column_stack([self.vectors, self.bias])


@dataclass(frozen=True)
class Prior:
    """What content says of a row, and how much that counts.

    Attributes:
        ridge: from features to a vector and, last, the bias.
        penalty: λ, as chosen.
        strength: τ, as chosen: how many interactions content is worth.
        scales: how much each column counts in the map, as chosen: at most 1.
    """

    ridge: Ridge
    penalty: float
    strength: float
    scales: tuple[float, ...] = ()

    def of(self, features: Any) -> Folded:
        """What content alone says, for each row of features."""
        return _parted(self.ridge.predict(features))

    def mixed(self, folded: Folded, n_interactions: npt.NDArray[np.integer], features: Any) -> Folded:
        """What content and behaviour say together; rows without interactions may have any vector."""
        joint = np.column_stack([folded.factors, folded.bias])
        return _parted(blend(joint, self.ridge.predict(features), n_interactions, self.strength))


def blend(own: _Floats, prior: _Floats, n_interactions: npt.NDArray[np.integer], strength: float) -> _Floats:
    """(n v + τ m) / (n + τ), for each row."""
    share = (n_interactions / (n_interactions + strength)).astype(np.float32)[:, None]
    return np.asarray(share * own + (1 - share) * prior, np.float32)


def fit_prior(
    features: Any,
    trained: Trained,
    fold_in: FoldIn | None,
    *,
    widths: Sequence[int] = (),
    like: Prior | None = None,
    seed: int = 0,
) -> Prior:
    """Fit the map on the trained rows, at the λ and with the τ that are best for rows held back.

    Args:
        features: csr, shape (n, p): of the trained rows.
        trained: the side.
        fold_in: of its trainer; None if it cannot.
        widths: the number of features of each column; without, they belong to one.
        like: one of a part of the same log: its choices are taken, and only the map is fitted.
        seed: of the rows held back.
    """
    widths = tuple(widths) or (features.shape[1],)
    counts = np.diff(trained.interactions.indptr).astype(np.int64)
    rows = Rows(features, trained.joint, _weights(counts))
    if like is not None:
        return replace(like, ridge=_final(rows, counts, widths, like.scales, like.penalty))
    of_scores = _of_scores(trained.known)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(counts))
    n_held = min(int(len(counts) * _HELD_BACK), _MOST_HELD_BACK)
    held, rest = order[:n_held], order[n_held:][:_MOST_TO_CHOOSE]
    if not n_held:
        scales = (1.0,) * len(widths)
        (ridge,) = fit_scaled(rows, widths, scales, PENALTIES[:1])
        return Prior(ridge, PENALTIES[0], _UNKNOWN_STRENGTH, scales)
    held_features, kept = features[held], rows[rest]
    directions = _directions(trained.joint, of_scores)
    wanted = trained.joint[held] @ directions
    chosen = choose_map(
        replace(kept, vectors=kept.vectors @ directions),
        lambda ridge: float(np.square(ridge.predict(held_features) - wanted, dtype=np.float64).sum()),
        widths,
    )
    (ridge,) = fit_scaled(kept, widths, chosen.scales, [chosen.penalty])
    strength = _strength(trained, held, ridge.predict(held_features), of_scores, fold_in, rng)
    return Prior(_final(rows, counts, widths, chosen.scales, chosen.penalty), chosen.penalty, strength, chosen.scales)


def _final(rows: Rows, counts: _Numbers, widths: tuple[int, ...], scales: tuple[float, ...], penalty: float) -> Ridge:
    """The map of the rows of which most is known."""
    fitted = np.argsort(-counts, kind="stable")[:_MOST_ROWS]
    (ridge,) = fit_scaled(rows[fitted], widths, scales, [penalty])
    return ridge


def _weights(counts: _Numbers) -> npt.NDArray[np.float64]:
    """Nearly all rows alike: to count rows of few interactions less found no more on MovieLens."""
    return counts / (counts + 1)


def _of_scores(known: KnownSide) -> npt.NDArray[np.float64]:
    """C with which dᵀ C d is the mean square of what a difference d in vector and bias changes in scores."""
    total = np.zeros((known.factors.shape[1] + 1,) * 2)
    for start in range(0, len(known.factors), 1 << 16):
        block = known.factors[start : start + (1 << 16)].astype(np.float64)
        with_one = np.column_stack([block, np.ones(len(block))])
        total += with_one.T @ with_one
    return np.asarray(total / len(known.factors))


def _directions(joint: _Floats, of_scores: npt.NDArray[np.float64]) -> _Floats:
    """The matrix, shape (dim + 1, r), with which the square of a product is how much it changes scores.

    Its columns are those along which the scores of the rows vary most.
    """
    values, axes = np.linalg.eigh(of_scores)
    root = axes * np.sqrt(values.clip(0))
    centred = joint - joint.mean(axis=0, dtype=np.float64)
    _, varying = np.linalg.eigh(root.T @ (centred.T @ centred) @ root)
    return np.asarray(root @ varying[:, ::-1][:, :_DIRECTIONS], np.float32)


def _strength(
    trained: Trained,
    held: _Numbers,
    said: _Floats,
    of_scores: npt.NDArray[np.float64],
    fold_in: FoldIn | None,
    rng: np.random.Generator,
) -> float:
    """The τ that is best for rows folded in from a few of their interactions."""
    agreement = np.zeros(len(_STRENGTHS))
    for n in _GIVEN if fold_in is not None else ():
        rows = _rows_with(trained.interactions, held, 2 * n)[:_MOST_FOLDED]
        if not len(rows):
            continue
        numbers = held[rows]
        folded = fold_in(_some(trained.interactions, numbers, n, rng), trained.known)  # type: ignore[misc]
        own, wanted = np.column_stack([folded.factors, folded.bias]), trained.joint[numbers]
        for i, strength in enumerate(_STRENGTHS):
            mixed = blend(own, said[rows], np.full(len(rows), n), strength)
            agreement[i] += _agreement(mixed, wanted, of_scores)
    return _STRENGTHS[int(np.argmax(agreement))] if agreement.any() else _UNKNOWN_STRENGTH


def _agreement(found: _Floats, wanted: _Floats, of_scores: npt.NDArray[np.float64]) -> float:
    """The mean correlation of the scores of a row, over the other side: with few interactions vectors are short."""
    means = of_scores[-1, :-1]
    covariance = of_scores[:-1, :-1] - np.outer(means, means)
    one, two = (each[:, :-1].astype(np.float64) for each in (found, wanted))
    of_one, of_two = one @ covariance, two @ covariance
    both, *squares = ((a * b).sum(axis=1) for a, b in ((of_one, two), (of_one, one), (of_two, two)))
    return float((both / np.sqrt(np.maximum(squares[0] * squares[1], np.finfo(float).tiny))).mean())


def _rows_with(interactions: csr_matrix, rows: _Numbers, least: int) -> _Numbers:
    return np.flatnonzero(np.diff(interactions.indptr)[rows] >= least)


def _some(interactions: csr_matrix, rows: Sequence[int] | _Numbers, n: int, rng: np.random.Generator) -> csr_matrix:
    """These rows, with n entries each, drawn without putting back."""
    part = interactions[rows]
    kept = np.concatenate(
        [rng.choice(np.arange(start, stop), n, replace=False) for start, stop in pairwise(part.indptr.tolist())]
    )
    kept.sort()
    some: csr_matrix = type(part)(
        (part.data[kept], part.indices[kept], np.arange(0, len(kept) + 1, n)), shape=part.shape
    )
    some.sort_indices()
    return some


def _parted(joint: _Floats) -> Folded:
    return Folded(np.ascontiguousarray(joint[:, :-1]), np.ascontiguousarray(joint[:, -1]))
