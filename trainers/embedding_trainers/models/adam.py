"""Directions, the lengths of which do not matter, learned by Adam."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Directions"]

_MEMORY, _SQUARE_MEMORY, _SMALL = np.float32(0.9), np.float32(0.999), np.float32(1e-8)

_Floats = npt.NDArray[np.float32]
_Rows = npt.NDArray[np.int64] | slice


class Directions:
    """Vectors of which only the direction counts, and what Adam (arXiv:1412.6980) remembers of each.

    A row that is not asked for is not touched, nor is what is remembered of it ("lazy" Adam).

    Args:
        values: float32, shape (n, dim), no row of zeros; taken over.
    """

    def __init__(self, values: _Floats) -> None:
        self._values, self._mean, self._square = values, np.zeros_like(values), np.zeros_like(values)
        self._steps = 0

    @classmethod
    def at_random(cls, n: int, dim: int, rng: np.random.Generator) -> Directions:
        """Evenly over the sphere."""
        return cls(rng.standard_normal((n, dim), dtype=np.float32) / np.float32(np.sqrt(dim)))

    def unit(self, rows: _Rows = slice(None)) -> _Floats:
        """Vectors of length 1."""
        values = self._values[rows]
        unit: _Floats = values / np.linalg.norm(values, axis=1, keepdims=True)
        return unit

    def descend(self, rows: _Rows, gradient: _Floats, rate: float) -> None:
        """Take a step.

        Args:
            rows: distinct.
            gradient: by the unit vectors of these rows.
            rate: of a step.
        """
        values = self._values[rows]
        lengths = np.linalg.norm(values, axis=1, keepdims=True)
        unit = values / lengths
        gradient = (gradient - np.einsum("ij,ij->i", gradient, unit)[:, None] * unit) / lengths
        mean = _MEMORY * self._mean[rows] + (1 - _MEMORY) * gradient
        square = _SQUARE_MEMORY * self._square[rows] + (1 - _SQUARE_MEMORY) * gradient * gradient
        self._steps += 1
        corrected = rate * np.sqrt(1 - float(_SQUARE_MEMORY) ** self._steps) / (1 - float(_MEMORY) ** self._steps)
        self._values[rows] = values - np.float32(corrected) * mean / (np.sqrt(square) + _SMALL)
        self._mean[rows], self._square[rows] = mean, square
