"""Which dimensions carry a cosine: the vectors' axes after a varimax rotation, and who is far out on each.

A rotation keeps every cosine, so that a cosine is the sum of one product for each rotated dimension. Varimax (Kaiser,
Psychometrika 1958) turns the axes so that each vector is on few of them, which makes the parts few and large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from feast_embeddings.analysis.members import Members
from feast_embeddings.analysis.traits import Values, attribute_values, traits_of

__all__ = ["Dimension", "carrying", "varimax"]

Matrix = npt.NDArray[np.float64]

# Rows that the rotation is found on: more change it little, and take longer.
_SAMPLE = 2_000
_TURNS = 200
_TOLERANCE = 1e-7
# The share of all that is far out on a dimension, and names its end.
_FAR = 0.05
_IN_NAME = 2


@dataclass(frozen=True)
class Dimension:
    """A rotated dimension, and what it adds to the cosine of two.

    Attributes:
        number: from 1, by the variance of the sample along it, the largest first.
        name: the attribute values that set those apart who are farthest out, on the side where the two are.
        adds: the product of the two's coordinates; all dimensions together sum to the cosine.
    """

    number: int
    name: str
    adds: float


def carrying(members: Members, first: int, second: int, n: int, seen: Sequence[Values] = ()) -> list[Dimension]:
    """Return the n dimensions that carry most of the cosine of two rows, by size, the largest first.

    The rotation is found on a sample of 2,000 members, the same for the same members.

    Args:
        seen: what users have seen, to name dimensions by.
    """
    rotation = _rotation(members.unit)
    turned = members.unit @ rotation.astype(np.float32)
    one, other = (members.unit[row].astype(np.float64) @ rotation for row in (first, second))
    adds = one * other
    largest = np.argsort(-np.abs(adds), kind="stable")[:n]
    far = max(2, round(_FAR * len(members)))
    found = []
    for dimension in largest.tolist():
        # Of two on opposite sides, the side of the first.
        order = np.argsort(-turned[:, dimension] * np.sign(one[dimension] or 1.0), kind="stable")[:far]
        found.append(Dimension(dimension + 1, _name(members, order, seen), float(adds[dimension])))
    return found


def varimax(x: Matrix) -> Matrix:
    """Return the orthogonal matrix that rotates the columns of x to the highest varimax criterion found.

    The criterion is the sum over columns of the variance of the squares (Kaiser, 1958), raised by singular value
    decompositions until it does not grow.

    Args:
        x: shape (n, dim).

    Returns:
        shape (dim, dim).
    """
    rotation, before = np.eye(x.shape[1]), 0.0
    for _ in range(_TURNS):
        turned = x @ rotation
        left, singular, right = np.linalg.svd(x.T @ (turned**3 - turned * (turned**2).mean(axis=0)))
        rotation = left @ right
        if singular.sum() <= before * (1 + _TOLERANCE):
            break
        before = float(singular.sum())
    return rotation


def _rotation(unit: npt.NDArray[np.float32]) -> Matrix:
    rows = np.random.default_rng(0).permutation(len(unit))[:_SAMPLE]
    sample = unit[np.sort(rows)].astype(np.float64)
    rotation = varimax(sample)
    order = np.argsort(-(sample @ rotation).var(axis=0), kind="stable")
    return np.ascontiguousarray(rotation[:, order])


def _name(members: Members, far: npt.NDArray[np.int64], seen: Sequence[Values]) -> str:
    """Name these rows by what sets them apart from the others, or by the first of them if nothing does."""
    groups = np.ones(len(members), np.int64)
    groups[far] = 0
    traits, _ = traits_of(groups, 2, chain(attribute_values(members), seen))
    names = [str(trait) for trait in traits] or [str(id) for id in members.ids.take(far[:_IN_NAME]).to_pylist()]
    return ", ".join(names[:_IN_NAME])
