"""Adam for vectors of length 1 (Kingma & Ba, ICLR 2015, arXiv:1412.6980)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Directions"]

_BETA1, _BETA2, _EPSILON = np.float32(0.9), np.float32(0.999), np.float32(1e-8)  # the defaults of the paper

_Floats = npt.NDArray[np.float32]
_Rows = npt.NDArray[np.int64] | slice


class Directions:
    """Vectors of which only the direction counts, with Adam's two moments for each.

    A step changes the vectors and moments of its own rows only ("lazy" or sparse Adam).

    Args:
        values: float32, shape (n, dim), no row of zeros; taken over.
    """

    def __init__(self, values: _Floats) -> None:
        self._values = values
        self._first_moment, self._second_moment = np.zeros_like(values), np.zeros_like(values)
        self._steps = 0

    @classmethod
    def at_random(cls, n: int, dim: int, rng: np.random.Generator) -> Directions:
        """Draw vectors evenly from the sphere."""
        return cls(rng.standard_normal((n, dim), dtype=np.float32) / np.float32(np.sqrt(dim)))

    def unit(self, rows: _Rows = slice(None)) -> _Floats:
        """The vectors, scaled to length 1."""
        values = self._values[rows]
        unit: _Floats = values / np.linalg.norm(values, axis=1, keepdims=True)
        return unit

    def descend(self, rows: _Rows, gradient: _Floats, learning_rate: float) -> None:
        """Take a step of gradient descent.

        Args:
            rows: distinct.
            gradient: of the loss with respect to the unit vectors of these rows.
            learning_rate: length of the step.
        """
        values = self._values[rows]
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        unit = values / lengths
        gradient = (gradient - np.einsum("ij,ij->i", gradient, unit)[:, None] * unit) / lengths
        first = _BETA1 * self._first_moment[rows] + (1 - _BETA1) * gradient
        second = _BETA2 * self._second_moment[rows] + (1 - _BETA2) * gradient * gradient
        self._steps += 1
        # Both moments start at 0, which this corrects.
        corrected = learning_rate * np.sqrt(1 - float(_BETA2) ** self._steps) / (1 - float(_BETA1) ** self._steps)
        self._values[rows] = values - np.float32(corrected) * first / (np.sqrt(second) + _EPSILON)
        self._first_moment[rows], self._second_moment[rows] = first, second
