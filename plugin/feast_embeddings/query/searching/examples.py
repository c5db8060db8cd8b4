"""The direction to search in for several examples, or for a vector that the caller brings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from feast_embeddings.arguments import Id
from feast_embeddings.engines.engine import PointId
from feast_embeddings.errors import OptionError
from feast_embeddings.query.collection import LiveCollection
from feast_embeddings.query.searching.likeness import Likeness

__all__ = ["Examples", "direction_of"]


class Examples:
    """What is like some examples and unlike others, in one direction.

    It is Qdrant's strategy ``average_vector``: ``mean(positive) + mean(positive) - mean(negative)`` of unit vectors, or
    the first mean alone without negative ones. Computed here in float64 from the vectors as trained, without the bias,
    so that all engines search in the same direction.

    Attributes:
        direction: float64, shape (dim,), of length 1; None if the version knows none of the positive examples.
        points: the known examples.
        missing: ids that the version does not know.

    Raises:
        OptionError: there is no positive example, or they cancel each other out.
    """

    def __init__(self, likeness: Likeness, positive: Sequence[Id], negative: Sequence[Id]) -> None:
        if not positive:
            raise OptionError("positive", "positive must have at least one id")
        ids = [*positive, *negative]
        found = likeness.points(ids, likeness.own)
        self.points: list[PointId] = list(dict.fromkeys(point.id for point in found if point is not None))
        self.missing = list(dict.fromkeys(id for id, point in zip(ids, found, strict=True) if point is None))
        vectors = likeness.live.matrix(found, likeness.own).astype(np.float64)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(lengths > 0, lengths, 1)
        known = np.array([point is not None for point in found])
        liked, disliked = (vectors[part][known[part]] for part in (np.s_[: len(positive)], np.s_[len(positive) :]))
        self.direction: npt.NDArray[np.float64] | None = None
        if len(liked):
            mean = liked.mean(axis=0)
            self.direction = _unit(
                2 * mean - disliked.mean(axis=0) if len(disliked) else mean,
                OptionError(
                    "positive", "these examples cancel each other out, so that no direction is left; use others"
                ),
            )


def direction_of(vector: npt.ArrayLike, live: LiveCollection) -> npt.NDArray[np.float64]:
    """Return a caller's vector as a direction, float64, shape (dim,), of length 1.

    Raises:
        OptionError: it is not `dim` finite numbers, or all are 0.
    """
    try:
        given = np.asarray(vector, dtype=np.float64)
    except (TypeError, ValueError):
        given = np.full(1, np.nan)
    expected = f"vector must be {live.dim} numbers, as version {live.spec.version} has in space {live.spec.space}"
    if given.shape != (live.dim,):
        raise OptionError(
            "vector", f"{expected}, got {len(given) if given.ndim == 1 else f'an array of {given.shape}'}"
        )
    if not np.isfinite(given).all():
        raise OptionError("vector", f"{expected}, got some that are not finite")
    # Divided first, as squares of large numbers are infinite, and of small ones 0.
    return _unit(
        given / max(np.abs(given).max(), np.finfo(np.float64).tiny),
        OptionError("vector", f"{expected}, got zeros only"),
    )


def _unit(direction: npt.NDArray[np.float64], if_none: OptionError) -> npt.NDArray[np.float64]:
    length = np.linalg.norm(direction)
    if length < 1e-9:
        raise if_none
    unit: npt.NDArray[np.float64] = direction / length
    return unit
