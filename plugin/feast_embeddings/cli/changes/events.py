"""`events`: what users did since the training, as a file to train on."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING

import click

from feast_embeddings.cli.options import json_option, model_option, one_model, print_json, repo_option
from feast_embeddings.cli.output_file import new_file, output_path
from feast_embeddings.errors import InputError
from feast_embeddings.repo import Repo

if TYPE_CHECKING:
    from feast_embeddings.events import Event


@click.command()
@click.option("--output", required=True, metavar="FILE", help="Parquet file to write.")
@repo_option
@model_option
@json_option
def events(output: str, repo: str, model: str | None, as_json: bool) -> None:
    """Write the recorded interactions to a Parquet file, with the columns of the log that the model was trained on.

    In the folder of the log, it is part of the next training. If the log has a column of types of events, so has the
    file; interactions that were recorded without one are counted on stderr.
    """
    target = output_path("--output", output, ".parquet")

    from feast_embeddings.artifact import LATEST, load_artifact, trained_models
    from feast_embeddings.events import event_log_of

    opened = Repo.open(repo)
    name = one_model(opened, model)
    columns = {"user": "user_id", "item": "item_id", "timestamp": "timestamp", "weight": None, "event": None}
    if name in trained_models(opened.data):
        columns |= (load_artifact(opened.data, name, LATEST).manifest.interactions or {}).get("columns", {})
    log, rows = event_log_of(opened.data, name), 0
    parts = log.batches()
    if (first := next(parts, None)) is None:
        raise InputError(f"no interactions of model {name!r} have been recorded: {log.path} has none")

    import pyarrow as pa
    import pyarrow.parquet as pq

    def batch(part: list[Event]) -> pa.RecordBatch:
        typed = columns["event"] is not None
        fields = {
            columns["user"]: pa.array([event.user_id for event in part]),
            columns["item"]: pa.array([event.item_id for event in part]),
            columns["timestamp"] or "timestamp": pa.array([event.timestamp for event in part]).cast(
                pa.timestamp("us", "UTC")
            ),
            columns["weight"] or "weight": pa.array(
                [event.own_weight if typed and event.own_weight is not None else event.weight for event in part]
            ),
        }
        if typed:
            fields[columns["event"]] = pa.array([event.type for event in part], pa.string())
        return pa.record_batch(fields)

    head, untyped = batch(first), 0
    with new_file(target) as file, pq.ParquetWriter(file, head.schema) as writer:
        for part in chain([first], parts):
            writer.write_batch(batch(part))
            rows += len(part)
            untyped += sum(event.type is None for event in part)
    if columns["event"] is not None and untyped:
        click.echo(
            f"warning: {untyped:,} of them {'has' if untyped == 1 else 'have'} no type for column {columns['event']!r} "
            "of the log; --on-bad-rows drop leaves them out of the training",
            err=True,
        )
    if as_json:
        print_json({"model": name, "rows": rows, "output": output})
    else:
        click.echo(f"wrote {rows:,} interaction{'' if rows == 1 else 's'} to {output}")
