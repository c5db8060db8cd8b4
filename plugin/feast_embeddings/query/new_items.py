"""New items as callers send them, as the table that fold-in reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from feast_embeddings.arguments import Id
from feast_embeddings.errors import InputError

__all__ = ["items_table"]


def items_table(items: Mapping[Id, Mapping[str, Any]]) -> pa.Table:
    """Return a table with a row for each item and a column for each attribute that one has.

    Raises:
        InputError: the values of an attribute have no common type.
    """
    names = dict.fromkeys(name for attributes in items.values() for name in attributes)
    if "item_id" in names:
        raise InputError("an item has an attribute 'item_id'; the id is the key of its attributes")
    columns: dict[str, pa.Array] = {"item_id": pa.array(list(items))}
    for name in names:
        try:
            columns[name] = pa.array([attributes.get(name) for attributes in items.values()])
        except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError) as error:
            raise InputError(f"the values of attribute {name!r:.80} have no common type: {error}") from None
    return pa.table(columns)
