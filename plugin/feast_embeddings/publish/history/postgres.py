"""A history in PostgreSQL: Feast reads it there, but cannot write it, so this does, by COPY in one transaction."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv
from feast import FeatureStore
from feast.types import Int32

from feast_embeddings._feast.offline_store import first_line, postgres_connection, postgres_table
from feast_embeddings.artifact.attributes import TIMESTAMP
from feast_embeddings.errors import EngineError, InputError
from feast_embeddings.publish.history.rows import HistoryRows, check_columns

__all__ = ["PostgresTable"]

_ROWS = 10_000
# Feast compares a timestamp without a zone with the session's zone, and does not read varchar[].
_TYPES: dict[pa.DataType, tuple[str, ...]] = {
    pa.string(): ("text", "character varying"),
    pa.int64(): ("bigint",),
    pa.float32(): ("real", "double precision"),
    pa.float64(): ("double precision",),
    pa.bool_(): ("boolean",),
    TIMESTAMP: ("timestamp with time zone",),
    pa.list_(pa.float32()): ("real[]", "double precision[]"),
    pa.list_(pa.string()): ("text[]",),
    pa.list_(pa.int64()): ("bigint[]",),
}
_TABLE = "SELECT to_regclass(%s)::oid, relkind FROM pg_class WHERE oid = to_regclass(%s)"
_COLUMNS = (
    "SELECT attname, format_type(atttypid, NULL) FROM pg_attribute "
    "WHERE attrelid = %s AND attnum > 0 AND NOT attisdropped AND attgenerated = ''"
)
_PRIVILEGES = "SELECT name FROM unnest(ARRAY['SELECT', 'INSERT']) AS name WHERE NOT has_table_privilege(%s::oid, name)"
# Until the end of the transaction: a second publish waits, and then finds the rows.
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('feast_embeddings', %s::oid::bigint))"


class PostgresTable:
    """A table of the PostgreSQL that is the repo's offline store."""

    def __init__(self, feature_store: FeatureStore, rows: HistoryRows) -> None:
        self._feature_store = feature_store
        self._rows = rows
        self._table = postgres_table(rows.source)
        self.name = f"table {self._table or '(a query)'} of PostgreSQL"

    def check(self) -> None:
        """Check that the table exists, may be written, and has the columns."""
        if not self._table:
            raise InputError(
                f"the source of feature view {self._rows.view.name!r} is a query, which cannot be written: give "
                "PostgreSQLSource a table, or publish with --history none"
            )
        with self._cursor(InputError) as cursor:
            oid = self._oid(cursor)
            cursor.execute(_PRIVILEGES, [oid])
            if missing := [name for (name,) in cursor.fetchall()]:
                user = self._feature_store.config.offline_store.user
                raise InputError(
                    f"user {user!r} may not {' or '.join(missing)} in {self.name}: GRANT {', '.join(missing)} ON "
                    f"{self._table} TO it. Nothing was changed"
                )
            cursor.execute(_COLUMNS, [oid])
            found = dict(cursor.fetchall())
        if self._rows.view.entity_columns[0].dtype == Int32 and found.get(self._rows.id) == "integer":
            found[self._rows.id] = "bigint"  # the ids were checked to fit
        check_columns(self.name, self._rows, found, _TYPES)

    def write(self) -> int:
        """Write the rows that the table does not have; all of them, or none if this fails or is killed."""
        from psycopg import sql

        rows = self._rows
        table = sql.SQL(self._table)
        names = {name: sql.Identifier(rows.columns[name]) for name in rows.columns}
        of_version = sql.SQL("SELECT {} FROM {} WHERE {} = %s AND {} = %s").format(
            sql.Identifier(rows.id), table, names["version"], names["event_timestamp"]
        )
        copy_in = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(table, sql.SQL(", ").join(names.values()))
        written = 0
        with self._cursor(EngineError) as cursor:
            cursor.execute(_LOCK, [self._oid(cursor)])
            cursor.execute(of_version, [rows.version, rows.as_of])
            has = pa.array([id for (id,) in cursor.fetchall()], rows.schema.field(rows.id).type)
            if len(has) >= rows.n and len(pc.unique(has)) == rows.n:
                return 0
            with cursor.copy(copy_in) as copy:
                for batch in rows.batches(_ROWS):
                    missing = batch.filter(pc.invert(pc.is_in(batch.column(rows.id), value_set=has)))
                    copy.write(_csv(missing))
                    written += len(missing)
        return written

    def _oid(self, cursor: Any) -> int:
        cursor.execute(_TABLE, [self._table, self._table])
        oid, kind = cursor.fetchone() or (None, "")
        if oid is None:
            columns = ", ".join(f'"{field.name}" {_TYPES[field.type][0]}' for field in self._rows.schema)
            raise InputError(
                f"{self.name} does not exist; create it: CREATE TABLE {self._table} ({columns}). Nothing was changed"
            )
        if kind not in ("r", "p"):
            raise InputError(f"{self.name} is not a table, so it cannot be written: give PostgreSQLSource a table")
        return int(oid)

    @contextmanager
    def _cursor(self, kind: type[InputError] | type[EngineError]) -> Iterator[Any]:
        """Run the block in one transaction; PostgreSQL's errors become one of ours."""
        import psycopg

        try:
            with postgres_connection(self._feature_store) as connection, connection.cursor() as cursor:
                yield cursor
        except psycopg.Error as error:
            raise kind(
                f"{self.name}: {first_line(self._feature_store, error)}. None of the rows of version "
                f"{self._rows.version} was written; the live version stays"
            ) from None


def _csv(batch: pa.RecordBatch) -> bytes:
    """Return rows as CSV in which a null is an empty field, and empty text is quoted."""
    texts = [_text(column) for column in batch.columns]
    sink = pa.BufferOutputStream()
    options = pacsv.WriteOptions(include_header=False, quoting_style="all_valid")
    pacsv.write_csv(pa.RecordBatch.from_arrays(texts, batch.schema.names), sink, options)
    return bytes(sink.getvalue())


def _text(column: pa.Array) -> pa.Array:
    if not pa.types.is_list(column.type):
        return column.cast(pa.string())
    flat = column.flatten()
    items = flat.cast(pa.string())
    if pa.types.is_string(flat.type):
        for special in ("\\", '"'):
            items = pc.replace_substring(items, special, "\\" + special)
        items = pc.binary_join_element_wise('"', items, '"', "")
    lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    joined = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), items), ",")
    array = pc.binary_join_element_wise("{", joined, "}", "")
    return pc.if_else(column.is_valid(), array, pa.scalar(None, pa.string()))
