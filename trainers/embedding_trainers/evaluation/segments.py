"""Parts of the test users."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.errors import InputError

__all__ = ["ACTIVITY", "by_activity", "by_value"]

ACTIVITY = "activity"
MAX_SEGMENTS = 50

Masks = dict[str, npt.NDArray[np.bool_]]


def by_activity(n_seen: npt.NDArray[np.int64]) -> Masks:
    """Split users by the number of items that they had in training; see `evaluate_in_detail`."""
    few, many = np.quantile(n_seen, [0.25, 0.75], method="inverted_cdf")
    masks = {
        "new": n_seen <= few,
        "regular": (n_seen > few) & (n_seen < many),
        "heavy": (n_seen >= many) & (n_seen > few),
    }
    return {name: mask for name, mask in masks.items() if mask.any()}


def by_value(name: str, values: pa.Array) -> Masks:
    """Split users by an attribute.

    Raises:
        InputError: it is a list or the like, or has more than 50 values.
    """
    if pa.types.is_nested(values.type):
        raise InputError(f"segments by {name!r}: a user must have one value, but the type is {values.type}")
    distinct = pc.unique(values)
    if len(distinct) > MAX_SEGMENTS:
        raise InputError(
            f"segments by {name!r}: {len(distinct):,} different values among the test users, expected at most "
            f"{MAX_SEGMENTS}; group them first"
        )
    texts = pc.fill_null(values.cast(pa.string()), "missing").to_numpy(zero_copy_only=False)
    return {str(text): texts == text for text in sorted(set(texts))}
