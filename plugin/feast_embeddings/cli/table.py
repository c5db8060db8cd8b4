"""Tables of text: whole in a file or pipe, and cut to the width of a terminal."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["fitting"]

# A text narrower than this says nothing, so a table of very many columns gets wider than the terminal.
_NARROWEST = 12


def fitting(frame: pd.DataFrame, decimals: int = 4) -> str:
    """Return the frame as text; for a terminal, with long texts cut so that each row fits one line."""
    if (width := _terminal_width()) is None:
        return _text(frame, decimals)
    cells = {
        name: ["" if value is None else " ".join(str(value).split()) for value in frame[name]]
        for name in frame.columns
        if frame[name].map(lambda value: isinstance(value, str | list)).any()
    }
    limits = {name: max(map(len, texts)) for name, texts in cells.items()}
    while True:
        cut = {
            name: [text if len(text) <= limits[name] else text[: limits[name] - 1] + "…" for text in texts]
            for name, texts in cells.items()
        }
        shown = _text(frame.assign(**cut), decimals)
        widest = max(limits, key=lambda name: limits[name], default=None)
        if len(shown.partition("\n")[0]) <= width or widest is None or limits[widest] <= _NARROWEST:
            return shown
        limits[widest] = max(_NARROWEST, limits[widest] - 8)


def _terminal_width() -> int | None:
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def _text(frame: pd.DataFrame, decimals: int) -> str:
    return str(frame.to_string(index=False, float_format=lambda x: f"{x:.{decimals}f}"))
