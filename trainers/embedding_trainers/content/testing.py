"""Tests that an encoder of another package can run on itself, with pytest::

    from embedding_trainers.content.testing import EncoderTests
    from my_package import MyEncoder


    class TestMine(EncoderTests):
        encoder = MyEncoder

Nothing here is needed for training, and pytest is not imported.
"""

from __future__ import annotations

import json
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_trainers.content.encoder import Encoder, state_hash
from embedding_trainers.content.spec import Kind

__all__ = ["EncoderTests", "example_column"]

_ROWS = 40
_LONGEST = 1.001


def example_column(kind: Kind) -> pa.ChunkedArray:
    """A column of a kind: 40 rows in two chunks, every seventh of them null, no two rows next to each other alike."""
    numbers = range(_ROWS)
    values: list[Any]
    if kind == "text":
        values = [f"{('red', 'blue', 'green')[n % 3]} {('lamp', 'chair')[n % 2]} of Älmhult" for n in numbers]
    elif kind == "category":
        values = [("red", "blue", "green")[n % 3] for n in numbers]
    elif kind == "list":
        values = [["red", "blue", "green"][: n % 4] for n in numbers]
    elif kind == "number":
        values = [float(n % 11) for n in numbers]
    elif kind == "image":
        # A header and one pixel: the smallest image that all decoders read.
        colours = ((255, 0, 0), (0, 0, 255), (0, 255, 0))
        values = [b"P6 1 1 255\n" + bytes(colours[n % 3]) for n in numbers]
    else:
        values = [[float(n % 3), 1.0, -0.5] for n in numbers]
    values = [None if n % 7 == 0 else value for n, value in enumerate(values)]
    dtype = pa.list_(pa.float32()) if kind == "vector" else None
    return pa.chunked_array([pa.array(values[:25], dtype), pa.array(values[25:], dtype)])


class EncoderTests:
    """What holds for every encoder. Subclass it, and set `encoder`.

    Attributes:
        encoder: the class under test.
        model: what it is to load, if it loads something.

    Stability: provisional, see docs/compatibility.md.
    """

    encoder: type[Encoder]
    model: ClassVar[str] = ""

    def test_shape(self) -> None:
        """Rows are float32 and finite, one for each value, and no longer than 1."""
        encoded = _dense(self._fitted().encode(self._column()))
        assert encoded.shape[0] == _ROWS, f"expected {_ROWS} rows, got {encoded.shape[0]}"
        assert encoded.dtype == np.float32, f"expected float32, got {encoded.dtype}"
        assert np.isfinite(encoded).all(), "NaN or infinity"
        longest = float(np.linalg.norm(encoded, axis=1).max())
        assert longest <= _LONGEST, f"a row is {longest:.3f} long; expected at most 1"

    def test_tells_values_apart(self) -> None:
        """Rows of equal values are equal, and rows of different ones are not all alike."""
        encoded = _dense(self._fitted().encode(self._column()))
        np.testing.assert_array_equal(encoded[0], encoded[7], "two nulls differ")
        assert len(np.unique(encoded, axis=0)) > 1, "all rows are alike"

    def test_rows_by_themselves(self) -> None:
        """A row's numbers do not depend on those it is encoded with, nor on their order."""
        fitted, column = self._fitted(), self._column()
        whole = _dense(fitted.encode(column))
        order = np.random.default_rng(1).permutation(_ROWS)
        for name, rows in (("in another order", order), ("a part", np.arange(3, 9))):
            part = _dense(fitted.encode(column.take(pa.array(rows))))
            np.testing.assert_allclose(part, whole[rows], rtol=0, atol=1e-6, err_msg=name)

    def test_nothing_to_encode(self) -> None:
        """No rows, and rows that are all null, are fitted and encoded as wide as others."""
        fitted, column = self._fitted(), self._column()
        wide = _dense(fitted.encode(column)).shape[1]
        nulls = pa.chunked_array([pa.nulls(3, column.type)])
        for rows in (column.slice(0, 0), nulls):
            assert _dense(fitted.encode(rows)).shape == (len(rows), wide)
            other = self.encoder(self.model)
            other.fit(rows)
            assert _dense(other.encode(rows)).shape[0] == len(rows)

    def test_round_trip(self) -> None:
        """What is restored from the state encodes the same to the bit, and its state is the same."""
        fitted, column = self._fitted(), self._column()
        settings, arrays = fitted.state()
        restored = self.encoder.from_state(json.loads(json.dumps(settings, allow_nan=False)), arrays)
        for rows in (column, column.slice(5, 9)):
            assert _dense(fitted.encode(rows)).tobytes() == _dense(restored.encode(rows)).tobytes(), "rows differ"
        assert state_hash(restored.state()) == state_hash((settings, arrays)), "the state differs"

    def test_fit_repeats(self) -> None:
        """The same column, whatever its order and chunks, gives the same state."""
        backwards = pa.chunked_array([self._column().take(pa.array(np.arange(_ROWS)[::-1])).combine_chunks()])
        other = self.encoder(self.model)
        other.fit(backwards)
        assert state_hash(other.state()) == state_hash(self._fitted().state()), "the state differs"

    def _column(self) -> pa.ChunkedArray:
        return example_column(self.encoder.kind)

    def _fitted(self) -> Encoder:
        fitted = self.encoder(self.model)
        fitted.fit(self._column())
        return fitted


def _dense(encoded: Any) -> npt.NDArray[np.float32]:
    dense: npt.NDArray[np.float32] = encoded.toarray() if hasattr(encoded, "toarray") else encoded
    return dense
