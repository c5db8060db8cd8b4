"""Tables of text: whole in a file or pipe, and cut to the width of a terminal; with all columns, or those chosen."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["columns_of", "columns_option", "fitting", "table_of"]

# A text narrower than this says nothing, so a table of very many columns gets wider than the terminal.
_NARROWEST = 12


def _split(context: click.Context, parameter: click.Parameter, value: str | None) -> list[str] | None:
    return None if value is None else [name.strip() for name in value.split(",")]


def columns_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command ``--columns``: a list of names, or None for all."""
    described = "Show these columns only, in this order."
    return click.option("--columns", metavar="A,B", callback=_split, help=described)(command)


def columns_of(names: Sequence[str], chosen: Sequence[str] | None) -> list[str]:
    """Return the columns to show.

    Raises:
        InputError: one of the chosen is not among `names`.
    """
    for name in chosen or ():
        if name not in names:
            raise InputError(f"--columns: there is no {name!r}; there are {', '.join(names)}")
    return list(names if chosen is None else chosen)


def table_of(rows: Sequence[dict[str, Any]], chosen: Sequence[str] | None, as_json: bool) -> pd.DataFrame:
    """Return a report as a table of the chosen columns, empty where a row has none.

    Raises:
        InputError: there is no such column, or the report is shown as JSON, which has other names.
    """
    import pandas as pd

    if as_json and chosen is not None:
        raise InputError("--columns chooses columns of the table, and --json shows all that is known; leave out one")
    frame = pd.DataFrame(list(rows)).fillna("")
    return frame[columns_of(list(frame.columns), chosen)]


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
