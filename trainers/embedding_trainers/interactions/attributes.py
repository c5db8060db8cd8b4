"""Attributes of users or items from a file, brought into the order of a vocabulary."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.artifact import normalise_attributes
from feast_embeddings.artifact.id_column import id_column_in
from feast_embeddings.errors import InputError
from feast_embeddings.reading import ColumnType, Source, missing_column, read_table, source_name

__all__ = ["read_attributes"]


def read_attributes(
    source: Source, id_names: tuple[str, ...], ids: pa.Array, types: Mapping[str, ColumnType] | None = None
) -> tuple[pa.Table, int]:
    """Read a table with one row per user or item.

    Ids are compared as text, so 7 in one file and "7" in the other are the same id. Rows of other ids are
    left out; ids without a row get nulls.

    Args:
        source: a file, a folder or a glob, or another one of docs/input.md.
        id_names: the names that the column of ids may have; `source` has one of them.
        ids: the vocabulary, string or int64, shape (n,).
        types: what columns are to be; the others as they are, or as they look in CSV.

    Returns:
        The other columns of `source`, in the types that can be served; row i belongs to ids[i]. And how many rows of
        the file are of other ids.

    Raises:
        InputError: the file cannot be read, an id is null or occurs twice, the file knows none of the ids,
            or a column cannot be served.
    """
    if types is not None:
        types = {name: wanted for name, wanted in types.items() if name not in id_names}
    path = source_name(source)
    table = read_table(source, ids=id_names, types=types)
    id_column = id_column_in(table.column_names, id_names, str(path))
    if id_column is None:
        raise missing_column(path, id_names[0], table.column_names)
    what = f"{path}: column {id_column!r}"
    keys = table[id_column].combine_chunks()
    if not len(keys):
        raise InputError(f"{path} has no rows")
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
    # In the order of the file, which errors count in.
    attributes = normalise_attributes(table.drop_columns([id_column]), source=str(path)).take(rows)
    return attributes, len(keys) - (len(rows) - rows.null_count)
