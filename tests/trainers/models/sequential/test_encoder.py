"""The transformer in NumPy against loops, a history at a time; and against torch where it is installed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy.special import softmax

from embedding_trainers.models.sequential.encoder import Arrays, encode, layers_of, mask_of, new_weights

DIM, LENGTH, LAYERS = 6, 5, 2
NUMPY = Arrays(softmax)


@pytest.fixture
def weights(rng: np.random.Generator) -> dict[str, np.ndarray[Any, Any]]:
    first = new_weights(rng, DIM, LENGTH, LAYERS)
    return {name: (values + rng.normal(0, 0.3, values.shape)).astype(np.float32) for name, values in first.items()}


def normalised(x: list[float], gain: Any, shift: Any) -> list[float]:
    mean = sum(x) / len(x)
    variance = sum((value - mean) ** 2 for value in x) / len(x)
    return [(value - mean) / math.sqrt(variance + 1e-5) * g + s for value, g, s in zip(x, gain, shift, strict=True)]


def linear(x: list[float], matrix: Any, bias: Any) -> list[float]:
    return [sum(x[i] * matrix[i][j] for i in range(len(x))) + bias[j] for j in range(len(bias))]


def by_loops(weights: dict[str, Any], history: Any) -> list[list[float]]:
    w = {name: values.tolist() for name, values in weights.items()}
    n = len(history)
    rows = [
        [value * math.sqrt(DIM) + position for value, position in zip(item, place, strict=True)]
        for item, place in zip(history.tolist(), w["positions"][LENGTH - n :], strict=True)
    ]
    for layer in range(LAYERS):
        own = {name.removeprefix(f"{layer}."): values for name, values in w.items() if name.startswith(f"{layer}.")}
        looked = [normalised(x, own["look.gain"], own["look.shift"]) for x in rows]
        queries, keys, values = (
            [linear(x, own[name], own[f"{name}.bias"]) for x in looked] for name in ("query", "key", "value")
        )
        attended = []
        for place in range(n):
            logits = [
                sum(a * b for a, b in zip(queries[place], keys[other], strict=True)) / math.sqrt(DIM)
                for other in range(place + 1)
            ]
            shares = [math.exp(logit - max(logits)) for logit in logits]
            mixed = [
                sum(share * values[other][d] for other, share in enumerate(shares)) / sum(shares) for d in range(DIM)
            ]
            attended.append(linear(mixed, own["out"], own["out.bias"]))
        rows = [[a + b for a, b in zip(x, more, strict=True)] for x, more in zip(rows, attended, strict=True)]
        for x in rows:
            up = linear(normalised(x, own["think.gain"], own["think.shift"]), own["up"], own["up.bias"])
            down = linear([max(0.0, value) for value in up], own["down"], own["down.bias"])
            x[:] = [a + b for a, b in zip(x, down, strict=True)]
    return [normalised(x, w["norm.gain"], w["norm.shift"]) for x in rows]


def padded(histories: list[Any]) -> tuple[Any, Any]:
    longest = max(map(len, histories))
    items, is_item = np.zeros((len(histories), longest, DIM), np.float32), np.zeros((len(histories), longest), bool)
    for row, history in enumerate(histories):
        items[row, longest - len(history) :], is_item[row, longest - len(history) :] = history, True
    return items, is_item


def test_against_loops(weights: dict[str, Any], rng: np.random.Generator) -> None:
    """Each place of each history, whatever stands next to it in the batch, and before its first item."""
    histories = [rng.normal(size=(n, DIM)).astype(np.float32) for n in (3, 1, 5, 2)]
    items, is_item = padded(histories)

    found = encode(weights, items, mask_of(is_item), NUMPY)

    assert layers_of(weights) == LAYERS
    assert found.dtype == np.float32
    for row, history in enumerate(histories):
        np.testing.assert_allclose(found[row, -len(history) :], by_loops(weights, history), rtol=2e-4, atol=2e-5)
    items[~is_item] = 99
    np.testing.assert_array_equal(encode(weights, items, mask_of(is_item), NUMPY)[is_item], found[is_item])


def test_nobody_sees_what_comes_later(weights: dict[str, Any], rng: np.random.Generator) -> None:
    """Another newest item changes the last vector alone."""
    items = rng.normal(size=(1, 4, DIM)).astype(np.float32)
    mask = mask_of(np.ones((1, 4), bool))
    before = encode(weights, items, mask, NUMPY)
    items[0, -1, 0] += 1

    after = encode(weights, items, mask, NUMPY)

    np.testing.assert_array_equal(before[0, :-1], after[0, :-1])
    assert np.abs(before[0, -1] - after[0, -1]).max() > 0.01


def test_torch_computes_the_same(weights: dict[str, Any], rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch", reason="the extra torch is not installed")
    items, is_item = padded([rng.normal(size=(n, DIM)).astype(np.float32) for n in (3, 1, 5)])
    tensors = {name: torch.from_numpy(values) for name, values in weights.items()}

    found = encode(tensors, torch.from_numpy(items), torch.from_numpy(mask_of(is_item)), Arrays(torch.softmax)).numpy()

    expected = encode(weights, items, mask_of(is_item), NUMPY)
    np.testing.assert_allclose(found[is_item], expected[is_item], rtol=1e-4, atol=1e-5)
