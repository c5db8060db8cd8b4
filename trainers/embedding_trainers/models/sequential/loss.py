"""How torch trains the encoder: the cross entropy of the next item, descended by Adam."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from embedding_trainers.models.sequential.encoder import Arrays, encode, mask_of

__all__ = ["Learner", "torch_run"]

_Floats = npt.NDArray[np.float32]


@contextmanager
def torch_run(torch: Any, threads: int, seed: int, device: Any) -> Iterator[None]:
    """Give torch its threads and its randomness, and what it had back afterwards."""
    before = torch.get_num_threads()
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        torch.set_num_threads(threads or before)
        try:
            yield
        finally:
            torch.set_num_threads(before)


class Learner:
    """Weights and items that are being learned.

    Args:
        torch: the module.
        first: float32 arrays by name; ``items`` has the vectors, shape (n_items, dim), the others are the encoder's.
        device: of torch.
        learning_rate: of Adam.
        dropout: see `encode`.
        negatives: items drawn for each step; 0 takes all.
    """

    def __init__(
        self,
        torch: Any,
        first: Mapping[str, _Floats],
        device: Any,
        *,
        learning_rate: float,
        dropout: float,
        negatives: int,
    ) -> None:
        self._torch, self._device, self._negatives = torch, device, negatives
        self._weights = {
            name: torch.tensor(values, device=device, requires_grad=True) for name, values in first.items()
        }
        self._adam = torch.optim.Adam(self._weights.values(), lr=learning_rate)
        self._arrays = Arrays(torch.softmax, lambda values: torch.nn.functional.dropout(values, dropout))

    @property
    def learned(self) -> dict[str, _Floats]:
        """The arrays so far; copies, as on the CPU tensors share their memory."""
        return {name: values.detach().cpu().numpy().copy() for name, values in self._weights.items()}

    def step(self, histories: npt.NDArray[np.int64], rng: np.random.Generator) -> None:
        """Descend the loss of what follows each item of some histories.

        Args:
            histories: shape (n, length), -1 before the first item of a shorter one.
            rng: draws negatives.
        """
        torch, items = self._torch, self._weights["items"]
        inputs, targets = histories[:, :-1], histories[:, 1:]
        is_item = inputs >= 0
        numbers, mask, given = (torch.from_numpy(each).to(self._device) for each in (inputs, mask_of(is_item), is_item))
        # The index that fills shorter histories is any: nothing looks there.
        vectors = torch.nn.functional.embedding(numbers.clamp(min=0), items)
        found = encode(self._weights, vectors, mask, self._arrays)[given]
        wanted = torch.from_numpy(targets[is_item]).to(self._device)
        loss = self._cross_entropy(found, wanted, items, rng)
        self._adam.zero_grad()
        loss.backward()
        self._adam.step()

    def _cross_entropy(self, found: Any, wanted: Any, items: Any, rng: np.random.Generator) -> Any:
        torch, n_items = self._torch, len(items)
        if not 0 < self._negatives < n_items:
            return torch.nn.functional.cross_entropy(found @ items.T, wanted)
        drawn = torch.from_numpy(rng.choice(n_items, self._negatives, replace=False)).to(self._device)
        # The others stand for all that were not drawn, so that the denominator is right in the mean.
        others = found @ items[drawn].T + float(np.log((n_items - 1) / self._negatives))
        others = others.masked_fill(drawn == wanted[:, None], -torch.inf)
        own = (found * items[wanted]).sum(axis=1, keepdims=True)
        return (torch.logsumexp(torch.cat([own, others], dim=1), dim=1) - own[:, 0]).mean()
