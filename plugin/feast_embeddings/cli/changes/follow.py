"""`follow`: interactions from a folder, Kafka or PostgreSQL into the model's event log, as a process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feast_embeddings.cli.options import json_option, model_option, one_model, open_store, print_json, repo_option
from feast_embeddings.errors import InputError
from feast_embeddings.model.from_trainers import from_trainers
from feast_embeddings.repo import Repo

if TYPE_CHECKING:
    from feast_embeddings.artifact import Entity
    from feast_embeddings.following import Batch, Form
    from feast_embeddings.query.events.vectors import EventsPushed
    from feast_embeddings.reading import IdType

_ROWS = 1000
# They add the argument ``source_of``, which makes of a place what says how interactions are written there.
_column_options: Callable[[Callable[..., None]], Callable[..., None]] = from_trainers("columns")
_Configured: type[click.Command] = from_trainers("command")


@click.command(cls=_Configured)
@click.option(
    "--source",
    required=True,
    metavar="SOURCE",
    help="folder:DIR or DIR: Parquet, CSV or JSON files that appear in it; kafka://host:port/topic: messages in JSON; "
    "postgresql://user:${PGPASSWORD}@host/database: rows of a table.",
)
@click.option("--table", metavar="NAME", help='PostgreSQL: the table as in SQL, such as shop.clicks or shop."Clicks".')
@click.option("--position-column", metavar="NAME", help="PostgreSQL: the column that numbers the rows.  [default: id]")
@click.option("--group", metavar="NAME", help="Kafka: the consumer group.  [default: feast-embeddings-MODEL]")
@click.option(
    "--kafka-conf",
    multiple=True,
    metavar="KEY=VALUE",
    help="Kafka: a setting of librdkafka, as security.protocol=SASL_SSL; ${NAME} is a variable of the environment.",
)
@click.option(
    "--batch",
    type=click.IntRange(1, 100_000),
    metavar="N",
    help="Kafka, PostgreSQL: messages or rows a batch.  [default: 1000]",
)
@click.option("--once", is_flag=True, help="Read everything that is there, and end.")
@click.option(
    "--push",
    is_flag=True,
    help="After each batch, write the vectors that it changed into the live collection, as fold-in --events does.",
)
@click.option("--quiet", is_flag=True, help="No line for each batch.")
@_column_options
@repo_option
@model_option
@json_option
def follow(
    source: str,
    table: str | None,
    position_column: str | None,
    group: str | None,
    kafka_conf: tuple[str, ...],
    batch: int | None,
    once: bool,
    push: bool,
    quiet: bool,
    source_of: Callable[[str], Any],
    repo: str,
    model: str | None,
    as_json: bool,
) -> None:
    """Record interactions from files that appear in a folder, a Kafka topic, or a table of PostgreSQL.

    Each is recorded once, as by POST …/interactions: the next rank knows it, and with --push every query. SIGINT and
    SIGTERM end it after the current batch, with exit code 0.
    """
    from feast_embeddings.events import event_log_of
    from feast_embeddings.following import Table, Topic, follow_folder, follow_table, follow_topic

    opened = Repo.open(repo)
    name = one_model(opened, model)
    form = _form(source_of(source), _id_types(opened, name))
    log = event_log_of(opened.data, name)
    pushes = _pushes(repo, name) if push else None
    given: dict[str, object] = {"--table": table, "--position-column": position_column}
    given |= {"--group": group, "--kafka-conf": kafka_conf, "--batch": batch}
    with _stopping() as stopped:
        if source.startswith("kafka:"):
            _refuse(given, "a topic", "--table", "--position-column")
            topic = Topic.parse(source, group or f"feast-embeddings-{name}", _settings(kafka_conf))
            batches = follow_topic(topic, log, form, batch=batch or _ROWS, once=once, stopped=stopped)
        elif Table.is_address(source):
            _refuse(given, "a table", "--group", "--kafka-conf")
            followed = Table.parse(source, table, position_column)
            batches = follow_table(followed, log, form, batch=batch or _ROWS, once=once, stopped=stopped)
        else:
            _refuse(given, "a folder", *given)
            folder = Path(source.removeprefix("folder:"))
            batches = follow_folder(folder, log, form, once=once, stopped=stopped)
        _report(batches, pushes, quiet, as_json)


def _refuse(given: dict[str, object], source: str, *options: str) -> None:
    for option in options:
        if given[option]:
            raise InputError(f"{option} has no effect on {source}; leave it out")


def _pushes(repo: str, model: str) -> Callable[[], EventsPushed]:
    """Push all that a killed process left unpushed; return a function that pushes later batches."""
    store = open_store(repo, model)
    last = store.push_events()

    def push() -> EventsPushed:
        nonlocal last
        last = store.push_events(last.position)
        return last

    return push


def _report(batches: Iterator[Batch], pushes: Callable[[], EventsPushed] | None, quiet: bool, as_json: bool) -> None:
    for batch in batches:
        pushed = None if pushes is None else pushes()
        if as_json:
            counts = {} if pushed is None else {"pushed_users": pushed.users, "pushed_items": pushed.items}
            print_json(batch._asdict() | counts)
        elif not quiet:
            said = "" if pushed is None else f"; pushed {pushed.users:,} users and {pushed.items:,} items"
            click.echo(_line(batch) + said)


def _settings(given: tuple[str, ...]) -> dict[str, str]:
    settings = {}
    for each in given:
        name, equals, value = each.partition("=")
        if not name or not equals:
            raise InputError(f"--kafka-conf {name!r}: expected KEY=VALUE")  # what came may be a secret
        settings[name] = value
    return settings


def _line(batch: Batch) -> str:
    counts = [
        (batch.duplicates, "there already"),
        (batch.without_weight, "of weight 0"),
        (batch.dropped, "dropped, for they cannot be used"),
    ]
    said = [f"{batch.added:,} added", *(f"{count:,} {what}" for count, what in counts if count)]
    return f"{batch.source}: {', '.join(said)}; {batch.behind:,} behind"


def _id_types(repo: Repo, model: str) -> dict[Entity, IdType]:
    """Return the types of the ids of a model that has been trained."""
    import pyarrow as pa

    from feast_embeddings.artifact import ENTITIES, LATEST, load_artifact, trained_models

    if model not in trained_models(repo.data):
        return {}
    artifact = load_artifact(repo.data, model, LATEST)
    for entity in ENTITIES:
        if entity not in artifact.manifest.sides:
            raise InputError(f"model {model!r} has no {entity}s, so there are no interactions to record")
    return {
        entity: "text" if pa.types.is_string(artifact.schema(entity).field(f"{entity}_id").type) else "int"
        for entity in ENTITIES
    }


def _form(source: Any, id_types: dict[Entity, IdType]) -> Form:
    """Return the form of interactions that the options name; the model's types of ids override an option's."""
    from feast_embeddings.following import Form

    columns, reading = source.columns, source.reading
    columns.check(source.preparation)
    return Form(
        user=columns.user,
        item=columns.item,
        timestamp=columns.timestamp,
        weight=columns.weight,
        event=columns.event,
        event_weights=source.preparation.event_weights,
        user_ids=id_types.get("user", reading.user_ids),
        item_ids=id_types.get("item", reading.item_ids),
        time_format=reading.time_format,
        allow_future=reading.allow_future,
        on_bad_rows=reading.on_bad_rows,
    )


@contextmanager
def _stopping() -> Iterator[Callable[[], bool]]:
    """Yield a function that says whether SIGINT or SIGTERM came."""
    came: list[int] = []
    before = {each: signal.signal(each, lambda number, _: came.append(number)) for each in _SIGNALS}
    try:
        yield lambda: bool(came)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


_SIGNALS = (signal.SIGINT, signal.SIGTERM)
