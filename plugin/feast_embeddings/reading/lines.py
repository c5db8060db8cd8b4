"""Check the lines of a text file before DuckDB reads it, for faults that its readers do not report.

DuckDB 2.0 finds most rows that are not CSV. But after a quote that is never closed, it silently skips rows: of three
million rows after one, 415,000 were lost. So lines with an odd number of quotes, of which there are few, are checked
here: either a quoted value continues in the next line, or the quote is stray and its line is bad. Counting the records
shows afterwards that no row was lost.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feast_embeddings.errors import InputError
from feast_embeddings.reading.files import DataFile
from feast_embeddings.reading.quotes import resolve_quotes

BLOCK_BYTES = 8 << 20
_START_BYTES = 1 << 20
_LEAST_LINE = 2 << 20
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class BadLine:
    """A line that DuckDB cannot read: its number, the number of its record, both from 1, and its text."""

    line: int
    record: int
    kind: str
    text: str


@dataclass
class TextLines:
    """Facts about the lines of a file.

    Attributes:
        records: lines that are not blank, except those that continue a quoted value, and bad ones.
        longest: bytes of the longest record.
        bad: the lines with a stray quote or a stray carriage return.
        has_quotes: whether there is any quote.
        has_mark: whether the file starts with a byte order mark.
        ends: the line ends of its records, of LF, CR LF and CR CR LF.
    """

    records: int = 0
    longest: int = 0
    bad: list[BadLine] = field(default_factory=list)
    has_quotes: bool = False
    has_mark: bool = False
    ends: set[str] = field(default_factory=set)
    _lines: int = 0
    _end: bytes = b"\n"

    _inside: list[npt.NDArray[np.int64]] = field(default_factory=list)
    _blank: list[npt.NDArray[np.int64]] = field(default_factory=list)

    def lines_of(self, lines: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Convert DuckDB's line numbers to the file's: DuckDB skips bad lines, and lines within values."""
        return counted_with(lines, [*self._inside, np.array([bad.line for bad in self.bad], np.int64)])

    def records_of(self, lines: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the records that start at these lines of the file."""
        others = np.sort(np.concatenate([*self._inside, *self._blank, np.empty(0, np.int64)]))
        return lines - np.searchsorted(others, lines)

    @property
    def room(self) -> str:
        """Options of DuckDB's CSV reader that make the longest record fit."""
        longest = max(_LEAST_LINE, self.longest + 1)
        return f"max_line_size = {longest}, buffer_size = {4 * longest}"


def look_at(file: DataFile, delimiter: str | None, copy: IO[bytes] | None = None) -> TextLines:
    """Scan a text file once.

    Args:
        delimiter: between the values of CSV; None for lines without quotes, as JSON lines are.
        copy: where to write the file without bad lines and without a byte order mark; its records end with LF.

    Raises:
        InputError: the file is UTF-16, or cannot be decompressed.
    """
    found = TextLines()
    with opened(file) as stream:
        start = bytes(stream.read(_START_BYTES))
    if b"\r" in start[:-1] and b"\n" not in start:
        found._end = b"\r"  # as on old Macs
    held = b""
    for block in _blocks(file):
        if not found._lines and not held:
            found.has_mark = block.startswith(_UTF8_MARK)
            block = start_of(file, block)
        held = _take(held + block, found, delimiter, copy, last=False)
    if held and not held.endswith((b"\n", b"\r")):
        held += found._end
    _take(held, found, delimiter, copy, last=True)
    return found


def counted_with(numbers: npt.NDArray[np.int64], left_out: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Return the positions of the `numbers`-th entries, counted from 1, if those at `left_out` count too."""
    places = np.sort(np.concatenate(left_out))
    return numbers + np.searchsorted(places - np.arange(len(places)), numbers, side="right")


def start_of(file: DataFile, start: bytes) -> bytes:
    """Return the first bytes of a file without a UTF-8 byte order mark.

    Raises:
        InputError: a byte order mark shows that it is UTF-16.
    """
    if start.startswith(_UTF16_MARKS):
        raise InputError(f"{file} is UTF-16, expected UTF-8; save it as UTF-8")
    return bytes(start).removeprefix(_UTF8_MARK)


def is_utf8(line: bytes) -> bool:
    """Return whether a line is valid UTF-8."""
    try:
        line.decode()
    except UnicodeDecodeError:
        return False
    return True


@contextmanager
def opened(file: DataFile) -> Iterator[IO[bytes]]:
    """Open a file for reading, decompressed.

    Raises:
        InputError: it cannot be read or decompressed.
    """
    try:
        if file.compression == "none":
            with file.path.open("rb") as plain:
                yield plain
        else:
            with pa.CompressedInputStream(pa.OSFile(str(file.path), "rb"), file.compression) as stream:
                yield stream
    except OSError as error:
        reason = error.strerror or " ".join(str(error).split())
        advice = "" if file.compression == "none" else f"; is it {file.compression}, and all of it here?"
        raise InputError(f"{file} cannot be read: {reason}{advice}") from None


def _blocks(file: DataFile) -> Iterator[bytes]:
    with opened(file) as stream:
        while block := stream.read(BLOCK_BYTES):
            yield bytes(block)


def _take(data: bytes, found: TextLines, delimiter: str | None, copy: IO[bytes] | None, *, last: bool) -> bytes:
    """Process the records that end in `data`; return the rest, which starts a record."""
    end_of_line = found._end
    cut = len(data) if last else data.rfind(end_of_line) + 1
    ends = np.flatnonzero(np.frombuffer(data, np.uint8, cut) == end_of_line[0]) + 1
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    is_record = np.ones(len(ends), dtype=bool)
    bad: dict[int, str] = {}
    if delimiter is not None and b'"' in data[:cut]:
        found.has_quotes = True
        cut = resolve_quotes(data, starts, ends, is_record, bad, delimiter, last)
        kept = int(np.searchsorted(ends, cut, side="right"))
        starts, ends, is_record = starts[:kept], ends[:kept], is_record[:kept]
    returns = _returns(data, ends, is_record, found.ends) if end_of_line == b"\n" else np.empty(0, np.int64)
    if delimiter is not None and end_of_line == b"\n":
        _refuse_stray_returns(data, starts, ends, is_record, bad)
    blank = _blank(data, starts, ends) & is_record
    records = found.records + len(found.bad) + np.cumsum(is_record & ~blank)
    found.bad += [
        BadLine(
            found._lines + 1 + line,
            int(records[line]),
            kind,
            data[starts[line] : ends[line]].decode(errors="replace").strip("\r\n"),
        )
        for line, kind in sorted(bad.items())
    ]
    found.records += int(is_record.sum()) - int(blank.sum()) - len(bad)
    heads = np.append(starts[is_record], cut)
    if len(heads) > 1:
        found.longest = max(found.longest, int(np.diff(heads).max()))
    if copy is not None:
        kept_bytes = np.ones(cut, dtype=bool)
        kept_bytes[returns] = False
        for line in bad:
            kept_bytes[starts[line] : ends[line]] = False
        copy.write(np.frombuffer(data, np.uint8, cut)[kept_bytes].tobytes())
    found._inside.append(np.flatnonzero(~is_record) + 1 + found._lines)
    found._blank.append(np.flatnonzero(blank) + 1 + found._lines)
    found._lines += len(ends)
    return data[cut:]


def _returns(
    data: bytes, ends: npt.NDArray[Any], is_record: npt.NDArray[np.bool_], seen: set[str]
) -> npt.NDArray[np.int64]:
    """Find the carriage returns before the ends of records, and the kinds of line ends."""
    last_of_record = ends[np.append(is_record[1:], True)] if len(ends) else ends
    if b"\r" not in data:
        seen.update(["LF"] if len(last_of_record) else [])
        return np.empty(0, np.int64)
    characters = np.frombuffer(data, np.uint8)
    returns = []
    is_return = np.ones(len(last_of_record), dtype=bool)
    # Windows turns CR LF into CR CR LF if a program writes CSV to a file opened as text.
    for end in ("CR LF", "CR CR LF"):
        place = last_of_record - len(end.split())
        was_return, is_return = is_return, is_return & (place >= 0) & (characters[place] == ord("\r"))
        if (was_return & ~is_return).any():
            seen.add("LF" if end == "CR LF" else "CR LF")
        returns.append(place[is_return])
    if is_return.any():
        seen.add("CR CR LF")
    return np.concatenate(returns).astype(np.int64)


def _refuse_stray_returns(
    data: bytes,
    starts: npt.NDArray[Any],
    ends: npt.NDArray[Any],
    is_record: npt.NDArray[np.bool_],
    bad: dict[int, str],
) -> None:
    """Mark lines with a carriage return that neither ends them nor is quoted: DuckDB refuses the whole file."""
    if not len(ends) or b"\r" not in data:
        return
    characters = np.frombuffer(data, np.uint8, int(ends[-1]))
    returns = np.flatnonzero(characters[:-1] == ord("\r"))
    follower = characters[returns + 1]
    ends_line = (follower == ord("\n")) | (
        (follower == ord("\r")) & (characters[np.minimum(returns + 2, len(characters) - 1)] == ord("\n"))
    )
    stray = returns[~ends_line]
    for place, line in zip(stray.tolist(), np.searchsorted(ends, stray, side="right").tolist(), strict=True):
        is_whole = is_record[line] and (line + 1 == len(ends) or is_record[line + 1])
        if is_whole and data.count(b'"', int(starts[line]), place) % 2 == 0:
            bad.setdefault(line, "with a stray carriage return")


def _blank(data: bytes, starts: npt.NDArray[Any], ends: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which lines hold only their line end."""
    length = ends - starts
    if not len(ends):
        return np.empty(0, dtype=np.bool_)
    characters = np.frombuffer(data, np.uint8)
    returns = characters[starts] == ord("\r")
    second = characters[np.minimum(starts + 1, len(characters) - 1)] == ord("\r")
    blank: npt.NDArray[np.bool_] = (length == 1) | ((length == 2) & returns) | ((length == 3) & returns & second)
    return blank
