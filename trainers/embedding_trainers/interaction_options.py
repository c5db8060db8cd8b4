"""The options that say which interactions a command works on."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from embedding_trainers.interactions import Columns, Interactions
    from embedding_trainers.preparation import Preparation

__all__ = ["InteractionSource", "interaction_options", "reading_options"]


@dataclass(frozen=True)
class InteractionSource:
    """A log and how to read it, as given on the command line."""

    path: Path
    columns: Columns
    preparation: Preparation

    def read(self) -> Interactions:
        """Read it; see `read_interactions`."""
        from embedding_trainers.interactions import read_interactions

        return read_interactions(self.path, self.columns, self.preparation)

    def to_foretell(self, path: Path) -> InteractionSource:
        """Another log of the same form, of which all counts that is an interaction at all."""
        return replace(
            self, path=path, preparation=type(self.preparation)(event_weights=self.preparation.event_weights)
        )


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
    click.option("--event-column", metavar="NAME", help="Type of an interaction, such as view or purchase."),
    click.option(
        "--event-weights",
        metavar="TYPE=WEIGHT,…",
        help="Strength of each type of the event column, e.g. view=1,cart=3,purchase=5; 0 leaves it out.",
    ),
    click.option(
        "--half-life",
        metavar="DURATION",
        help="An interaction this much older than the newest one counts half, e.g. 30d (s, m, h, d, w).",
    ),
    click.option(
        "--since",
        metavar="TIME",
        help="Leave out what happened before TIME (ISO 8601, UTC unless it says otherwise).",
    ),
    click.option("--until", metavar="TIME", help="Leave out what happened after TIME."),
    click.option(
        "--min-user-interactions",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="INT",
        help="Leave out users with fewer, and those that fall below as items go.",
    ),
    click.option(
        "--min-item-interactions",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="INT",
        help="The same for items.",
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
        event_column: str | None,
        event_weights: str | None,
        half_life: str | None,
        since: str | None,
        until: str | None,
        min_user_interactions: int,
        min_item_interactions: int,
        **others: Any,
    ) -> None:
        from embedding_trainers.interactions import Columns
        from embedding_trainers.preparation import Preparation
        from embedding_trainers.timestamps import parse_duration, parse_time

        columns = Columns(user_column, item_column, timestamp_column, weight_column, event_column)
        preparation = Preparation(
            since=None if since is None else parse_time(since),
            until=None if until is None else parse_time(until),
            event_weights={} if event_weights is None else _weights(event_weights),
            half_life=None if half_life is None else parse_duration(half_life),
            min_user_interactions=min_user_interactions,
            min_item_interactions=min_item_interactions,
        )
        command(source_of=lambda path: InteractionSource(path, columns, preparation), **others)

    for option in reversed(_OPTIONS):
        with_reading = option(with_reading)
    return with_reading


def _weights(text: str) -> dict[str, float]:
    weights: dict[str, float] = {}
    for part in text.split(","):
        event, _, weight = part.rpartition("=")
        event = event.strip()
        try:
            number = float(weight)
        except ValueError:
            event = ""
        if not event:
            raise InputError(f"--event-weights {part!r}: expected TYPE=WEIGHT, e.g. view=1,cart=3,purchase=5")
        if event in weights:
            raise InputError(f"--event-weights gives {event!r} twice")
        weights[event] = number
    return weights
