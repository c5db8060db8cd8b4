"""The weights of what a user has seen, in a point's payload: no feature, so that views do not change with the log.

The key is absent where all weights are 1. The value is the float32 numbers, little-endian, in base64, in the order of
the seen items; Qdrant's library looks at every element of a list.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.artifact.seen import SEEN, SEEN_WEIGHTS, misfit
from feast_embeddings.codec.rows import PointCodec
from feast_embeddings.errors import InputError

__all__ = ["WEIGHTS_KEY", "encode_weights", "has_weights", "packed", "unpacked"]

WEIGHTS_KEY = "_seen_weights"
_FLOAT = np.dtype("<f4")


def has_weights(codec: PointCodec, columns: Sequence[str]) -> bool:
    """Return whether rows with these columns have weights of what was seen."""
    return codec.versioned and SEEN in codec.types and SEEN in columns and SEEN_WEIGHTS in columns


def encode_weights(codec: PointCodec, batch: pa.RecordBatch) -> list[str | None]:
    """Encode the weights of some rows; None for a row without.

    Raises:
        InputError: they do not fit the items.
    """
    lists, seen = batch.column(SEEN_WEIGHTS), batch.column(SEEN)
    # A version without weights has nulls, where its table was joined with the table of one with weights.
    given = lists.is_valid()
    if found := misfit(SEEN_WEIGHTS, lists.filter(given), seen.filter(given)):
        row = pc.indices_nonzero(given)[found[0]].as_py()
        id = batch.column(codec.view.entity_columns[0].name)[row].as_py()
        raise InputError(
            f"feature view {codec.view.name!r}: the row of {id!r}, column {SEEN_WEIGHTS!r}: {found[1]}; correct it"
        )
    values = lists.flatten().to_numpy(zero_copy_only=False)
    ends = np.cumsum(pc.list_value_length(lists).fill_null(0).to_numpy())
    starts = np.append(0, ends[:-1])
    rows = zip(starts.tolist(), ends.tolist(), given.to_pylist(), strict=True)
    return [packed(values[start:end]) if there else None for start, end, there in rows]


def packed(weights: Any) -> str:
    """Encode the weights of one user, shape (n,)."""
    return base64.b64encode(np.asarray(weights, _FLOAT).tobytes()).decode()


def unpacked(payload: Mapping[str, Any], n: int) -> list[float]:
    """Return the weights of the `n` items that a user has seen."""
    stored = payload.get(WEIGHTS_KEY)
    return [1.0] * n if stored is None else np.frombuffer(base64.b64decode(stored), _FLOAT).tolist()
