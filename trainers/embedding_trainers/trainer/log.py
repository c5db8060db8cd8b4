"""The log that a trainer is given the matrix of: its size; and its interactions one by one, with attributes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pyarrow import feather

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["LogShape", "TrainingLog"]

_COLUMNS = ("user_rows", "item_columns", "weights", "times")


@dataclass(frozen=True)
class LogShape:
    """What a default may depend on.

    Attributes:
        n_users, n_items: those with an interaction.
        n_pairs: of a user and an item with an interaction.
        weight: summed, of all interactions.
    """

    n_users: int
    n_items: int
    n_pairs: int
    weight: float

    @classmethod
    def of(cls, user_items: csr_matrix) -> LogShape:
        """Take it from a matrix as trainers get it."""
        n_users, n_items = user_items.shape
        return cls(n_users, n_items, user_items.nnz, float(user_items.data.sum(dtype=np.float64)))


@dataclass(frozen=True)
class TrainingLog:
    """The n interactions whose weights the matrix sums up, in the order of their times, and what is known of its sides.

    What is held back for a test is in neither. Interactions of equal time are in the order of the log.

    Attributes:
        user_rows: int32, shape (n,): by which row of the matrix.
        item_columns: int32, shape (n,): about which column of the matrix.
        weights: float32, shape (n,), positive; None, which is 1 everywhere.
        times: int64 microseconds since 1970 UTC, shape (n,), ascending; None for a log without, whose order is kept.
        user_attributes: a row for each row of the matrix; None if there are none, as in `evaluate` and `compare`.
        item_attributes: the same for its columns.

    Stability: provisional, see docs/compatibility.md.
    """

    user_rows: npt.NDArray[np.int32]
    item_columns: npt.NDArray[np.int32]
    weights: npt.NDArray[np.float32] | None = None
    times: npt.NDArray[np.int64] | None = None
    user_attributes: pa.Table | None = None
    item_attributes: pa.Table | None = None

    def __len__(self) -> int:
        return len(self.user_rows)

    def by_time(self) -> TrainingLog:
        """The same in the order of the times, or as it is without."""
        if self.times is None or (self.times[1:] >= self.times[:-1]).all():
            return self
        return self._rows(np.argsort(self.times, kind="stable"))

    def of(self, users: npt.NDArray[np.integer], items: npt.NDArray[np.integer]) -> TrainingLog:
        """What belongs to these rows and columns of the matrix, numbered as ``matrix[users][:, items]`` is.

        Args:
            users: distinct rows of the matrix.
            items: distinct columns of it.
        """
        rows, columns = (
            _places(kept, numbers) for kept, numbers in ((users, self.user_rows), (items, self.item_columns))
        )
        kept = self._rows(np.flatnonzero((rows >= 0) & (columns >= 0)))
        return replace(
            kept,
            user_rows=_places(users, kept.user_rows),
            item_columns=_places(items, kept.item_columns),
            user_attributes=None if self.user_attributes is None else self.user_attributes.take(pa.array(users)),
            item_attributes=None if self.item_attributes is None else self.item_attributes.take(pa.array(items)),
        )

    def save(self, path: Path) -> None:
        """Write the interactions, in Arrow's file format, without attributes."""
        columns = (self.user_rows, self.item_columns, self.weights, self.times)
        named = {name: pa.array(values) for name, values in zip(_COLUMNS, columns, strict=True) if values is not None}
        feather.write_feather(pa.table(named), path, compression="uncompressed")

    @classmethod
    def load(cls, path: Path) -> TrainingLog:
        """Read what `save` wrote."""
        table = feather.read_table(path)
        return cls(**{name: table[name].to_numpy() for name in table.column_names})

    def _rows(self, chosen: npt.NDArray[np.integer]) -> TrainingLog:
        return replace(
            self,
            user_rows=self.user_rows[chosen],
            item_columns=self.item_columns[chosen],
            weights=None if self.weights is None else self.weights[chosen],
            times=None if self.times is None else self.times[chosen],
        )


def _places(kept: npt.NDArray[np.integer], numbers: npt.NDArray[np.int32]) -> npt.NDArray[np.int32]:
    """Where among those that are kept each number is; -1 for those that are not."""
    places = np.full(max(kept.max(initial=-1), numbers.max(initial=-1)) + 1, -1, np.int32)
    places[kept] = np.arange(len(kept), dtype=np.int32)
    found: npt.NDArray[np.int32] = places[numbers]
    return found
