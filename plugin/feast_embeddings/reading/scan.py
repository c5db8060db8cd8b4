"""Read the rows of a log, about 100,000 at a time, with converted ids, times, weights and event types."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.errors import InputError
from feast_embeddings.reading.expressions import (
    RECORD,
    SEPARATOR,
    UNITS,
    Column,
    Expression,
    IdType,
    id_expression,
    id_kind,
    number_expression,
    quoted,
    text_expression,
    time_expression,
)
from feast_embeddings.reading.faults import MOST_EXAMPLES, Faults, first_line
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
from feast_embeddings.reading.relation import ParquetRelation, Relation, StreamRelation

Role = Literal["id", "time", "number", "text"]

BATCH_ROWS = 1 << 17


@dataclass(frozen=True)
class Wanted:
    """A column to read from a log.

    Attributes:
        required: whether it is an error if no file has it.
        id_type: convert ids to ``text`` or ``int``; None keeps text and whole numbers.
        known: the allowed values of a column with the role ``text``; empty for any.
    """

    name: str
    role: Role
    required: bool = True
    id_type: IdType | None = None
    known: Collection[str] = ()


@dataclass(frozen=True)
class Rules:
    """How values are parsed.

    Attributes:
        time_format: strptime's pattern for times; None reads ISO 8601 and numbers since 1970.
        latest: the last microsecond since 1970 that is not in the future; None for no limit.
    """

    time_format: str | None = None
    latest: int | None = None


class Scan:
    """One pass over a log. Enter it, iterate once, then read its attributes.

    Batches have each wanted column that exists, by its name: ids as string or int64, times as int64 microseconds
    since 1970 in UTC, weights as float64, text as string. Bad rows are left out and counted.

    Args:
        source: a file, a folder, a glob, or a table in memory.
        wanted: the columns.

    Attributes:
        faults: the bad rows; settle them after the pass.
        columns: names of the existing columns.
        wholes: id columns whose ids are whole numbers, even where they come as text.

    Raises:
        InputError: there is no such file, or a column is missing or has a wrong type; while iterating, a file cannot
            be read, or files do not agree.
    """

    def __init__(self, source: Source, wanted: Sequence[Wanted], rules: Rules) -> None:
        self.faults = Faults()
        self.wholes: set[str] = set()
        self._wanted, self._rules = wanted, rules
        self.name = source_name(source)
        self._exit = ExitStack()
        scratch = Path(self._exit.enter_context(tempfile.TemporaryDirectory(prefix="feast-embeddings-")))
        self._connection = self._exit.enter_context(connect(scratch))
        try:
            self._check_form()
            self._relations = open_relations(self._connection, source, scratch, self._exit)
            if all(isinstance(relation, ParquetRelation | StreamRelation) for relation, _ in self._relations):
                # Decoding is little work; the consumer of the batches needs the other cores more.
                self._connection.execute("SET threads = 1")
            self.columns = self._resolve()
            # Per column, the first place of each unit of times, and of text and of a number in JSON.
            self._units: dict[str, dict[str, tuple[Relation, int]]] = {}
            self._json: dict[str, dict[str, str]] = {}
            self._as_text = {column.name: self._id_as_text(column) for column in wanted if column.role == "id"}
        except BaseException:
            self._exit.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._exit.close()

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        for relation, file in self._relations:
            yield from self._scan(relation, file)
        self._check_units()
        self.wholes.update(name for name, seen in self._json.items() if "a number" in seen)

    def _check_form(self) -> None:
        form = self._rules.time_format
        try:
            if form is not None:
                self._connection.execute(f"SELECT try_strptime('', {quoted(form)})")
        except duckdb.Error as error:
            raise InputError(f"--time-format {form!r} is not a pattern such as %Y%m%d: {first_line(error)}") from None

    def _resolve(self) -> list[str]:
        present = []
        for column in self._wanted:
            if any(column_of(relation, file, column.name) for relation, file in self._relations):
                present.append(column.name)
            elif column.required:
                relation, file = self._relations[0]
                raise missing_column(self.name, column.name, [*relation.names, *(file.partitions if file else ())])
            for relation, file in self._relations:
                refuse_twins(relation, column.name)
                refuse_contradiction(self._connection, relation, file, column.name)
        return present

    def _column(self, relation: Relation, file: DataFile | None, name: str, place: int) -> tuple[Column, str]:
        """Return a column of a file, and SQL for it; a null if the file lacks it."""
        dtype, sql = column_of(relation, file, name) or ("TEXT", "NULL::VARCHAR")
        return Column(name, f"c{place}", dtype, f"v{place}"), sql

    def _id_as_text(self, wanted: Wanted) -> bool:
        """Return whether the ids are read as text; all files must have the same kind of ids."""
        name = wanted.name
        seen: dict[str, str] = {}
        as_text = False
        for relation, file in self._relations:
            if column_of(relation, file, name) is None:
                continue
            column, _ = self._column(relation, file, name, 0)
            kind, wide = id_kind(column, f"{relation.name}: column {name!r}")
            seen.setdefault(kind, relation.name)
            as_text = as_text or wide or kind == "text"
        if wanted.id_type is not None:
            return wanted.id_type == "text"
        if "text" in seen and "int" in seen:
            raise InputError(
                f"column {name!r} is text in {seen['text']} and whole numbers in {seen['int']}; make them alike, or "
                "set the type of ids with --id-type"
            )
        if "int" in seen:
            self.wholes.add(name)
            if "json" in seen:
                self._json[name] = {"a number": seen["int"]}
        elif "text" in seen and "json" in seen:
            self._json[name] = {"text": seen["text"]}
        return as_text

    def _scan(self, relation: Relation, file: DataFile | None) -> Iterator[pa.RecordBatch]:
        names = [column for column in self._wanted if column.name in self.columns]
        expressions, sources = [], []
        for place, wanted in enumerate(names):
            column, sql = self._column(relation, file, wanted.name, place)
            sources.append(f"{sql} AS c{place}")
            expressions.append(self._expression(wanted, column, relation))
        values = [f"{e.value} AS v{n}" for n, e in enumerate(expressions)]
        extras = {n: e.extra for n, e in enumerate(expressions) if e.extra is not None}
        inner = ", ".join([*values, *(f"{extra} AS x{n}" for n, extra in extras.items())])
        outer = ", ".join([*(f"v{n}" for n in range(len(expressions))), *(f"x{n}" for n in extras)])
        faults = ", ".join(f"CASE WHEN {e.bad} THEN {e.fault} END" for e in expressions)
        bad = " OR ".join(e.bad for e in expressions)
        chosen = [column.name for column in names if relation.type_of(column.name)]
        rows = 0
        examples: list[tuple[str, int, str | None]] = []
        with read_errors(relation.name, relation.format):
            query = (
                f"SELECT {outer}, CASE WHEN {bad} THEN concat_ws({quoted(RECORD)}, {faults}) END AS fault "  # noqa: S608
                f"FROM (SELECT *, {inner} FROM (SELECT {', '.join(sources)} FROM {relation.source(chosen)}))"
            )
            for batch in self._connection.sql(query).to_arrow_reader(BATCH_ROWS):
                good = self._judge(batch, relation, names, rows, examples)
                rows += len(batch)
                if len(good):
                    arrays = [good.column(f"v{n}") for n in range(len(names))]
                    yield pa.record_batch(arrays, names=[column.name for column in names])
        left_out = relation.bad_rows(rows)
        for kind, number, value in examples:
            self.faults.add_example(kind, self._place(relation, f"row {relation.row_of(number)}"), value)
        self.faults.rows += rows + len(left_out)
        self.faults.bad += len(left_out)
        for row in left_out:
            self.faults.add(row.kind)
            self.faults.add_example(row.kind, self._place(relation, row.place), row.text)

    def _expression(self, wanted: Wanted, column: Column, relation: Relation) -> Expression:
        try:
            if wanted.role == "id":
                return id_expression(column, wanted.id_type, as_text=self._as_text[wanted.name])
            if wanted.role == "time":
                return time_expression(column, self._rules.time_format, self._rules.latest)
            if wanted.role == "number":
                return number_expression(column)
            return text_expression(column, wanted.known)
        except InputError as error:
            raise InputError(f"{relation.name}: {error}") from None

    def _judge(
        self,
        batch: pa.RecordBatch,
        relation: Relation,
        wanted: Sequence[Wanted],
        start: int,
        examples: list[tuple[str, int, str | None]],
    ) -> pa.RecordBatch:
        """Return the good rows of a batch; count the others, keep some as examples, and record kinds of values."""
        fault = batch.column("fault")
        all_good = fault.null_count == len(fault)
        for n, column in enumerate(wanted):
            if f"x{n}" in batch.schema.names:
                extra = batch.column(f"x{n}")
                if not all_good:  # a dropped row is no evidence about the others
                    extra = pc.if_else(pc.is_null(fault), extra, pa.scalar(None, extra.type))
                self._see(column, relation, extra, start)
        if all_good:
            return batch
        bad = np.flatnonzero(pc.is_valid(fault).to_numpy(zero_copy_only=False))
        texts = fault.take(pa.array(bad))
        if isinstance(relation, JsonRelation):
            broken = np.isin(bad + start + 1, relation.not_objects)
            texts = pc.if_else(pa.array(broken), f"{NOT_AN_OBJECT}{SEPARATOR}", texts)
        self.faults.bad += len(bad)
        pieces = pc.list_flatten(pc.split_pattern(texts, RECORD))
        kinds = pc.list_element(pc.split_pattern(pieces, SEPARATOR, max_splits=1), 0)
        for counted in kinds.value_counts().to_pylist():
            kind = counted["values"]
            self.faults.add(kind, counted["counts"])
            if sum(kind == known for known, _, _ in examples) < MOST_EXAMPLES:
                found = np.flatnonzero(pc.match_substring(texts, kind + SEPARATOR).to_numpy(zero_copy_only=False))
                for number in found[:MOST_EXAMPLES].tolist():
                    piece = next(p for p in texts[number].as_py().split(RECORD) if p.startswith(kind + SEPARATOR))
                    examples.append((kind, int(bad[number]) + start + 1, piece.partition(SEPARATOR)[2] or None))
        return batch.filter(pc.is_null(fault))

    def _see(self, column: Wanted, relation: Relation, extra: pa.Array, start: int) -> None:
        for code in pc.unique(extra).to_pylist():
            if code is None:
                continue
            first = pc.index(extra, pa.scalar(code, extra.type)).as_py()
            row = start + first + 1
            if column.role == "time":
                self._units.setdefault(column.name, {}).setdefault(UNITS[code], (relation, row))
            else:
                seen = self._json.setdefault(column.name, {})
                seen.setdefault("a number" if code else "text", self._place(relation, f"row {row}"))
                if len(seen) > 1 and column.id_type is None:
                    raise InputError(
                        f"{self.name}: column {column.name!r} is a number in {seen['a number']} and text in "
                        f"{seen['text']}; make them alike, or set the type of ids with --id-type"
                    )

    def _check_units(self) -> None:
        for name, seen in self._units.items():
            units = {unit: first for unit, first in seen.items() if unit}
            if len(units) > 1:
                listed = " and ".join(f"{u} ({self._place(r, f'row {r.row_of(n)}')})" for u, (r, n) in units.items())
                raise InputError(
                    f"{self.name}: column {name!r} holds times in {listed} since 1970; one of them must be wrong"
                )

    def _place(self, relation: Relation, place: str) -> str:
        return place if len(self._relations) == 1 else f"{relation.name} {place}"
