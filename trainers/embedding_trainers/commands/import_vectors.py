"""The command ``feast-embeddings import``. Heavy imports wait until it runs, so that its help is instant."""

from __future__ import annotations

import json
import math
import shlex
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from embedding_trainers.commands.repo_option import repo_option
from embedding_trainers.commands.settings import ConfiguredCommand, is_given, log_option, train_option
from embedding_trainers.commands.value_types import ATTRIBUTE_TYPES, TIME
from feast_embeddings.cli.version_words import VERSION, version_named
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from feast_embeddings.artifact import Entity
    from feast_embeddings.reading import ColumnType, IdType

__all__ = ["import_vectors"]


@click.command("import", cls=ConfiguredCommand)
@repo_option("Feast repository; the version is written to DIR/data.")
@click.option("--model", required=True, metavar="NAME", help="Lower-case letters, digits and '_'.")
@click.option("--users", type=click.Path(), metavar="FILE", help="Table of users with their vectors.")
@click.option("--items", type=click.Path(), metavar="FILE", help="Table of items with their vectors.")
@log_option("--user-column", default="user_id", show_default=True, metavar="NAME", help="Column of the users' ids.")
@log_option("--item-column", default="item_id", show_default=True, metavar="NAME", help="Column of the items' ids.")
@click.option("--vector-column", default="embedding", show_default=True, metavar="NAME", help="Column of the vectors.")
@log_option(
    "--id-type",
    type=click.Choice(["text", "int"]),
    help="Read all ids as text, or as whole numbers.  [default: as in the previous version; else as in the file]",
)
@train_option(
    "--attribute-types",
    type=ATTRIBUTE_TYPES,
    metavar="NAME=TYPE,…",
    help="Types of attributes: text, int, float, bool or time, e.g. price=float,zip=text.  [default: as in the "
    "previous version; else what all values of a CSV column look like]",
)
@click.option(
    "--as-of", type=TIME, metavar="TIME", help="Time from which the vectors are valid, in ISO 8601.  [default: now]"
)
@click.option(
    "--space",
    metavar="NAME",
    help="Versions imported under one name have comparable vectors, e.g. of the same encoder.  [default: a new space]",
)
@click.option("--align-to", type=VERSION, help="Rotate the vectors into the space of this version; scores stay.")
@click.option("--source", default="", metavar="TEXT", help="Where the vectors come from, for the manifest.")
@click.option("--metrics", metavar="NAME=NUMBER,…", help="Ranking quality as measured elsewhere, e.g. recall@20=0.2.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def import_vectors(
    repo: Path,
    model: str,
    users: str | None,
    items: str | None,
    user_column: str,
    item_column: str,
    vector_column: str,
    id_type: IdType | None,
    attribute_types: dict[str, ColumnType] | None,
    as_of: datetime | None,
    space: str | None,
    align_to: str | None,
    source: str,
    metrics: str | None,
    as_json: bool,
) -> None:
    """Make a version of vectors that were made elsewhere, of users, of items, or of both."""
    from embedding_trainers.importing import VectorFile, import_model
    from feast_embeddings.reading import located

    context = click.get_current_context()
    given: dict[Entity, tuple[str | None, str]] = {"user": (users, user_column), "item": (items, item_column)}
    artifact = import_model(
        repo,
        model,
        {
            entity: VectorFile(
                located(path, repo=repo), column, vector_column, id_type, is_given(context, f"{entity}_column")
            )
            for entity, (path, column) in given.items()
            if path is not None
        },
        attribute_types=attribute_types,
        as_of=as_of,
        space=space,
        align_to=None if align_to is None else version_named(repo, model, align_to),
        source=source,
        metrics=None if metrics is None else _metrics(metrics),
    )
    manifest = artifact.manifest
    if as_json:
        click.echo(json.dumps(manifest.model_dump(mode="json", exclude={"files"}) | {"path": str(artifact.path)}))
        return
    sizes = " and ".join(f"{manifest.rows(entity):,} {entity}s" for entity in manifest.sides)
    click.echo(f"imported {manifest.model} version {manifest.version}: {sizes} of dimension {manifest.dim}")
    started = f" ({manifest.new_space_reason})" if manifest.new_space_reason else ""
    click.echo(f"  vector space {manifest.space_id}{started}")
    if manifest.aligned_to:
        click.echo(f"  aligned to version {manifest.aligned_to}: residual {manifest.alignment_residual:.2f}")
    click.echo(f"  {artifact.path}")
    folder = shlex.quote(str(repo))
    click.echo(f"next: feast -c {folder} apply && feast-embeddings publish --repo {folder} --model {manifest.model}")


def _metrics(text: str) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = part.partition("=")
        try:
            value = float(number)
        except ValueError:
            value = math.nan
        if not name.strip() or not math.isfinite(value) or name.strip() in metrics:
            raise InputError(f"--metrics {part!r}: expected NAME=NUMBER with each name once, e.g. recall@20=0.2")
        metrics[name.strip()] = value
    return metrics
