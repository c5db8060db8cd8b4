"""Attributes of users or items from a file, brought into the order of a vocabulary."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.source import missing_column, read_table
from embedding_trainers.vocabulary import as_ids
from feast_embeddings.artifact import normalise_attributes
from feast_embeddings.errors import InputError

__all__ = ["read_attributes"]


def read_attributes(path: Path, id_column: str, ids: pa.Array) -> pa.Table:
    """Read a table with one row per user or item.

    Ids are compared as text, so 7 in one file and "7" in the other are the same id. Rows of other ids are
    left out; ids without a row get nulls.

    Args:
        path: Parquet, CSV, JSON lines, or a folder of Parquet.
        id_column: the column of `path` that holds the ids.
        ids: the vocabulary, string or int64, shape (n,).

    Returns:
        The other columns of `path`, in the types that can be served; row i belongs to ids[i].

    Raises:
        InputError: the file cannot be read, an id is null or occurs twice, the file knows none of the ids,
            or a column cannot be served.
    """

    def select(names: list[str]) -> list[str]:
        if id_column not in names:
            raise missing_column(path, id_column, names)
        return names

    table = read_table(path, select=select, ids=(id_column,))
    what = f"{path}: column {id_column!r}"
    column = table[id_column].combine_chunks()
    if column.null_count:
        raise InputError(f"{what}: {column.null_count:,} of {len(column):,} rows have no id")
    keys = as_ids(column, what).cast(pa.string())
    distinct = pc.count_distinct(keys).as_py()
    if distinct != len(keys):
        counts = keys.value_counts()
        example = counts.field("values")[int(np.argmax(counts.field("counts").to_numpy()))]
        raise InputError(
            f"{what}: {len(keys) - distinct:,} of {len(keys):,} rows repeat an id, e.g. {example.as_py()!r}"
        )
    rows = pc.index_in(ids.cast(pa.string()), value_set=keys)
    if rows.null_count == len(rows):
        raise InputError(
            f"{what}: none of its ids (e.g. {keys[0].as_py()!r}) is among those of the interactions "
            f"(e.g. {ids[0].as_py()!r}); check that both files use the same ids"
        )
    return normalise_attributes(table.drop_columns([id_column]).take(rows), source=str(path))
