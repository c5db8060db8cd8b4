"""Categories, lists of them, numbers and ready vectors as rows of numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.content.encoder import Encoder, State
from embedding_trainers.content.encoders.columns import lists_of, numbers_of, text_of, unit_rows, vectors_of
from embedding_trainers.content.spec import Kind
from embedding_trainers.extra import import_extra
from feast_embeddings.errors import InputError

__all__ = ["CategoryEncoder", "ListEncoder", "NumberEncoder", "PrecomputedEncoder"]

_MOST_VALUES = 4096
_KNOTS = 10
_Numbers = npt.NDArray[np.int64]


class ListEncoder(Encoder):
    """A column for each of the 4,096 most frequent values; a row has length 1, or 0 if it has none of them."""

    kind: ClassVar[Kind] = "list"

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        self._values: pa.Array = pa.array([], pa.large_string())

    def fit(self, column: pa.ChunkedArray) -> None:
        """Count the values."""
        counts = self._of_rows(column)[1].value_counts()
        counted = pa.table({"value": counts.field("values"), "n": counts.field("counts")})
        counted = counted.sort_by([("n", "descending"), ("value", "ascending")])
        self._values = counted["value"].combine_chunks()[:_MOST_VALUES]

    def encode(self, column: pa.ChunkedArray) -> Any:
        """See `Encoder`."""
        rows, values = self._of_rows(column)
        places = pc.index_in(values, value_set=self._values)
        known = places.is_valid()
        rows, places = rows[known.to_numpy(zero_copy_only=False)], places.drop_null().to_numpy()
        shape = len(column), len(self._values)
        matrix = import_extra("scipy.sparse").csr_matrix((np.ones(len(rows), np.float32), (rows, places)), shape=shape)
        matrix.sum_duplicates()
        matrix.data[:] = 1  # a value that a list holds twice counts once
        matrix.sort_indices()
        return unit_rows(matrix)

    def state(self) -> State:
        """The values, the most frequent first."""
        return {}, {"values": self._values}

    @classmethod
    def from_state(cls, settings: Mapping[str, Any], arrays: Mapping[str, pa.Array]) -> ListEncoder:
        """See `Encoder`."""
        restored = cls()
        restored._values = arrays["values"].cast(pa.large_string())
        return restored

    def _of_rows(self, column: pa.ChunkedArray) -> tuple[_Numbers, pa.Array]:
        return lists_of(column)


class CategoryEncoder(ListEncoder):
    """A column for each of the 4,096 most frequent values, 1 where a row has it."""

    kind = "category"

    def _of_rows(self, column: pa.ChunkedArray) -> tuple[_Numbers, pa.Array]:
        texts = text_of(column).combine_chunks()
        there = texts.is_valid()
        return np.flatnonzero(there.to_numpy(zero_copy_only=False)), texts.filter(there)


class NumberEncoder(Encoder):
    """How near a number is to each of ten quantiles: 1 at it, 0 at the next ones, straight in between.

    A linear map of these is any curve with bends at the quantiles, and outliers are as the last quantile. One more
    column says that there is no number.
    """

    kind = "number"

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        self._knots: npt.NDArray[np.float64] = np.empty(0)

    def fit(self, column: pa.ChunkedArray) -> None:
        """Find the quantiles."""
        numbers = numbers_of(column)
        there = numbers[~np.isnan(numbers)]
        self._knots = np.unique(np.quantile(there, np.linspace(0, 1, _KNOTS))) if len(there) else np.empty(0)

    def encode(self, column: pa.ChunkedArray) -> Any:
        """See `Encoder`."""
        numbers, knots = numbers_of(column), self._knots
        encoded = np.zeros((len(numbers), len(knots) + 1), np.float32)
        missing = np.isnan(numbers)
        encoded[missing, -1] = 1
        if not len(knots):
            return encoded
        place = np.interp(numbers[~missing], knots, np.arange(len(knots)))
        below = np.minimum(place.astype(np.int64), max(len(knots) - 2, 0))
        rows = np.flatnonzero(~missing)
        encoded[rows, below] = 1 - (place - below)
        if len(knots) > 1:
            encoded[rows, below + 1] = place - below
        return encoded

    def state(self) -> State:
        """The quantiles."""
        return {}, {"knots": pa.array(self._knots)}

    @classmethod
    def from_state(cls, settings: Mapping[str, Any], arrays: Mapping[str, pa.Array]) -> NumberEncoder:
        """See `Encoder`."""
        restored = cls()
        restored._knots = arrays["knots"].to_numpy()
        return restored


class PrecomputedEncoder(Encoder):
    """Vectors from elsewhere, at length 1."""

    kind = "vector"

    def __init__(self, model: str = "") -> None:
        super().__init__(model)
        self._dim = 0

    def fit(self, column: pa.ChunkedArray) -> None:
        """Take the length of the vectors."""
        self._dim = vectors_of(column).shape[1]

    def encode(self, column: pa.ChunkedArray) -> Any:
        """See `Encoder`."""
        vectors = vectors_of(column)
        if vectors.shape[1] != self._dim:
            if vectors.any():
                raise InputError(f"expected vectors of {self._dim} numbers as before, got {vectors.shape[1]}")
            vectors = np.zeros((len(column), self._dim), np.float32)
        return unit_rows(vectors)

    def state(self) -> State:
        """The length of the vectors."""
        return {"dim": self._dim}, {}

    @classmethod
    def from_state(cls, settings: Mapping[str, Any], arrays: Mapping[str, pa.Array]) -> PrecomputedEncoder:
        """See `Encoder`."""
        restored = cls()
        restored._dim = int(settings["dim"])
        return restored
