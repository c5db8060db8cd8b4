"""Attributes of users or items from a file, brought into the order of a vocabulary."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.artifact import normalise_attributes
from feast_embeddings.artifact.ids import id_column_in
from feast_embeddings.errors import InputError
from feast_embeddings.reading import ColumnType, Source, missing_column, read_table, source_name

__all__ = ["AttributeFile", "read_attribute_file", "read_attributes"]


@dataclass(frozen=True)
class AttributeFile:
    """A table with one row per user or item.

    Attributes:
        name: of the file, in errors.
        ids: distinct, as text, shape (n,).
        columns: the others, as they were read; row i belongs to ids[i].
        folder: that it is in, if it is a file on this machine.
        doubts: sentences about columns whose type may not be what is meant.
    """

    name: str
    ids: pa.Array
    columns: pa.Table
    folder: Path | None = None
    doubts: Sequence[str] = ()

    def rows_of(self, ids: pa.Array) -> pa.Array:
        """The row of each of these ids, null where there is none. Ids are compared as text.

        Raises:
            InputError: there is a row for none of them.
        """
        rows = pc.index_in(ids.cast(pa.string()), value_set=self.ids)
        if rows.null_count == len(rows):
            raise InputError(
                f"{self.name}: none of its ids (e.g. {self.ids[0].as_py()!r}) is in the interactions "
                f"(e.g. {ids[0].as_py()!r}); check that both files use the same ids"
            )
        return rows

    def cut_times(self) -> list[str]:
        """The columns of times with fractions of a second, which `served` cuts off."""
        return [
            name
            for name, column in zip(self.columns.column_names, self.columns.columns, strict=True)
            if pa.types.is_timestamp(column.type) and pc.any(pc.greater(pc.subsecond(column), 0)).as_py()
        ]

    def served(self, leave_out: Collection[str] = ()) -> pa.Table:
        """The columns in the types that can be served, but for those left out; in the order of the file.

        Raises:
            InputError: one cannot be served.
        """
        # Errors count rows in the order of the file.
        kept = [name for name in self.columns.column_names if name not in leave_out]
        return normalise_attributes(self.columns.select(kept), source=self.name)


def read_attribute_file(
    source: Source, id_names: tuple[str, ...], types: Mapping[str, ColumnType] | None = None
) -> AttributeFile:
    """Read a table with one row per user or item.

    Args:
        source: a file, a folder or a glob, or another one of docs/input.md.
        id_names: the names that the column of ids may have; `source` has one of them.
        types: what columns are to be; the others as they are, or as they look in CSV.

    Raises:
        InputError: the file cannot be read, has no rows, or an id is null or occurs twice.
    """
    if types is not None:
        types = {name: wanted for name, wanted in types.items() if name not in id_names}
    path = source_name(source)
    doubts: list[str] = []
    table = read_table(source, ids=id_names, types=types, doubts=doubts)
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
    folder = Path(source).parent if isinstance(source, (str, Path)) and Path(source).is_file() else None
    return AttributeFile(str(path), keys, table.drop_columns([id_column]), folder, doubts)


def read_attributes(
    source: Source, id_names: tuple[str, ...], ids: pa.Array, types: Mapping[str, ColumnType] | None = None
) -> tuple[pa.Table, int]:
    """Read the attributes of these users or items; rows of other ids are left out, ids without a row get nulls.

    Args:
        source, id_names, types: see `read_attribute_file`.
        ids: the vocabulary, string or int64, shape (n,).

    Returns:
        The columns, in the types that can be served; row i belongs to ids[i]. And how many rows of the file are of
        other ids.

    Raises:
        InputError: the file cannot be used, knows none of the ids, or a column cannot be served.
    """
    file = read_attribute_file(source, id_names, types)
    rows = file.rows_of(ids)
    return file.served().take(rows), len(file.ids) - (len(rows) - rows.null_count)
