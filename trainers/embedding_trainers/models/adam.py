"""Adam for vectors of length 1 (Kingma & Ba, ICLR 2015, arXiv:1412.6980)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["Directions"]

_BETA1, _BETA2, _EPSILON = np.float32(0.9), np.float32(0.999), np.float32(1e-8)  # the defaults of the paper

_Floats = npt.NDArray[np.float32]
_Rows = npt.NDArray[np.int64] | slice


class Directions:
    """Vectors of length 1, with Adam's two moments for each.

    A step follows the gradient along the sphere and returns to it. It changes the vectors and moments of its own rows
    only ("lazy" or sparse Adam).

    Args:
        vectors: float32, shape (n, dim), each of length 1; taken over.
    """

    def __init__(self, vectors: _Floats) -> None:
        self.vectors = vectors
        self._first_moment, self._second_moment = np.zeros_like(vectors), np.zeros_like(vectors)
        self._steps = 0

    def descend(self, rows: _Rows, gradient: _Floats, learning_rate: float) -> None:
        """Take a step of gradient descent.

        Args:
            rows: distinct.
            gradient: of the loss with respect to the vectors of these rows.
            learning_rate: length of the step.
        """
        vectors = self.vectors[rows]
        gradient = gradient - np.einsum("ij,ij->i", gradient, vectors)[:, None] * vectors
        first = _BETA1 * self._first_moment[rows] + (1 - _BETA1) * gradient
        second = _BETA2 * self._second_moment[rows] + (1 - _BETA2) * gradient * gradient
        self._steps += 1
        # Both moments start at 0, which this corrects.
        corrected = learning_rate * np.sqrt(1 - float(_BETA2) ** self._steps) / (1 - float(_BETA1) ** self._steps)
        moved = vectors - np.float32(corrected) * first / (np.sqrt(second) + _EPSILON)
        self.vectors[rows] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
        self._first_moment[rows], self._second_moment[rows] = first, second
