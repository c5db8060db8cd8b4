"""Quotes of CSV that are one too many: does the value go on in the next line, or is the quote stray?"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

# A quoted value that is longer was not meant to be one.
_MOST_QUOTED_BYTES = 1 << 20


def resolve_quotes(
    data: bytes,
    starts: npt.NDArray[Any],
    ends: npt.NDArray[Any],
    is_record: npt.NDArray[np.bool_],
    bad: dict[int, str],
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
            closed = close.match(data, place + 1, min(len(data), place + _MOST_QUOTED_BYTES))
            if closed is None:
                if not last and len(data) - place < _MOST_QUOTED_BYTES:
                    return int(starts[line])  # the next block may close it
                bad[line] = "with a quote that is never closed"
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
