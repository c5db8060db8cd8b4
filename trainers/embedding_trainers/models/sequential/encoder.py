"""A causal transformer over items, written once for NumPy, which serves, and for torch, which trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["DEVIATION", "Arrays", "encode", "layers_of", "mask_of", "new_weights"]

_EPSILON = 1e-5
DEVIATION = 0.02  # of the first weights, as in GPT-2

_Floats = npt.NDArray[np.float32]


def _same(values: Any) -> Any:
    return values


@dataclass(frozen=True)
class Arrays:
    """What the two libraries call differently.

    Attributes:
        softmax: over an axis, its second argument.
        dropout: of values, in training.
    """

    softmax: Callable[[Any, int], Any]
    dropout: Callable[[Any], Any] = _same


def new_weights(rng: np.random.Generator, dim: int, length: int, layers: int) -> dict[str, _Floats]:
    """First weights: normal with a small deviation, biases 0, gains 1.

    Args:
        dim: of the vectors.
        length: how many items are looked at, at most.
        layers: how many times the items look at each other.
    """
    shapes: dict[str, tuple[int, ...]] = {"positions": (length, dim), "norm.gain": (dim,), "norm.shift": (dim,)}
    for layer in range(layers):
        for part in ("look", "think"):
            shapes[f"{layer}.{part}.gain"] = shapes[f"{layer}.{part}.shift"] = (dim,)
        for matrix in ("query", "key", "value", "out", "up", "down"):
            shapes[f"{layer}.{matrix}"], shapes[f"{layer}.{matrix}.bias"] = (dim, dim), (dim,)
    weights = {}
    for name, shape in shapes.items():
        if len(shape) > 1:
            weights[name] = rng.normal(0, DEVIATION, shape).astype(np.float32)
        else:
            weights[name] = np.full(shape, 1 if name.endswith("gain") else 0, np.float32)
    return weights


def layers_of(weights: Mapping[str, Any]) -> int:
    """How many layers the weights are of."""
    return sum(name.endswith("query") for name in weights)


def mask_of(is_item: npt.NDArray[np.bool_]) -> _Floats:
    """What is added before the softmax: 0 where an item may look, a large negative number where not.

    Args:
        is_item: shape (n, length): False where a history is shorter.

    Returns:
        float32, shape (n, length, length): who looks, and at what. All look at themselves, lest a row have nothing.
    """
    length = is_item.shape[1]
    may_look = np.tril(np.ones((length, length), bool)) & is_item[:, None, :] | np.eye(length, dtype=bool)
    return np.where(may_look, np.float32(0), np.float32(-1e9))


def encode(weights: Mapping[str, Any], items: Any, mask: Any, arrays: Arrays) -> Any:
    """The vector of each place of each history, of it and the items before it (SASRec: Kang & McAuley, ICDM 2018).

    Two residual steps a layer, each of what was normalised before it (Xiong et al., ICML 2020, arXiv:2002.04745):
    self-attention with one head, and two linear maps with a ReLU between. The newest item is at the last position,
    however short a history is.

    Args:
        weights: see `new_weights`, of the library of the other arguments.
        items: vectors, float32, shape (n, length, dim), the newest last; a shorter history is filled at its start.
        mask: see `mask_of`.
        arrays: NumPy's or torch's functions.

    Returns:
        float32, shape (n, length, dim).
    """
    length, dim = items.shape[1:]
    x = arrays.dropout(items * dim**0.5 + weights["positions"][-length:])
    for layer in range(layers_of(weights)):

        def linear(values: Any, name: str, layer: int = layer) -> Any:
            return values @ weights[f"{layer}.{name}"] + weights[f"{layer}.{name}.bias"]

        y = _normalised(x, weights, f"{layer}.look")
        queries, keys, values = (linear(y, name) for name in ("query", "key", "value"))
        attention = arrays.softmax(queries @ keys.swapaxes(1, 2) * dim**-0.5 + mask, -1)
        x = x + arrays.dropout(linear(arrays.dropout(attention) @ values, "out"))
        y = linear(_normalised(x, weights, f"{layer}.think"), "up")
        x = x + arrays.dropout(linear(arrays.dropout(y * (y > 0)), "down"))
    return _normalised(x, weights, "norm")


def _normalised(x: Any, weights: Mapping[str, Any], name: str) -> Any:
    """Layer normalisation (Ba, Kiros & Hinton, 2016, arXiv:1607.06450)."""
    centred = x - x.mean(axis=-1, keepdims=True)
    scale = ((centred * centred).mean(axis=-1, keepdims=True) + _EPSILON) ** -0.5
    return centred * scale * weights[f"{name}.gain"] + weights[f"{name}.shift"]
