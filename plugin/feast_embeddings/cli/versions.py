"""`publish` and `versions`: what is trained, and what is live."""

from __future__ import annotations

import dataclasses
from typing import Any

import click
from tqdm import tqdm

from feast_embeddings.artifact import list_artifacts, load_artifact
from feast_embeddings.cli.options import json_option, model_option, one_model, print_json, repo_option
from feast_embeddings.errors import InputError
from feast_embeddings.repo import Repo


@click.command()
@repo_option
@model_option
@click.option("--version", metavar="V", help="The version to make live; default: the newest.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def publish(repo: str, model: str | None, version: str | None, quiet: bool, as_json: bool) -> None:
    """Make a trained version live in Qdrant, users and items in one step."""
    opened = Repo.open(repo)
    artifact = load_artifact(opened.data, one_model(opened, model), version)

    from feast_embeddings.publish import publish_artifact

    total = artifact.manifest.n_users + artifact.manifest.n_items
    with tqdm(total=total, unit=" points", desc="publish", disable=quiet or as_json or None) as bar:
        result = publish_artifact(opened.feature_store(), artifact, progress=bar.update)
    if as_json:
        print_json(dataclasses.asdict(result))
    elif result.changed:
        click.echo(
            f"{result.model} {result.version} is live: {result.n_users} users, {result.n_items} items, "
            f"in {result.seconds:.1f} s"
        )
    else:
        click.echo(f"{result.model} {result.version} is live already; nothing changed")


@click.command()
@repo_option
@model_option
@json_option
def versions(repo: str, model: str | None, as_json: bool) -> None:
    """List the versions of a model, and which one is live."""
    opened = Repo.open(repo)
    name = one_model(opened, model)
    artifacts = list_artifacts(opened.data, name)
    live = _live_version(opened, name)
    rows: list[dict[str, Any]] = [
        {
            "version": (manifest := artifact.manifest).version,
            "live": manifest.version == live,
            "as_of": manifest.as_of.isoformat(),
            "created_at": manifest.created_at.isoformat(),
            "trainer": manifest.trainer.name,
            "dim": manifest.dim,
            "n_users": manifest.n_users,
            "n_items": manifest.n_items,
            "metrics": manifest.metrics,
        }
        for artifact in artifacts
    ]
    if as_json:
        print_json({"model": name, "live": live, "versions": rows})
        return
    if not rows:
        raise InputError(f"no trained version of model {name!r} in {opened.path}; run train")
    for row in rows:
        measured = {name: value for name, value in row["metrics"].items() if not name.startswith("popular_")}
        quality = "".join(f"  {name} {value:.3f}" for name, value in measured.items())
        click.echo(
            f"{'*' if row['live'] else ' '} {row['version']}  as of {row['as_of'][:19]}  {row['trainer']} "
            f"{row['dim']} dims  {row['n_users']} users  {row['n_items']} items{quality}"
        )
    click.echo("* is live" if live else "none is live; run publish")


def _live_version(repo: Repo, model: str) -> str | None:
    from feast_embeddings.embedding_store import EmbeddingStore

    try:
        return EmbeddingStore(repo.feature_store(), model).live_version()
    except InputError:  # not applied yet, so nothing can be live
        return None
