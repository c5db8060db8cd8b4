"""An array that grows at its end."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

# A block is above the size from which malloc returns memory to the system as soon as it is freed (at most 32 MiB).
_BLOCK_BYTES = 1 << 26


class GrowingArray:
    """Values that come in parts, and are never held twice."""

    def __init__(self, dtype: npt.DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._block_size = _BLOCK_BYTES // self._dtype.itemsize
        self._blocks: list[npt.NDArray[Any]] = []
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def append(self, values: npt.NDArray[Any]) -> None:
        """Append a copy of the values."""
        while len(values):
            start = self._size % self._block_size
            if not start:
                self._blocks.append(np.empty(self._block_size, self._dtype))
            part = values[: self._block_size - start]
            self._blocks[-1][start : start + len(part)] = part
            self._size += len(part)
            values = values[len(part) :]

    def joined(self) -> npt.NDArray[Any]:
        """All values in one array; this one is empty then."""
        joined = np.empty(self._size, self._dtype)
        while self._blocks:
            start = (len(self._blocks) - 1) * self._block_size
            joined[start : self._size] = self._blocks.pop()[: self._size - start]
            self._size = start
        return joined
