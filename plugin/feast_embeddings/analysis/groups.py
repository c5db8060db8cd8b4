"""Groups of users or items that are given: by an attribute, or by a table of ids and groups."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.artifact import Entity
from feast_embeddings.errors import InputError
from feast_embeddings.reading import read_table

__all__ = ["file_entity", "is_file", "labels_from_file", "labels_of"]

_COLUMNS = ("cohort", "segment")


def is_file(by: str) -> bool:
    """Return whether what an option names is a table, and no attribute."""
    return Path(by).suffix in (".parquet", ".csv") or Path(by).exists()


def labels_of(column: pa.Array, option: str, name: str) -> pa.Array:
    """Return the group of each value of an attribute as text, null for none; of times the month.

    Raises:
        InputError: the values are no groups.
    """
    if pa.types.is_timestamp(column.type):
        return pc.strftime(column, format="%Y-%m")
    if pa.types.is_list(column.type) or pa.types.is_floating(column.type):
        what = "lists" if pa.types.is_list(column.type) else "numbers with a fraction"
        raise InputError(f"{option} {name!r}: {what} are no cohorts; give each id one in a file")
    return column.cast(pa.string())


def file_entity(path: str) -> Entity:
    """Return whose groups a table has: the users', unless it has ids of items alone."""
    columns = read_table(path).column_names
    return "item" if "item_id" in columns and "user_id" not in columns else "user"


def labels_from_file(path: str, option: str, entity: Entity, ids: pa.Array) -> pa.Array:
    """Return the group of each id as text, null for none: from a table's column ``cohort`` or ``segment``.

    Raises:
        InputError: the table lacks a column, has an id twice, or has none of the ids.
    """
    id_name = f"{entity}_id"
    table = read_table(path, ids=(id_name,))
    names = [name for name in _COLUMNS if name in table.column_names]
    if id_name not in table.column_names or not names:
        raise InputError(
            f"{option} {path}: expected the columns {id_name} and cohort (or segment); there are "
            f"{', '.join(table.column_names)}"
        )
    known = table[id_name].combine_chunks()
    if pc.count_distinct(known).as_py() != len(known):
        raise InputError(f"{option} {path}: an id occurs twice; give each one cohort")
    places = pc.index_in(ids.cast(pa.string()), value_set=known)
    if places.null_count == len(places):
        raise InputError(f"{option} {path}: none of its ids is a known {entity} with a vector")
    return table[names[0]].combine_chunks().cast(pa.string()).take(places)
