"""The column of ids in tables that users bring: its name, and its values in the type of a model's ids."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
from pandas.api.types import is_bool_dtype, is_float_dtype, is_object_dtype, is_string_dtype

from feast_embeddings.artifact.table import WHOLE_NUMBER, Entity
from feast_embeddings.errors import InputError

__all__ = ["id_column_in", "id_names", "typed_ids"]


def id_names(entity: Entity, own_name: str | None, join_key: str | None = None) -> tuple[str, ...]:
    """Return the names that the column may have: the users' own, if there is one, and the join key.

    Without a join key that is ``user_id`` or ``item_id``.
    """
    join_key = join_key or f"{entity}_id"
    return tuple(dict.fromkeys((own_name or join_key, join_key)))


def id_column_in(columns: Collection[str], names: tuple[str, ...], where: str) -> str | None:
    """Return the one of the names that is a column; None if there is none.

    Raises:
        InputError: both are; the message calls the table `where`.
    """
    found = [name for name in names if name in columns]
    if len(found) > 1:
        raise InputError(f"{where} has two columns of ids, {found[0]!r} and {found[1]!r}; drop one of them")
    return found[0] if found else None


def typed_ids(column: pd.Series[Any], is_text: bool, name: str) -> pa.Array:
    """Convert ids to Arrow text or int64: whole numbers may come as text (from a CSV file) and the reverse.

    Raises:
        InputError: the column holds other values; the message calls it `name`.
    """
    column = column.infer_objects()
    # pandas stores a column without ids as NaN, and whole numbers with missing values as floats.
    is_real = is_float_dtype(column.dtype) and not column.isna().all()
    if is_bool_dtype(column.dtype) or (is_real and (is_text or not _whole(column).all())):
        kind = "true and false" if is_bool_dtype(column.dtype) else "real numbers"
        row = int(np.argmax(column.notna())) if is_text or kind != "real numbers" else int(np.argmin(_whole(column)))
        raise InputError(
            f"{name} holds {kind}, as {column.iloc[row]!s} in row {row + 1}; expected "
            f"{'text' if is_text else 'whole numbers'}"
        )
    try:
        if not is_text:
            _refuse_other_spellings(column, name)
        ids = column.astype("string" if is_text else "Int64")
        return pa.array(ids.array, pa.string() if is_text else pa.int64())
    except (ValueError, TypeError) as error:
        kind = "text" if is_text else "whole numbers"
        raise InputError(f"{name}: the ids of this model are {kind}: {error}") from None


def _refuse_other_spellings(column: pd.Series[Any], name: str) -> None:
    """Refuse text that pandas reads as a whole number in an unusual spelling: 007, 1_0, ７."""
    if not (is_object_dtype(column.dtype) or is_string_dtype(column.dtype)):
        return
    texts = column.reset_index(drop=True)
    texts = texts[[isinstance(value, str) for value in texts]]
    other = texts[~texts.astype("string").str.fullmatch(WHOLE_NUMBER).astype(bool)]
    if len(other):
        raise InputError(
            f"{name}: the ids of this model are whole numbers, but row {other.index[0] + 1} has {other.iloc[0]!r}"
        )


def _whole(column: pd.Series[Any]) -> npt.NDArray[np.bool_]:
    """Return which values are whole numbers, or missing."""
    numbers = column.to_numpy(dtype=np.float64, na_value=np.nan)
    # Beyond 2^53, not every whole number is a float.
    whole: npt.NDArray[np.bool_] = np.isnan(numbers) | ((np.abs(numbers) < 2.0**53) & (numbers == np.round(numbers)))
    return whole
