"""The options that say which interactions a command works on."""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from embedding_trainers.commands.settings import LIKE, is_given, log_option, refuse_typed
from embedding_trainers.commands.value_types import DURATION, EVENT_WEIGHTS, TIME
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from embedding_trainers.interactions import Columns, Interactions, LogReport, Preparation, Reading
    from feast_embeddings.reading import Source

__all__ = ["QUERY", "InteractionSource", "column_options", "fold_in_options", "interaction_options", "reading_options"]


@dataclass(frozen=True)
class InteractionSource:
    """A log and how to read it, as given on the command line."""

    location: str
    columns: Columns
    preparation: Preparation
    reading: Reading
    query: str | None = None
    repo: Path | None = None

    @property
    def source(self) -> Source:
        """The log, to be read here; Spark reads the location itself."""
        from feast_embeddings.reading import located

        return located(self.location, self.query, self.repo, self.preparation.since, self.preparation.until)

    def read(self, test_events: Collection[str] = ()) -> tuple[Interactions, LogReport]:
        """Read it; see `read_log`."""
        from embedding_trainers.interactions import read_log

        return read_log(self.source, self.columns, self.preparation, self.reading, test_events)

    def to_predict(self, location: str) -> InteractionSource:
        """Another log of the same form, of which all counts that is an interaction at all."""
        preparation = type(self.preparation)(event_weights=self.preparation.event_weights)
        return replace(self, location=location, preparation=preparation, query=None)

    def table(self, location: str | None) -> Source | None:
        """A table of users or items next to the log; None for none."""
        from feast_embeddings.reading import located

        return None if location is None else located(location, repo=self.repo)


_LOG_HELP = (
    "Parquet, CSV or JSON, a folder or a glob of them; - for standard input; feast:NAME, a database, a table of Delta "
    "or Iceberg, or s3:// and the like; see docs/input.md."
)

_LOG = log_option(
    "--interactions",
    required=True,
    type=click.Path(),
    metavar="FILE",
    help=_LOG_HELP,
)
QUERY = log_option("--query", metavar="SQL", help="What to read of a database, or of Parquet files as the table log.")
_COLUMNS = (
    log_option("--user-column", default="user_id", show_default=True, metavar="NAME"),
    log_option("--item-column", default="item_id", show_default=True, metavar="NAME"),
    log_option(
        "--timestamp-column",
        metavar="NAME",
        help="Times: timestamps, dates, ISO 8601 or numbers since 1970 in s, ms, µs or ns.  "
        "[default: timestamp, if there is one]",
    ),
    log_option(
        "--time-format",
        metavar="FORMAT",
        help="Format of times, if another one, e.g. %Y%m%d%H%M%S (strptime).",
    ),
    log_option("--allow-future/--no-allow-future", help="Keep rows that are more than a day ahead of the clock."),
    log_option(
        "--id-type",
        type=click.Choice(["text", "int"]),
        help="Read all ids as text, or as whole numbers.  [default: as in the previous version; else text is text, "
        "and numbers in Parquet and JSON are numbers]",
    ),
    log_option(
        "--on-bad-rows",
        type=click.Choice(["error", "drop"]),
        default="error",
        show_default=True,
        help="What to do with rows that cannot be used: stop and list them by kind, or drop them and say how many.",
    ),
    log_option(
        "--weight-column",
        metavar="NAME",
        help="Strength of an interaction; 0 means none. bpr only tells zero from non-zero.  [default: 1 each]",
    ),
    log_option("--event-column", metavar="NAME", help="Type of an interaction, such as view or purchase."),
    log_option(
        "--event-weights",
        type=EVENT_WEIGHTS,
        metavar="TYPE=WEIGHT,…",
        help="Strength of each type of the event column, e.g. view=1,cart=3,purchase=5; 0 leaves it out.",
    ),
)
_PREPARATION = (
    log_option(
        "--half-life",
        type=DURATION,
        metavar="DURATION",
        help="An interaction this much older than the newest one counts half, e.g. 30d (s, m, h, d, w).",
    ),
    log_option(
        "--since",
        type=TIME,
        metavar="TIME",
        help="Leave out interactions before TIME (ISO 8601; UTC without an offset).",
    ),
    log_option("--until", type=TIME, metavar="TIME", help="Leave out interactions after TIME."),
    log_option(
        "--drop-duplicates/--no-drop-duplicates",
        help="Keep one of several rows with the same user, item, time and weight.",
    ),
    log_option(
        "--max-user-interactions",
        type=click.IntRange(1),
        metavar="INT",
        help="Leave out users with more interactions, such as bots.",
    ),
    log_option(
        "--min-user-interactions",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="INT",
        help="Leave out users with fewer interactions, repeatedly until none has fewer.",
    ),
    log_option(
        "--min-item-interactions",
        type=click.IntRange(1),
        default=1,
        show_default=True,
        metavar="INT",
        help="The same for items.",
    ),
)

# The options of fold-in that mean something with recorded events.
_WITH_EVENTS = {"events", "entity", "repo", "model", "output", "push", "as_json"}


def interaction_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options to a command, which gets them as one argument ``source``."""

    @functools.wraps(command)
    def with_source(
        interactions: str, query: str | None, source_of: Callable[[str], InteractionSource], **others: Any
    ) -> None:
        command(source=replace(source_of(interactions), query=query, repo=others.get("repo")), **others)

    return _LOG(QUERY(reading_options(with_source)))


def fold_in_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of `interaction_options`, and those that take the place of a log: recorded events, or new rows.

    The command gets the arguments ``source``, None without a log, ``attributes`` by entity, with the tables given, and
    ``events``, whether recorded events are folded in.
    """

    @functools.wraps(command)
    def with_source(
        interactions: str | None,
        events: bool,
        users: str | None,
        items: str | None,
        query: str | None,
        source_of: Callable[[str], InteractionSource],
        **others: Any,
    ) -> None:
        if events:
            every = {parameter.name or "" for parameter in click.get_current_context().command.params}
            refuse_typed(sorted(every - _WITH_EVENTS), "has no effect with --events; leave out one of them")
            command(source=None, attributes={}, events=True, **others)
            return
        source = replace(source_of(interactions or ""), query=query, repo=others.get("repo"))
        tables = {entity: source.table(path) for entity, path in (("user", users), ("item", items)) if path is not None}
        if interactions is None and not tables:
            raise InputError(
                "name a log with --interactions, or a table of new ones with --users or --items, or take the recorded "
                "interactions with --events"
            )
        # A log in embeddings.toml is the training's, not the log of new users or items.
        has_log = not tables or is_given(click.get_current_context(), "interactions")
        command(source=source if has_log else None, attributes=tables, events=False, **others)

    log = log_option("--interactions", type=click.Path(), metavar="FILE", help=_LOG_HELP)
    new_items = click.option(
        "--items",
        type=click.Path(),
        metavar="FILE",
        help="New items with their attributes, one row each, for a version trained with content: their interactions, "
        "if there are any, are in --interactions.",
    )
    new_users = click.option("--users", type=click.Path(), metavar="FILE", help="The same for new users.")
    recorded = click.option(
        "--events",
        is_flag=True,
        help="Instead of a log: what was recorded. Users with newer interactions than their vector, and items that the "
        "training did not know.",
    )
    return log(recorded(new_users(new_items(QUERY(reading_options(with_source))))))


def reading_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add those that say how a log is read to a command that names its files itself.

    It gets them as the argument ``source_of``, which makes an `InteractionSource` of a path.
    """

    @functools.wraps(command)
    def with_preparation(
        half_life: timedelta | None,
        since: datetime | None,
        until: datetime | None,
        drop_duplicates: bool,
        max_user_interactions: int | None,
        min_user_interactions: int,
        min_item_interactions: int,
        source_of: Callable[[str], InteractionSource],
        **others: Any,
    ) -> None:
        def prepared(location: str) -> InteractionSource:
            source = source_of(location)
            preparation = replace(
                source.preparation,
                since=since,
                until=until,
                half_life=half_life,
                drop_duplicates=drop_duplicates,
                max_user_interactions=max_user_interactions,
                min_user_interactions=min_user_interactions,
                min_item_interactions=min_item_interactions,
            )
            return replace(source, preparation=preparation)

        command(source_of=prepared, **others)

    for option in reversed((*_PREPARATION, LIKE)):
        with_preparation = option(with_preparation)
    return _with_columns(with_preparation)


def column_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add only those that name columns and say how their values are read; see `reading_options`."""
    return _with_columns(LIKE(command))


def _with_columns(command: Callable[..., None]) -> Callable[..., None]:
    @functools.wraps(command)
    def with_columns(
        user_column: str,
        item_column: str,
        timestamp_column: str | None,
        time_format: str | None,
        allow_future: bool,
        id_type: Literal["text", "int"] | None,
        on_bad_rows: Literal["error", "drop"],
        weight_column: str | None,
        event_column: str | None,
        event_weights: dict[str, float] | None,
        **others: Any,
    ) -> None:
        from embedding_trainers.interactions import Columns, Preparation, Reading

        columns = Columns(user_column, item_column, timestamp_column, weight_column, event_column)
        preparation = Preparation(event_weights=event_weights or {})
        reading = Reading(id_type, id_type, _strptime(time_format), allow_future, on_bad_rows)
        command(source_of=lambda location: InteractionSource(location, columns, preparation, reading), **others)

    for option in reversed(_COLUMNS):
        with_columns = option(with_columns)
    return with_columns


def _strptime(form: str | None) -> str | None:
    if form is not None and "%" not in form:
        raise InputError(f"--time-format {form!r}: expected a form of strptime, e.g. %Y%m%d%H%M%S for 20260131235959")
    return form
