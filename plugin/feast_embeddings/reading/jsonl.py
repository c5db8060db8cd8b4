"""Read JSON: one object per line, or an array of objects. Each value is read as written, whatever the others are."""

from __future__ import annotations

import functools
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np
import numpy.typing as npt

from feast_embeddings.errors import InputError
from feast_embeddings.reading.expressions import identifier, quoted
from feast_embeddings.reading.faults import first_line
from feast_embeddings.reading.files import Compression, DataFile
from feast_embeddings.reading.lines import TextLines, is_utf8, look_at, opened, start_of
from feast_embeddings.reading.relation import BadRow, path_literal

# JSON has no list of columns: this many objects are searched for them.
_SAMPLED_OBJECTS = 20_480
NOT_AN_OBJECT = "not a JSON object in UTF-8"
_NO_COLUMN = "feast-embeddings: no such column"
_LEAST_OBJECT = 16 << 20
_ARRAY_OBJECT = 64 << 20


class JsonRelation:
    """A file of JSON objects. Any column can be read; where it is missing, it is null.

    Args:
        scratch: a folder for a copy of the file without a byte order mark, if it has one.
    """

    format = "JSON"

    def __init__(self, connection: duckdb.DuckDBPyConnection, file: DataFile, scratch: Path) -> None:
        self.name = str(file)
        self._connection, self._scratch = connection, scratch
        self._path = file.path
        compression: Compression = file.compression
        self._form = _form(file)
        self._lines = TextLines()
        largest = _ARRAY_OBJECT
        if self._form == "newline_delimited":
            self._lines = look_at(file, None)
            largest = max(_LEAST_OBJECT, 2 * self._lines.longest)
            if not self._lines.records:
                raise InputError(f"{file} has no rows")
        if self._lines.has_mark:
            with tempfile.NamedTemporaryFile(dir=scratch, suffix=".json", delete=False) as copy:
                look_at(file, None, copy)
            self._path, compression = Path(copy.name), "none"
        self._options = (
            f"format = '{self._form}', compression = '{compression}', maximum_object_size = {largest}, "
            f"ignore_errors = {'true' if self._form == 'newline_delimited' else 'false'}, hive_partitioning = false"
        )
        self._compression = compression
        self._absent: set[str] = set()
        sample = connection.execute(
            f"SELECT json_keys(json) FROM read_json_objects({path_literal(self._path)}, {self._options}) "  # noqa: S608
            f"WHERE json_type(json) = 'OBJECT' LIMIT {_SAMPLED_OBJECTS}"
        ).fetchall()
        self.names = list(dict.fromkeys(key for (keys,) in sample for key in keys))

    def type_of(self, column: str) -> str | None:
        if column not in self.names and column not in self._absent:
            if self._has(column):
                self.names.append(column)
            else:
                self._absent.add(column)
        return "JSON" if column in self.names else None

    def sql_of(self, column: str) -> str:
        return identifier(column)

    def source(self, columns: Sequence[str]) -> str:
        if "" in columns:
            raise InputError(f"{self.name} has a key without a name; name it or leave it out")
        twins = [column for column in columns if [c.lower() for c in columns].count(column.lower()) > 1]
        if twins:
            raise InputError(f"{self.name} has keys that differ only in case: {twins[0]!r}, {twins[1]!r}; rename one")
        for column in columns:
            if (row := self._repeated.get(column)) is not None:
                raise InputError(f"{self.name} row {row} has the key {column!r} more than once; keep the right one")
        # DuckDB 2.0 reads a single column in another way, which is limited to 128 nested lists.
        listed = ", ".join(f"{quoted(column)}: 'JSON'" for column in [*columns, _NO_COLUMN])
        return f"read_json({path_literal(self._path)}, columns = {{{listed}}}, {self._options})"

    def bad_rows(self, rows: int) -> list[BadRow]:
        return []

    def row_of(self, row: int) -> int:
        return row

    def _has(self, column: str) -> bool:
        """Return whether any object has a column that the first ones lack. This reads the file."""
        query = f"SELECT 1 FROM {self.source([column])} WHERE {self.sql_of(column)} IS NOT NULL LIMIT 1"  # noqa: S608
        try:
            return bool(self._connection.execute(query).fetchall())
        except duckdb.Error as error:
            raise InputError(
                f"{self.name} cannot be read as JSON: {first_line(error)}; expected objects, one per line or all in "
                "an array"
            ) from None

    @functools.cached_property
    def _repeated(self) -> dict[str, int]:
        """Return the keys that an object has more than once, each with its first row; DuckDB takes the first value."""
        usual = ", ".join(quoted(name) for name in self.names)
        try:
            rows = self._connection.execute(
                "SELECT number, keys FROM (SELECT row_number() OVER () AS number, json_keys(json) AS keys "  # noqa: S608
                f"FROM read_json_objects({path_literal(self._path)}, {self._options})) "
                f"WHERE keys <> [{usual}]::VARCHAR[] AND len(keys) > len(list_distinct(keys)) "
                "ORDER BY number LIMIT 1000"
            ).fetchall()
        except duckdb.Error:
            return {}  # the scan names the fault
        repeated: dict[str, int] = {}
        for number, keys in rows:
            for key in {key for key in keys if keys.count(key) > 1}:
                repeated.setdefault(key, number)
        return repeated

    @functools.cached_property
    def not_objects(self) -> npt.NDArray[np.int64]:
        """Return the rows, counted from 1, that are not JSON objects; they are read as empty objects.

        This reads the file, so it is done once, and only for a file with faults.
        """
        if self._form != "newline_delimited":
            return np.empty(0, dtype=np.int64)
        try:
            return self._not_objects(self._path, self._compression)
        except duckdb.Error:
            # `read_csv` refuses lines that are not UTF-8.
            file = DataFile(self._path, "json", self._compression)
            with (
                opened(file) as stream,
                tempfile.NamedTemporaryFile(dir=self._scratch, suffix=".json", delete=False) as copy,
            ):
                lines = stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(stream)  # type: ignore[type-var]
                for line in lines:
                    copy.write(line if is_utf8(line) else b"not UTF-8\n")
            return self._not_objects(Path(copy.name), "none")

    def _not_objects(self, path: Path, compression: Compression) -> npt.NDArray[np.int64]:
        source = (
            f"read_csv({path_literal(path)}, columns = {{line: 'VARCHAR'}}, delim = '\\x01', quote = '', "
            f"escape = '', header = false, auto_detect = false, compression = '{compression}', "
            f"{self._lines.room})"
        )
        found = (
            self._connection.cursor()
            .execute(
                "SELECT number FROM (SELECT row_number() OVER () AS number, line FROM "  # noqa: S608
                f"(SELECT line FROM {source} WHERE trim(line, ' \\t\\r') <> '')) "
                "WHERE CASE WHEN json_valid(line) THEN json_type(line) <> 'OBJECT' ELSE true END"
            )
            .fetchnumpy()
        )
        return np.asarray(found["number"], dtype=np.int64)


def _form(file: DataFile) -> str:
    with opened(file) as stream:
        start = start_of(file, stream.read(1 << 16)).lstrip()
    if start.startswith(b"["):
        return "array"
    # Each object takes several lines.
    return "unstructured" if start.partition(b"\n")[0].strip() == b"{" else "newline_delimited"
