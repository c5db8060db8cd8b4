"""Read CSV and similar files: values separated by commas, semicolons, tabs or bars, after a line of names."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Sequence
from pathlib import Path

import duckdb
import numpy as np

from feast_embeddings.errors import InputError
from feast_embeddings.reading.expressions import identifier, quoted
from feast_embeddings.reading.files import DataFile
from feast_embeddings.reading.lines import TextLines, counted_with, is_utf8, look_at, opened, start_of
from feast_embeddings.reading.relation import BadRow, path_literal

_DELIMITERS = (",", ";", "\t", "|")
_HEADER_BYTES = 1 << 20
# DuckDB's names for the faults of a row.
_KINDS = {
    "MISSING COLUMNS": "with too few values",
    "TOO MANY COLUMNS": "with too many values",
    "UNQUOTED VALUE": "with text after a closing quote, or a quote that is never closed",
    "INVALID ENCODING": "not UTF-8",
    "INVALID STATE": "with a stray quote",
}


class DelimitedRelation:
    """A CSV file, or one with another delimiter. All its values are text.

    The delimiter is the most frequent one in the line of names. Only an empty value is a null.

    Args:
        scratch: a folder for a copy of the file, if DuckDB cannot read the file itself.
    """

    format = "CSV"

    def __init__(self, connection: duckdb.DuckDBPyConnection, file: DataFile, scratch: Path) -> None:
        self.name = str(file)
        self._connection, self._file, self._scratch = connection, file, scratch
        self._delimiter, self.names, self._blank = _header(file)
        self._lines = TextLines()
        self._bad_rows = np.empty(0, np.int64)

    def type_of(self, column: str) -> str | None:
        return "TEXT" if column in self.names else None

    def sql_of(self, column: str) -> str:
        return identifier(f"c{self.names.index(column)}")

    def source(self, columns: Sequence[str]) -> str:
        lines = self._lines = look_at(self._file, self._delimiter)
        path, compression = self._file.path, self._file.compression
        if lines.bad or lines.ends not in ({"LF"}, {"CR LF"}, set()):
            # DuckDB needs one kind of line end.
            with tempfile.NamedTemporaryFile(dir=self._scratch, suffix=".csv", delete=False) as copy:
                look_at(self._file, self._delimiter, copy)
            path, compression = Path(copy.name), "none"
        names = ", ".join(f"c{place}: 'VARCHAR'" for place in range(len(self.names)))
        quote = quoted('"' if lines.has_quotes else "")
        self._forget()
        return (
            f"read_csv({path_literal(path)}, columns = {{{names}}}, delim = {quoted(self._delimiter)}, "
            f"quote = {quote}, escape = {quote}, "
            f"compression = '{compression}', header = true, skip = {self._blank}, auto_detect = false, "
            f"all_varchar = true, hive_partitioning = false, store_rejects = true, {lines.room})"
        )

    def bad_rows(self, rows: int) -> list[BadRow]:
        rejected = self._connection.execute(
            "SELECT line, any_value(error_type), any_value(left(csv_line, 80)) "
            "FROM reject_errors GROUP BY line ORDER BY line"
        ).fetchall()
        self._forget()
        expected = self._lines.records - 1  # the line of names
        # A blank line of a file with one column is a row with a null.
        if rows + len(rejected) != expected and len(self.names) > 1:
            raise InputError(
                f"{self.name}: quotes do not pair up: {expected:,} lines of values were read as {rows:,} rows and "
                f"{len(rejected):,} bad ones; quote values with '\"' and double the quotes within them"
            )
        bad = [BadRow(bad.kind, f"line {bad.line}", bad.text) for bad in self._lines.bad]
        lines = self._lines.lines_of(np.array([line for line, _, _ in rejected], np.int64))
        for line, (_, kind, text) in zip(lines.tolist(), rejected, strict=True):
            known = _KINDS.get(kind.replace("_", " "), f"not CSV ({kind.lower()})")
            bad.append(BadRow(known, f"line {line}", (text or "").strip("\r\n")))
        records = [np.array([bad.record for bad in self._lines.bad], np.int64), self._lines.records_of(lines)]
        # The first record is the line of names.
        self._bad_rows = np.concatenate(records) - 1
        return bad

    def row_of(self, row: int) -> int:
        return int(counted_with(np.array(row), [self._bad_rows]))

    def _forget(self) -> None:
        for table in ("reject_errors", "reject_scans"):
            self._connection.execute(f"DROP TABLE IF EXISTS {table}")


def _header(file: DataFile) -> tuple[str, list[str], int]:
    """Return the delimiter, the names of the columns, and the number of blank lines before them."""
    with opened(file) as stream:
        sent = bytes(stream.read(_HEADER_BYTES))
    start = start_of(file, sent)
    # Cut after a line, so that no character is split.
    line_end = max(start.rfind(b"\n"), start.rfind(b"\r")) + 1 if len(sent) == _HEADER_BYTES else len(start)
    if start.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd")):
        packed = "gz" if start.startswith(b"\x1f") else "zst"
        raise InputError(f"{file} is compressed, which its name does not say; rename it to end in .{packed}")
    if start.lower().startswith(b"sep="):
        raise InputError(
            f"{file}: line 1 is a note of Excel on the delimiter; remove it, as delimiters are found without"
        )
    if b"\0" in start[:line_end].partition(b"\n")[0]:
        raise InputError(f"{file}: the column names are not UTF-8 (perhaps UTF-16); save it as UTF-8")
    lines = start[:line_end].splitlines(keepends=True)
    first = next((number for number, line in enumerate(lines) if line.strip(b"\r\n")), None)
    if first is None:
        raise InputError(f"{file} is empty; expected a line of column names")
    best: tuple[str, list[str]] = (",", [])
    for delimiter in _DELIMITERS:
        try:
            # A name may continue in the next line.
            text = io.StringIO(b"".join(lines[first : first + 100]).decode(), newline="")
            names = next(csv.reader(text, delimiter=delimiter))
        except UnicodeDecodeError as error:
            text = io.StringIO(lines[first].decode(errors="replace"), newline="")
            if not is_utf8(lines[first]):
                raise InputError(f"{file}: the column names are not UTF-8 ({error.reason}); save it as UTF-8") from None
            names = next(csv.reader(text, delimiter=delimiter))
        if len(names) > len(best[1]):
            best = delimiter, names
    return *best, first
