"""Decide for unpaired CSV quotes whether the value continues in the next line, or the quote is stray."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt

# A longer quoted value is not intended.
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
    """Mark the lines that continue a quoted value, and the bad ones; return the end of the decided part."""
    quotes = np.flatnonzero(np.frombuffer(data, np.uint8, int(ends[-1]) if len(ends) else 0) == ord('"'))
    odd = np.flatnonzero(np.bincount(np.searchsorted(ends, quotes, side="right"), minlength=len(ends)) % 2)
    fields, close = _patterns(delimiter)
    decided = -1  # the last line of a complete value
    for line in odd.tolist():
        if line <= decided:
            continue
        place, end = int(starts[line]), int(ends[line])
        while True:
            # The complete values up to the end of the line, then the rest.
            place = fields.match(data, place, end).end()  # type: ignore[union-attr]
            if data[place : place + 1] != b'"':
                break  # a quote within an unquoted value is an ordinary character
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
