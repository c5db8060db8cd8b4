"""The rows of one side of a version, as the table of its view's batch source has them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import Any

import pyarrow as pa
from feast import FeatureView
from feast.data_source import DataSource

from feast_embeddings.artifact import Manifest
from feast_embeddings.artifact.seen import NEXT_TO_SEEN
from feast_embeddings.artifact.table_files import TableFiles
from feast_embeddings.errors import InputError
from feast_embeddings.model.sides import Side

__all__ = ["HistoryRows", "check_columns", "history_rows"]


@dataclass(frozen=True)
class HistoryRows:
    """What a table gets for a version.

    Attributes:
        columns: name in the version's files -> name in the table.
    """

    side: Side
    files: TableFiles
    version: str
    as_of: datetime
    columns: Mapping[str, str]

    @property
    def view(self) -> FeatureView:
        return self.side.view

    @property
    def source(self) -> DataSource:
        source = self.view.batch_source
        if source is None:
            raise InputError(f"feature view {self.view.name!r} has no batch source; run feast apply")
        return source

    @property
    def n(self) -> int:
        return self.files.num_rows

    @property
    def id(self) -> str:
        return self.columns[f"{self.side.entity}_id"]

    @cached_property
    def schema(self) -> pa.Schema:
        """The columns in the table; vectors have no fixed length there, as a retrain may change it."""
        fields = (self.files.schema.field(name) for name in self.columns)
        # Files name the values of a list in different ways.
        types = (pa.list_(f.type.value_type) if pa.types.is_nested(f.type) else f.type for f in fields)
        return pa.schema(list(zip(self.columns.values(), types, strict=True)))

    def batches(self, rows: int) -> Iterator[pa.RecordBatch]:
        """Yield all rows in batches of at most this size."""
        for batch in self.files.batches(list(self.columns), rows):
            arrays = [batch.column(name) for name in self.columns]
            cast = [array.cast(field.type) for array, field in zip(arrays, self.schema, strict=True)]
            yield pa.RecordBatch.from_arrays(cast, schema=self.schema)


def history_rows(side: Side, files: TableFiles, manifest: Manifest) -> HistoryRows:
    """Return the rows of a version for the table that its view reads."""
    rows = HistoryRows(side, files, manifest.version, manifest.as_of, {})
    source = rows.source
    of_feature = {feature: column for column, feature in source.field_mapping.items()}
    own = {"event_timestamp": source.timestamp_field, "created_timestamp": source.created_timestamp_column}
    names = [name for name in files.schema.names if name not in NEXT_TO_SEEN]
    in_view = zip(names, side.names(names), strict=True)
    columns = {name: own.get(name, of_feature.get(feature, feature)) for name, feature in in_view}
    return replace(rows, columns={name: to for name, to in columns.items() if to})


def check_columns(
    table: str, rows: HistoryRows, found: Mapping[str, Any], accepted: Mapping[pa.DataType, Sequence[Any]]
) -> None:
    """Check that a table has the columns of the rows, with types that hold their values.

    Args:
        found: column of the table -> its type.
        accepted: type of a column of the rows -> the types that the table may have for it, the best first.

    Raises:
        InputError: it has not; the message lists all columns that are missing or do not fit.
    """
    lacks = [f'"{field.name}" {accepted[field.type][0]}' for field in rows.schema if field.name not in found]
    others = [
        f'"{field.name}" is {found[field.name]}, not {" or ".join(map(str, accepted[field.type]))}'
        for field in rows.schema
        if field.name in found and found[field.name] not in accepted[field.type]
    ]
    wrong = [f"it lacks {', '.join(lacks)}"] if lacks else []
    if wrong := wrong + others:
        raise InputError(
            f"{table} cannot hold version {rows.version}: {'; '.join(wrong)}. Change the table, or publish with "
            "--history none. Nothing was changed"
        )
