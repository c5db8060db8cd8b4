"""`fold-in`: compute vectors for new users or items, for a file, the live collection, or both."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from feast_embeddings.cli.options import json_option, model_option, open_store, print_json, repo_option
from feast_embeddings.cli.output_file import new_file, output_path
from feast_embeddings.cli.version_words import LIVE, VERSION, version_named
from feast_embeddings.errors import InputError
from feast_embeddings.model.from_trainers import from_trainers

if TYPE_CHECKING:
    from feast_embeddings.artifact import Entity

_SHOWN = 5
# They add three arguments: ``source``, a log that has not been read yet, ``attributes``, tables by entity, and
# ``events``, whether recorded interactions are folded in instead.
_log_options: Callable[[Callable[..., None]], Callable[..., None]] = from_trainers("options")
_Configured: type[click.Command] = from_trainers("command")


@click.command(cls=_Configured)
@_log_options
@repo_option
@model_option
@click.option("--entity", required=True, type=click.Choice(["user", "item"]), help="Which side gets vectors.")
@click.option("--version", default=LIVE, show_default=True, type=VERSION, help="The version to fold into.")
@click.option("--output", metavar="FILE", help="Parquet file to write, with the columns of the version's own table.")
@click.option("--push", is_flag=True, help="Write the vectors into the live collection.")
@click.option(
    "--update", is_flag=True, help="Also replace the live vectors of users or items that were in the training."
)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="INT")
@json_option
def fold_in(
    source: Any,
    attributes: dict[str, Any],
    events: bool,
    repo: str,
    model: str | None,
    entity: Entity,
    version: str,
    output: str | None,
    push: bool,
    update: bool,
    seed: int,
    as_json: bool,
) -> None:
    """Compute vectors for users or items that are newer than the training.

    They come from interactions; with --users or --items, from attributes, and interactions if there are any; with
    --events, from the interactions that were recorded since the training.
    """
    target = None if output is None else output_path("--output", output, ".parquet")
    if target is None and not push:
        raise InputError("name a file with --output, or write into the live collection with --push")
    if update and not push:
        raise InputError("--update has no effect without --push")
    for other in attributes.keys() - {entity}:
        raise InputError(f"--{other}s has no effect with --entity {entity}; leave out one of them")
    store = open_store(repo, model)
    log, became = (None, None) if source is None else source.read()
    if events:
        folded, spec = store.fold_in_events(entity, push=push), store.live().side(entity).spec
        version, space = spec.version, spec.space
    else:
        into = None if version == LIVE else version_named(Path(repo), store.model, version)
        fold = store.fold_in_users if entity == "user" else store.fold_in_items
        folded = fold(log, attributes=attributes.get(entity), version=into, push=push, update=update, seed=seed)
        version, space = (folded.table[name][0].as_py() for name in ("version", "space"))
    if target is not None:
        import pyarrow.parquet as pq

        with new_file(target) as file:
            pq.write_table(folded.table, file)
    missing = folded.missing.to_pylist()
    if as_json:
        report = {"entity": entity, "version": version, "space": space, "folded_in": folded.table.num_rows}
        counts = {"known": len(folded.known), "interactions": folded.n_interactions, "unknown": folded.n_unknown}
        rows = None if became is None else dataclasses.asdict(became)
        print_json({**report, **counts, "missing": missing, "rows": rows, "output": output, "pushed": push})
        return
    for line in [] if became is None else became.lines():
        click.echo(line)
    click.echo(f"{_several(len(folded.ids), entity)} folded into version {version}" + (", and pushed" if push else ""))
    if len(folded.known):
        click.echo(f"{len(folded.known):,} of them {'had a vector' if events else 'were in its training'}")
    if folded.n_unknown:
        other = "items" if entity == "user" else "users"
        click.echo(f"{folded.n_unknown:,} of {folded.n_interactions:,} interactions are with {other} it does not know")
    if missing:
        shown = ", ".join(map(str, missing[:_SHOWN])) + (", …" if len(missing) > _SHOWN else "")
        click.echo(
            f"without a vector, for all of their interactions are such: {_several(len(missing), entity)} ({shown})"
        )
    if target is not None:
        click.echo(f"wrote {target}")


def _several(n: int, entity: str) -> str:
    return f"{n:,} {entity}" + ("" if n == 1 else "s")
