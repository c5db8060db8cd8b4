"""The options that say which interactions a command works on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from embedding_trainers.interactions import Columns, Interactions

__all__ = ["InteractionSource", "interaction_options", "reading_options"]


@dataclass(frozen=True)
class InteractionSource:
    """A log and how to read it, as given on the command line."""

    path: Path
    columns: Columns
    until: datetime | None

    def read(self) -> Interactions:
        """Read it; see `read_interactions`."""
        from embedding_trainers.interactions import read_interactions

        return read_interactions(self.path, self.columns, until=self.until)


_LOG = click.option(
    "--interactions",
    "path",
    required=True,
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Parquet, CSV, JSON lines, or a folder of Parquet.",
)
_OPTIONS = (
    click.option("--user-column", default="user_id", show_default=True, metavar="NAME"),
    click.option("--item-column", default="item_id", show_default=True, metavar="NAME"),
    click.option(
        "--timestamp-column",
        metavar="NAME",
        help="Times: timestamps, dates, ISO 8601 or whole numbers since "
        "1970 in s, ms, µs or ns.  [default: timestamp, if there is one]",
    ),
    click.option(
        "--weight-column",
        metavar="NAME",
        help="Strength of an interaction; 0 is none, and bpr asks no more than that.  [default: 1 each]",
    ),
    click.option(
        "--until",
        metavar="TIME",
        help="Leave out what happened after TIME (ISO 8601, UTC unless it says otherwise).",
    ),
)


def interaction_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets them as one argument ``source``."""

    @functools.wraps(command)
    def with_source(path: Path, source_of: Callable[[Path], InteractionSource], **others: Any) -> None:
        command(source=source_of(path), **others)

    return _LOG(reading_options(with_source))


def reading_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add those that say how a log is read to a command that names its files itself.

    It gets them as the argument ``source_of``, which makes an `InteractionSource` of a path.
    """

    @functools.wraps(command)
    def with_reading(
        user_column: str,
        item_column: str,
        timestamp_column: str | None,
        weight_column: str | None,
        until: str | None,
        **others: Any,
    ) -> None:
        from embedding_trainers.interactions import Columns
        from embedding_trainers.timestamps import parse_time

        def source_of(path: Path) -> InteractionSource:
            columns = Columns(user_column, item_column, timestamp_column, weight_column)
            return InteractionSource(path, columns, None if until is None else parse_time(until))

        command(source_of=source_of, **others)

    for option in reversed(_OPTIONS):
        with_reading = option(with_reading)
    return with_reading
