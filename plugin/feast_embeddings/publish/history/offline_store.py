"""A history in any other table, which Feast's offline store writes: BigQuery, Snowflake, Redshift, Spark and others."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureStore

from feast_embeddings._feast.offline_store import (
    append_rows,
    cast_rows,
    first_line,
    rows_at,
    source_schema,
    why_no_append,
)
from feast_embeddings.artifact.attributes import TIMESTAMP
from feast_embeddings.errors import EngineError, InputError
from feast_embeddings.publish.history.rows import HistoryRows, check_columns

__all__ = ["OfflineStoreTable"]

# Each write is a job of the store, as its warehouse loads it.
_ROWS = 1 << 17
_TIMES = tuple(pa.timestamp(unit, zone) for zone in ("UTC", None) for unit in ("us", "ns", "ms", "s"))
_WIDER: dict[pa.DataType, tuple[pa.DataType, ...]] = {
    pa.float32(): (pa.float64(),),
    pa.list_(pa.float32()): (pa.list_(pa.float64()),),
    pa.string(): (pa.large_string(),),
}


class OfflineStoreTable:
    """The table of a view's batch source."""

    def __init__(self, feature_store: FeatureStore, rows: HistoryRows) -> None:
        self._feature_store = feature_store
        self._rows = rows
        self.name = f"{type(rows.source).__name__} {rows.source.name!r}"

    def check(self) -> None:
        """Check that the store can write, and that the table has the columns."""
        if reason := why_no_append(self._feature_store, self._rows.view):
            raise InputError(
                f"{self.name} cannot get version {self._rows.version}: {reason}; load its files with a tool of that "
                "store, and publish with --history none. Nothing was changed"
            )
        found = {field.name: field.type for field in self._schema()}
        accepted = {
            field.type: _TIMES if field.type == TIMESTAMP else (field.type, *_WIDER.get(field.type, ()))
            for field in self._rows.schema
        }
        if found.get(self._rows.id) == pa.int32():
            found[self._rows.id] = pa.int64()  # cast below, which refuses what does not fit
        check_columns(self.name, self._rows, found, accepted)

    def write(self) -> int:
        """Write the rows that the table does not have, so a run that was killed is continued."""
        schema, has, written = self._schema(), self._ids(), 0
        try:
            for batch in self._rows.batches(_ROWS):
                missing = batch.filter(pc.invert(pc.is_in(batch.column(self._rows.id), value_set=has)))
                if len(missing):
                    columns = [
                        missing.column(field.name)
                        if field.name in missing.schema.names
                        else pa.nulls(len(missing), field.type)
                        for field in schema
                    ]
                    rows = cast_rows(pa.Table.from_arrays(columns, schema.names), schema)
                    append_rows(self._feature_store, self._rows.view, rows)
                written += len(missing)
        except Exception as error:  # every offline store has errors of its own
            raise EngineError(
                f"{self.name}: {first_line(self._feature_store, error)}. {written} of {self._rows.n} rows of version "
                f"{self._rows.version} are written, and publishing again continues; the live version stays"
            ) from None
        return written

    def _schema(self) -> pa.Schema:
        try:
            return source_schema(self._feature_store, self._rows.source)
        except Exception as error:  # every offline store has errors of its own
            reason = first_line(self._feature_store, error)
            raise InputError(f"{self.name} cannot be read: {reason}; create its table. Nothing was changed") from None

    def _ids(self) -> pa.Array:
        """Return the ids of the version that the table has."""
        rows, source = self._rows, self._rows.source
        names = [rows.id, rows.columns["version"]]
        try:
            table = rows_at(self._feature_store, source, names, rows.as_of)
        except Exception as error:  # every offline store has errors of its own
            raise EngineError(f"{self.name} cannot be read: {first_line(self._feature_store, error)}") from None
        times = table[source.timestamp_field].cast(pa.timestamp("us"))
        here = pc.and_(
            pc.equal(table[names[1]].cast(pa.string()), rows.version),
            pc.equal(times, pa.scalar(rows.as_of.replace(tzinfo=None), pa.timestamp("us"))),
        )
        return table[rows.id].filter(here).cast(rows.schema.field(rows.id).type).combine_chunks()
