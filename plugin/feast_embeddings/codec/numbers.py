"""Numbers in payloads: which ones survive Qdrant's JSON exactly, and a second form for the others."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt
from feast import ValueType

__all__ = ["EXACT", "float_bits", "float_payload", "from_bits", "json_exact"]

# Prefix of the payload key of the exact form of a value.
EXACT = "_exact_"


def json_exact(values: npt.ArrayLike, value_type: ValueType) -> npt.NDArray[np.bool_]:
    """Return which floats come back from a payload as written; of any shape, FLOAT or DOUBLE.

    Qdrant reads its JSON with serde_json, which is off by one in the last place for many numbers of 16 or more digits.
    That does not matter for float32; float64 numbers of at most 15 digits and 6 decimals are safe.
    """
    floats = np.asarray(values, dtype=np.float64)
    if value_type == ValueType.FLOAT:
        return np.asarray(np.isfinite(floats))
    with np.errstate(over="ignore", invalid="ignore"):
        millionths = np.rint(floats * 1e6)
        return np.asarray((np.abs(millionths) < 1e15) & (millionths / 1e6 == floats))


def float_bits(values: npt.ArrayLike) -> list[int]:
    """Return the bits of float64 numbers as int64, which JSON holds exactly."""
    return list(np.atleast_1d(np.asarray(values, dtype=np.float64)).view(np.int64).tolist())


def float_payload(
    name: str, floats: npt.NDArray[np.floating[Any]], present: npt.NDArray[np.bool_], value_type: ValueType
) -> dict[str, list[Any]]:
    """Convert a column of floats to payload values; None if a row lacks the key.

    Args:
        present: which rows have a value; the numbers of the others are not finite.
    """
    keys: dict[str, list[Any]] = {name: floats.tolist()}
    if not (finite := np.isfinite(floats)).all():
        keys[name] = [value if is_finite else None for value, is_finite in zip(keys[name], finite, strict=True)]
    if not (exact := json_exact(floats, value_type) | ~present).all():
        bits = float_bits(floats)
        keys[EXACT + name] = [None if is_exact else value for value, is_exact in zip(bits, exact, strict=True)]
    return keys


def from_bits(bits: int) -> float:
    """Return the float64 of these bits; the inverse of `float_bits`."""
    return float(struct.unpack("<d", struct.pack("<q", bits))[0])
