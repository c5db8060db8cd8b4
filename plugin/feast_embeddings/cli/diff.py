"""`diff`: show what changed between two versions."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from feast_embeddings.cli.options import json_option, model_option, one_model, print_json, repo_option
from feast_embeddings.cli.version_words import VERSION, version_named
from feast_embeddings.repo import Repo

if TYPE_CHECKING:
    from feast_embeddings.offline.diff import SideDiff, VersionDiff


@click.command()
@click.argument("old", metavar="V1", type=VERSION)
@click.argument("new", metavar="V2", type=VERSION)
@repo_option
@model_option
@click.option("-k", default=10, show_default=True, type=click.IntRange(min=1), help="Neighbours to compare.")
@click.option(
    "--sample",
    default=2000,
    show_default=True,
    type=click.IntRange(min=1),
    help="Users and items whose neighbours and lists are compared.",
)
@click.option(
    "--worst", default=10, show_default=True, type=click.IntRange(min=0), help="Items that moved most to list."
)
@click.option("--seed", default=0, show_default=True, help="Seed of the sample.")
@json_option
def diff(
    old: str, new: str, repo: str, model: str | None, k: int, sample: int, worst: int, seed: int, as_json: bool
) -> None:
    """Compare version V2 of a model with V1: what was added and removed, and how far vectors and lists moved.

    A version is its name, or live, latest or previous.
    """
    from feast_embeddings.artifact import load_artifact

    opened = Repo.open(repo)
    name = one_model(opened, model)
    artifacts = [load_artifact(opened.data, name, version_named(opened.path, name, word)) for word in (old, new)]

    from feast_embeddings.offline.diff import diff_artifacts

    found = diff_artifacts(*artifacts, k=k, sample=sample, worst=worst, seed=seed)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        _print(found)


def _print(found: VersionDiff) -> None:
    click.echo(f"{found.model} {found.old} -> {found.new}")
    if found.same_space:
        click.echo(f"one space, {found.new_space}: models trained on the old vectors keep working with the new")
    else:
        click.echo(
            f"the spaces differ, {found.old_space} and {found.new_space}: a vector cannot be compared with its "
            "successor, and models trained on the old vectors must be trained again"
        )
    for entity, side in found.sides.items():
        click.echo(f"{entity}s: {_side(side, found.k)}")
    if found.rank_correlation is not None:
        click.echo(
            f"lists of {found.n_ranked_users:,} users: {found.top_overlap:.0%} of the top {found.k} stayed, "
            f"rank correlation {found.rank_correlation:.2f}"
        )
    if found.worst_moved:
        import pandas as pd

        click.echo("moved most:")
        rows = [{**dataclasses.asdict(moved), **moved.attributes} for moved in found.worst_moved]
        shown = pd.DataFrame(rows).drop(columns="attributes").dropna(axis=1, how="all")
        click.echo(shown.to_string(index=False, float_format=lambda x: f"{x:.2f}"))


def _side(side: SideDiff, k: int) -> str:
    parts = [
        f"{side.n_old:,} -> {side.n_new:,} ({side.n_kept:,} kept, {side.n_added:,} added, {side.n_gone:,} gone)",
    ]
    if side.norm_ratio is not None:
        parts.append(f"median length {side.norm_old:.2f} -> {side.norm_new:.2f} (each x {side.norm_ratio:.2f})")
    if side.neighbour_overlap is not None:
        parts.append(f"{side.neighbour_overlap:.0%} of the {k} nearest stayed ({side.n_sampled:,} looked at)")
    if side.cosine is not None:
        parts.append(f"cosine old to new {side.cosine:.2f} (a tenth below {side.cosine_p10:.2f})")
    return "; ".join(parts)
