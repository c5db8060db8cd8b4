"""The file of a version whose users are computed by a network: its weights, and how the vectors were turned since."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

__all__ = ["NETWORK_FILE", "Network"]

NETWORK_FILE = "network.parquet"
_SCHEMA = pa.schema([("name", pa.string()), ("shape", pa.list_(pa.int64())), ("values", pa.list_(pa.float32()))])
_ROTATION = "rotation"

_Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Network:
    """What turns the history of a user into a vector, next to the vectors of the items.

    Attributes:
        weights: float32 arrays of any shape, by name, as learned; only the trainer understands them.
        rotation: float32, orthogonal, shape (dim, dim): the vectors next to it are the learned ones times this. None if
            they are as they were learned.
    """

    weights: Mapping[str, _Floats]
    rotation: _Floats | None = None

    def save(self, path: Path) -> None:
        """Write it, a row for each array."""
        arrays = {f"weights.{name}": values for name, values in self.weights.items()}
        if self.rotation is not None:
            arrays[_ROTATION] = self.rotation
        rows = [{"name": name, "shape": values.shape, "values": values.ravel()} for name, values in arrays.items()]
        pq.write_table(pa.Table.from_pylist(rows, _SCHEMA), path)

    @classmethod
    def load(cls, path: Path) -> Network:
        """Read what `save` wrote."""
        table = pq.read_table(path, schema=_SCHEMA)
        arrays = {
            name: values.values.to_numpy().astype(np.float32).reshape(shape)
            for name, shape, values in zip(
                table["name"].to_pylist(), table["shape"].to_pylist(), table["values"], strict=True
            )
        }
        rotation = arrays.pop(_ROTATION, None)
        return cls({name.removeprefix("weights."): values for name, values in arrays.items()}, rotation)
