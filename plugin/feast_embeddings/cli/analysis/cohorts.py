"""`cohorts`: how groups of users or items differ in the space, and how they moved."""

from __future__ import annotations

import dataclasses
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from feast_embeddings.cli.options import (
    filter_option,
    json_option,
    model_option,
    open_store,
    print_json,
    repo_option,
)
from feast_embeddings.cli.output_file import new_file, output_path
from feast_embeddings.cli.table import columns_option, fitting, table_of
from feast_embeddings.cli.version_words import VERSION, version_named
from feast_embeddings.errors import InputError, MissingSideError

if TYPE_CHECKING:
    from feast_embeddings.analysis.cohorts import Cohorts
    from feast_embeddings.analysis.members import Members
    from feast_embeddings.artifact import Entity
    from feast_embeddings.query.store import EmbeddingStore


@click.command()
@click.option("--entity", required=True, type=click.Choice(["user", "item"]), help="Whom to compare.")
@click.option(
    "--by",
    required=True,
    metavar="NAME|FILE",
    help="An attribute, of times by month; or a table with the ids and a column cohort, such as segments writes.",
)
@click.option("--since", type=VERSION, help="Also say how far each cohort moved since this version.")
@click.option("--output", metavar="FILE", help="Write a .png picture of the distances.")
@columns_option
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, metavar="INT")
@filter_option
@json_option
@model_option
@repo_option
def cohorts(
    entity: Entity,
    by: str,
    since: str | None,
    output: str | None,
    columns: list[str] | None,
    seed: int,
    filter: str | None,
    as_json: bool,
    model: str | None,
    repo: str,
) -> None:
    """Compare groups of the live users or items: how far apart their vectors are, and what sets them apart.

    Distances are between means of vectors of length 1, from 0 to 2. Next to each stands how far
    random groups of that size are from the others.
    """
    target = None if output is None else output_path("--output", output, ".png")
    store = open_store(repo, model)

    from feast_embeddings.analysis.cohort_picture import draw_cohorts
    from feast_embeddings.analysis.cohorts import compare_cohorts, labels_by
    from feast_embeddings.analysis.groups import is_file, labels_from_file
    from feast_embeddings.analysis.members import read_members
    from feast_embeddings.analysis.traits import seen_values

    members = read_members(store, entity, filter)
    labels = labels_from_file(by, "--by", entity, members.ids) if is_file(by) else labels_by(members, by)
    earlier = None if since is None else _vectors(store, repo, entity, since, members)
    seen = None
    if entity == "user":
        with suppress(MissingSideError):  # users alone
            seen = seen_values(members, read_members(store, "item"))
    found = compare_cohorts(members, labels, by, seed=seed, earlier=earlier, seen=seen)
    table = table_of(_rows(found), columns, as_json)
    if target is not None:
        with new_file(target) as file:
            draw_cohorts(members, found, file)
    if as_json:
        report = dataclasses.asdict(found) | {"distances": found.distances.tolist()}
        print_json({"version": members.version, "entity": entity, **report, "since": since, "output": output})
        return
    click.echo(fitting(table))
    if found.without:
        click.echo(f"{found.without:,} {members.entity}s are in no cohort of two or more")
    if target is not None:
        click.echo(f"wrote {target}")


def _rows(found: Cohorts) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for each in found.cohorts:
        row = {
            found.by: each.name,
            "size": each.size,
            "share": f"{each.share:.1%}",
            "distance": f"{each.distance:.3f}",
            "by chance": f"{each.chance:.3f}",
            "p": f"{each.p:.3f}",
        }
        if each.nearest is not None:
            row["nearest"] = each.nearest
        if each.moved is not None:
            row["moved"] = f"{each.moved:.3f}"
        rows.append(row | {"set apart by": ", ".join(f"{trait} ×{trait.lift:.1f}" for trait in each.traits[:4])})
    return rows


def _vectors(store: EmbeddingStore, repo: str, entity: Entity, since: str, members: Members) -> dict[Any, Any]:
    """Return the unit vectors of an earlier version by id."""
    import numpy as np

    from feast_embeddings.artifact import embedding_matrix, load_artifact
    from feast_embeddings.repo import Repo

    opened = Repo.open(repo)
    versions = [
        load_artifact(opened.data, store.model, version_named(opened.path, store.model, word))
        for word in (members.version, since)
    ]
    if versions[0].manifest.space_id != versions[1].manifest.space_id:
        raise InputError(f"--since {since}: its vectors are of another space, so nothing moved from there to here")
    table = versions[1].table(entity)
    vectors = embedding_matrix(table)
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1), 1e-30)[:, None]
    return dict(zip(table[f"{entity}_id"].to_pylist(), unit, strict=True))
