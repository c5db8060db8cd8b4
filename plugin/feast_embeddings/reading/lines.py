"""A look at the lines of a text file before DuckDB reads it, for what its readers do not tell.

DuckDB 2.0 finds most rows that are no CSV. After a quote that is never closed, though, it silently goes on somewhere
else: of three million rows behind one, 415,000 were gone. So lines with an odd number of quotes, of which there are
few, are looked at here: either a quoted value goes on in the next line, or the quote is stray and its line is bad.
Counting the records tells, afterwards, that no row was lost.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feast_embeddings.errors import InputError
from feast_embeddings.reading.files import DataFile

BLOCK_BYTES = 8 << 20
# A quoted value that is longer was not meant to be one.
MOST_QUOTED_BYTES = 1 << 20
_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class BadLine:
    """A line with a stray quote: its number, and that of the record that it is, both counted from 1; and its text."""

    line: int
    record: int
    text: str


@dataclass
class TextLines:
    """What the lines of a file say.

    Attributes:
        records: lines that are not blank, without those that go on with a quoted value, and without bad ones.
        longest: bytes of the longest record.
        bad: the lines with a stray quote.
        has_quotes: whether there is a quote at all.
        has_mark: whether the file starts with a byte order mark.
    """

    records: int = 0
    longest: int = 0
    bad: list[BadLine] = field(default_factory=list)
    has_quotes: bool = False
    has_mark: bool = False
    _lines: int = 0

    @property
    def one_line_each(self) -> bool:
        """Whether every line is a record."""
        return self._lines == self.records + len(self.bad)

    def line_of(self, line: int) -> int:
        """The line of the file that is `line` in a copy of it without the bad lines."""
        return counted_with(line, [bad.line for bad in self.bad])


def look_at(file: DataFile, delimiter: str | None, copy: IO[bytes] | None = None) -> TextLines:
    """Read a text file once.

    Args:
        delimiter: between the values of CSV; None for lines without quotes, as JSON lines are.
        copy: where to write the file without bad lines and without a byte order mark.

    Raises:
        InputError: the file is UTF-16, or cannot be decompressed.
    """
    found = TextLines()
    held = b""
    for block in _blocks(file):
        if not found._lines and not held:
            if block.startswith(_UTF16_MARKS):
                raise InputError(f"{file} is UTF-16, expected UTF-8; save it as UTF-8")
            found.has_mark = block.startswith(_UTF8_MARK)
            block = block.removeprefix(_UTF8_MARK)
        held = _take(held + block, found, delimiter, copy, last=False)
    if held and not held.endswith((b"\n", b"\r")):
        held += b"\n" if b"\n" in held or b"\r" not in held else b"\r"
    _take(held, found, delimiter, copy, last=True)
    return found


def counted_with(number: int, left_out: Sequence[int]) -> int:
    """What place has been given to the `number`-th when those at the places `left_out`, ascending, count too."""
    for place in left_out:
        if place > number:
            break
        number += 1
    return number


@contextmanager
def opened(file: DataFile) -> Iterator[IO[bytes]]:
    """The bytes of a file, decompressed.

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
        raise InputError(f"{file} cannot be read: {reason}") from None


def _blocks(file: DataFile) -> Iterator[bytes]:
    with opened(file) as stream:
        while block := stream.read(BLOCK_BYTES):
            yield bytes(block)


def _take(data: bytes, found: TextLines, delimiter: str | None, copy: IO[bytes] | None, *, last: bool) -> bytes:
    """Take the records that end in `data`; the rest, which starts a record, is given back."""
    # The whole file may have the line ends of old Macs.
    end_of_line = b"\r" if b"\n" not in data and b"\r" in data[:-1] else b"\n"
    cut = len(data) if last else data.rfind(end_of_line) + 1
    ends = np.flatnonzero(np.frombuffer(data, np.uint8, cut) == end_of_line[0]) + 1
    starts = np.concatenate([[0], ends[:-1]]) if len(ends) else ends
    is_record = np.ones(len(ends), dtype=bool)
    bad: list[int] = []
    if delimiter is not None and b'"' in data[:cut]:
        found.has_quotes = True
        cut = _resolve_quotes(data, starts, ends, is_record, bad, delimiter, last)
        kept = int(np.searchsorted(ends, cut, side="right"))
        starts, ends, is_record = starts[:kept], ends[:kept], is_record[:kept]
    blank = _blank(data, starts, ends) & is_record
    records = found.records + len(found.bad) + np.cumsum(is_record & ~blank)
    found.bad += [
        BadLine(
            found._lines + 1 + line,
            int(records[line]),
            data[starts[line] : ends[line]].decode(errors="replace").strip("\r\n"),
        )
        for line in bad
    ]
    found.records += int(is_record.sum()) - int(blank.sum()) - len(bad)
    heads = np.append(starts[is_record], cut)
    if len(heads) > 1:
        found.longest = max(found.longest, int(np.diff(heads).max()))
    if copy is not None:
        place = 0
        for line in bad:
            copy.write(data[place : starts[line]])
            place = int(ends[line])
        copy.write(data[place:cut])
    found._lines += len(ends)
    return data[cut:]


def _resolve_quotes(
    data: bytes,
    starts: npt.NDArray[Any],
    ends: npt.NDArray[Any],
    is_record: npt.NDArray[np.bool_],
    bad: list[int],
    delimiter: str,
    last: bool,
) -> int:
    """Mark the lines that go on with a quoted value, and the bad ones; return the end of what could be decided."""
    quotes = np.flatnonzero(np.frombuffer(data, np.uint8, int(ends[-1]) if len(ends) else 0) == ord('"'))
    odd = np.flatnonzero(np.bincount(np.searchsorted(ends, quotes, side="right"), minlength=len(ends)) % 2)
    fields, close = _patterns(delimiter)
    decided = -1  # the last line that is part of a value found to be whole
    for line in odd.tolist():
        if line <= decided:
            continue
        place, end = int(starts[line]), int(ends[line])
        while True:
            # The complete values up to the end of the line, and what follows.
            place = fields.match(data, place, end).end()  # type: ignore[union-attr]
            if data[place : place + 1] != b'"':
                break  # a quote within a value without quotes, which is a character as any other
            closed = close.match(data, place + 1, min(len(data), place + MOST_QUOTED_BYTES))
            if closed is None:
                if not last and len(data) - place < MOST_QUOTED_BYTES:
                    return int(starts[line])  # the next block may close it
                bad.append(line)
                break
            value_end = closed.end()
            if value_end > end:
                after = min(int(np.searchsorted(ends, value_end, side="left")), len(ends) - 1)
                if value_end > int(ends[after]):
                    return int(starts[line])
                is_record[line + 1 : after + 1] = False
                decided, end = after, int(ends[after])
            place = value_end
            if data[place - 1 : place] != delimiter.encode():
                break
    return int(ends[-1]) if len(ends) else 0


def _patterns(delimiter: str) -> tuple[re.Pattern[bytes], re.Pattern[bytes]]:
    between = re.escape(delimiter).encode()
    quoted = rb'[^"]*(?:""[^"]*)*"'
    plain = rb'(?!")[^%s\n]*' % between
    fields = re.compile(rb'(?:(?:"[^"\n]*(?:""[^"\n]*)*"|%s)%s)*+' % (plain, between))
    return fields, re.compile(quoted + rb"(?:%s|\r?\n|\r)" % between)


def _blank(data: bytes, starts: npt.NDArray[Any], ends: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Lines of nothing but their end."""
    length = ends - starts
    if not len(ends):
        return np.empty(0, dtype=np.bool_)
    first = np.frombuffer(data, np.uint8)[starts]
    blank: npt.NDArray[np.bool_] = (length == 1) | ((length == 2) & (first == ord("\r")))
    return blank
