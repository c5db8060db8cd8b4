"""`inspect`: facts about one user's or item's vector."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from feast_embeddings.cli.options import json_option, model_option, open_store, print_json, repo_option

if TYPE_CHECKING:
    from feast_embeddings.analysis.inspection import Inspection
    from feast_embeddings.artifact import Entity


@click.command()
@click.argument("id")
@click.option("--entity", required=True, type=click.Choice(["user", "item"]), help="Whose id it is.")
@click.option("-k", default=5, show_default=True, type=click.IntRange(min=1), help="How many neighbours.")
@json_option
@model_option
@repo_option
def inspect(id: str, entity: Entity, k: int, as_json: bool, model: str | None, repo: str) -> None:
    """Say whether the vector of ID can be trusted: its length, neighbours, popularity, age and origin."""
    store = open_store(repo, model)

    from feast_embeddings.analysis.inspection import inspect_member

    found = inspect_member(store, entity, store.parse_id(entity, id), k=k)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        _print(found)


def _print(found: Inspection) -> None:
    click.echo(f"{found.entity} {found.id} in version {found.version}")
    for name, text in _facts(found):
        click.echo(f"  {name:<13} {text}")
    click.echo("can be trusted" if not found.doubts else f"doubtful: {'; '.join(found.doubts)}")


def _facts(found: Inspection) -> list[tuple[str, str]]:
    facts = [
        ("norm", f"{found.norm:.4g}, longer than {found.norm_rank:.0%} of all"),
        ("interactions", f"{found.n_interactions:,}, more than {found.interactions_rank:.0%} of all"),
        ("source", found.source + ("" if found.row_version == found.version else f", {found.row_version}")),
        ("data until", f"{found.event_timestamp.isoformat()}{_age(found.age_days)}"),
        ("attributes", f"{found.attributes_known} of {found.n_attributes} known"),
    ]
    if found.hidden:
        facts.append(("hidden", "answers leave it out until unhide"))
    if found.seen is not None:
        facts.append(("seen items", f"{found.seen_known} of {found.seen} known"))
    facts += [(name, str(value)) for name, value in found.attributes.items() if value is not None]
    for place, row in enumerate(found.nearest, 1):
        id, score, *others = row.values()
        text = next((str(value) for value in others if isinstance(value, str)), "")
        facts.append((f"nearest {place}", f"{score:.4f}  {id}  {text}".rstrip()))
    if found.nearest_rank is not None:
        facts.append(("neighbourhood", f"closer than for {found.nearest_rank:.0%} of all"))
    return facts


def _age(days: float) -> str:
    if days == 0:
        return ""
    return f", {abs(days):.1f} days {'before' if days > 0 else 'after'} the version's"
