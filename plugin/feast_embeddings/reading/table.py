"""Read a table of users, items or labels into memory, with column types inferred from the values."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.errors import InputError
from feast_embeddings.reading.column_types import ColumnType, converted, not_quite_numbers, plainest
from feast_embeddings.reading.expressions import NULL, Column, id_expression, id_kind
from feast_embeddings.reading.faults import Faults, first_line
from feast_embeddings.reading.files import DataFile
from feast_embeddings.reading.jsonl import NOT_AN_OBJECT, JsonRelation
from feast_embeddings.reading.opening import (
    Source,
    column_of,
    connect,
    missing_column,
    open_relations,
    read_errors,
    refuse_contradiction,
    refuse_twins,
    source_name,
)
from feast_embeddings.reading.relation import BadRow, Relation


@dataclass(frozen=True)
class _Wishes:
    """Columns of ids, of vectors, and those whose type is given; None if no type can be given."""

    ids: Collection[str]
    vectors: Collection[str]
    declared: Collection[str] | None


def read_table(
    source: Source,
    *,
    ids: Collection[str] = (),
    as_text: Collection[str] = (),
    vectors: Collection[str] = (),
    types: Mapping[str, ColumnType] | None = None,
    doubts: list[str] | None = None,
) -> pa.Table:
    """Read a whole table.

    Parquet and tables in memory have types. A text column, as in CSV, becomes numbers, booleans or times only if every
    value has the canonical spelling; JSON distinguishes numbers from text. An empty value is a null.

    Args:
        source: a file, a folder, a glob, or a table in memory.
        ids: columns of ids, which are returned as text: whole numbers as written, never null or empty.
        as_text: columns that stay text if they are text.
        vectors: columns of lists of real numbers; text such as ``[0.1, -2]`` is read as one. A null is returned for a
            value that is not such a list, and for an element that is not a number.
        types: the types of columns; None if they cannot be given.
        doubts: gets a sentence about each column that is text because of a few values among numbers.

    Raises:
        InputError: the source or a row cannot be read, or a value does not fit the type in `types`.
    """
    name = source_name(source)
    with ExitStack() as exit_stack:
        scratch = Path(exit_stack.enter_context(tempfile.TemporaryDirectory(prefix="feast-embeddings-")))
        connection = exit_stack.enter_context(connect(scratch))
        relations = open_relations(connection, source, scratch, exit_stack)
        columns = list(
            dict.fromkeys(
                column
                for relation, file in relations
                for column in [*relation.names, *(file.partitions if file is not None else ())]
            )
        )
        if not columns:
            raise missing_column(name, next(iter(ids or as_text)), columns)
        faults = Faults()
        parts = [_read(connection, *pair, columns, _Wishes(ids, vectors, types), faults, name) for pair in relations]
        faults.settle(name, "error", advice="correct them")
        plain = {
            column for column in columns for relation, file in relations if _is_plain(relation, file, column)
        }.difference(as_text, ids, vectors)
        table = _together(parts, [relation.name for relation, _ in relations])
        for place, column in enumerate(table.column_names):
            wanted = (types or {}).get(column)
            if wanted is not None:
                typed = converted(connection, table[column], wanted, f"{name}: column {column!r}")
            elif column in plain and pa.types.is_string(table[column].type):
                plain_type = plainest(connection, table[column])
                if (
                    doubts is not None
                    and plain_type == "text"
                    and (row := not_quite_numbers(table[column])) is not None
                ):
                    doubts.append(
                        f"{name}: {column!r} is text, as row {row + 1} has {table[column][row].as_py()!r} next to "
                        "numbers elsewhere; leave such values empty and write decimals with a point, or say "
                        f"--attribute-types {column}=text"
                    )
                typed = converted(connection, table[column], plain_type, f"{name}: column {column!r}")
            else:
                continue
            table = table.set_column(place, column, typed)
        return table


def _read(
    connection: duckdb.DuckDBPyConnection,
    relation: Relation,
    file: DataFile | None,
    columns: list[str],
    wishes: _Wishes,
    faults: Faults,
    name: str,
) -> pa.Table:
    for column in columns:
        refuse_twins(relation, column)
        refuse_contradiction(connection, relation, file, column)
    with read_errors(relation.name, relation.format):
        present = {column: found for column in columns if (found := column_of(relation, file, column))}
        chosen = [column for column in present if relation.type_of(column)]
        listed = [
            f"{_value(connection, relation, column, *found, wishes)} AS c{place}"
            for place, (column, found) in enumerate(present.items())
        ]
        query = f"SELECT {', '.join(listed)} FROM {relation.source(chosen)}"  # noqa: S608
        table = connection.sql(query).to_arrow_table().rename_columns(list(present))
    left_out = relation.bad_rows(len(table))
    faults.rows += len(table) + len(left_out)
    broken = relation.not_objects if isinstance(relation, JsonRelation) else np.empty(0, np.int64)
    left_out += [BadRow(NOT_AN_OBJECT, f"row {row}", "") for row in broken.tolist()]
    for column in wishes.ids:
        if column in table.column_names and table[column].null_count:
            absent = np.setdiff1d(np.flatnonzero(pc.is_null(table[column])) + 1, broken)
            if len(absent):
                what = f"{relation.name}: column {column!r}"
                raise InputError(
                    f"{what}: {len(absent):,} of {len(table):,} rows have no id (text, or a whole number), the "
                    f"first is row {absent[0]}"
                )
    faults.bad += len(left_out)
    for row in left_out:
        faults.add(row.kind)
        faults.add_example(row.kind, row.place if relation.name == name else f"{relation.name} {row.place}", row.text)
    return table


def _value(
    connection: duckdb.DuckDBPyConnection, relation: Relation, column: str, dtype: str, sql: str, wishes: _Wishes
) -> str:
    if column in wishes.ids:
        described = Column(column, sql, dtype, "unused")
        id_kind(described, f"{relation.name}: column {column!r}")
        return id_expression(described, "text", as_text=True).value
    if column in wishes.vectors:
        if not dtype.endswith("]") and dtype not in ("JSON", "TEXT", "VARCHAR", NULL):
            raise InputError(f"{relation.name}: column {column!r} has type {dtype}; expected lists of real numbers")
        return sql if dtype.startswith("FLOAT[") else f"TRY_CAST({sql} AS DOUBLE[])"
    if dtype == "JSON":
        return _json(connection, relation, column, wishes.declared)
    # Arrow has separate types for these, which few libraries support.
    return f"CAST({sql} AS VARCHAR)" if dtype in ("UUID", "TEXT") or dtype.startswith("ENUM") else sql


def _json(
    connection: duckdb.DuckDBPyConnection, relation: Relation, column: str, declared: Collection[str] | None
) -> str:
    """Return SQL for a column of JSON, in the common type of its values; as text, if its type is given."""
    sql = relation.sql_of(column)
    if column in (declared or ()):
        return f"({sql} ->> '$')"
    inner = f"json_type({sql})"
    kinds = {
        kind
        for (kind,) in connection.execute(
            f"SELECT DISTINCT {inner} FROM {relation.source([column])} WHERE {sql} IS NOT NULL"  # noqa: S608
        ).fetchall()
    }
    text = f"({sql} ->> '$')"
    if kinds <= {"VARCHAR"}:
        return text
    if kinds <= {"BIGINT", "UBIGINT"}:
        too_large = connection.execute(
            f"SELECT bool_or(TRY_CAST({text} AS BIGINT) IS NULL) FROM {relation.source([column])} "  # noqa: S608
            f"WHERE {sql} IS NOT NULL"
        ).fetchall()
        return text if too_large[0][0] else f"CAST({text} AS BIGINT)"
    if kinds <= {"BIGINT", "UBIGINT", "DOUBLE"}:
        # A whole number beyond 2^53 would lose digits.
        long = connection.execute(
            f"SELECT bool_or(regexp_full_match({text}, '-?[0-9]{{16,}}') AND "  # noqa: S608
            f"coalesce(abs(TRY_CAST({text} AS HUGEINT)) > {2**53}, true)) "
            f"FROM {relation.source([column])}"
        ).fetchall()
        return text if long[0][0] else f"CAST({text} AS DOUBLE)"
    if kinds <= {"BOOLEAN"}:
        return f"CAST({text} AS BOOLEAN)"
    if kinds <= {"ARRAY"}:
        elements = {
            kind
            for (kind,) in connection.execute(
                f"SELECT DISTINCT json_type(e) FROM (SELECT unnest(CAST({sql} AS JSON[])) AS e "  # noqa: S608
                f"FROM {relation.source([column])}) WHERE e IS NOT NULL"
            ).fetchall()
        } - {"NULL"}
        if elements <= {"VARCHAR"}:
            return f"CAST({sql} AS VARCHAR[])"
        if elements <= {"BIGINT", "UBIGINT"}:
            too_large = connection.execute(
                "SELECT bool_or(TRY_CAST((e ->> '$') AS BIGINT) IS NULL) FROM (SELECT unnest(CAST("  # noqa: S608
                f"{sql} AS JSON[])) AS e FROM {relation.source([column])}) WHERE json_type(e) <> 'NULL'"
            ).fetchall()
            return f"CAST({sql} AS {'VARCHAR' if too_large[0][0] else 'BIGINT'}[])"
        kinds = {f"lists of {' and '.join(sorted(elements)).lower()}"}
    shown = " and ".join(sorted(_JSON_NOUNS.get(kind, kind) for kind in kinds))
    as_text = "" if declared is None else f", or read all of it as text (--attribute-types {column}=text)"
    raise InputError(
        f"{relation.name}: column {column!r} holds {shown}, which cannot be one column; make them alike, or leave the "
        f"column out{as_text}"
    )


_JSON_NOUNS = {
    "VARCHAR": "text",
    "BIGINT": "whole numbers",
    "UBIGINT": "whole numbers",
    "DOUBLE": "real numbers",
    "BOOLEAN": "true and false",
    "OBJECT": "objects",
    "ARRAY": "lists",
}


def _is_plain(relation: Relation, file: DataFile | None, column: str) -> bool:
    """Return whether a column is untyped text."""
    found = column_of(relation, file, column)
    return found is not None and found[0] == "TEXT"


def _together(parts: list[pa.Table], names: list[str]) -> pa.Table:
    parts = [_without_guesses(part, parts) for part in parts]
    together = parts[0]
    for part, name in zip(parts[1:], names[1:], strict=True):
        try:
            together = pa.concat_tables([together, part], promote_options="permissive")
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise InputError(f"{names[0]} and {name} do not agree: {first_line(error)}") from None
    return together


def _without_guesses(part: pa.Table, parts: list[pa.Table]) -> pa.Table:
    """Return the part, without a type for a column in which it has no value, if another part has a type."""
    for place, name in enumerate(part.column_names):
        column = part[name]
        others = [other[name] for other in parts if other is not part and name in other.column_names]
        if column.null_count == len(column) and any(other.null_count < len(other) for other in others):
            part = part.set_column(place, name, pa.nulls(len(column)))
        elif pa.types.is_list(column.type) and not len(pc.list_flatten(column)):
            known = next((o.type for o in others if pa.types.is_list(o.type) and len(pc.list_flatten(o))), column.type)
            part = part.set_column(place, name, pa.array(column.to_pylist(), known))
    return part
