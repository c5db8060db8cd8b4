"""`explain`: why two users or items are near, or which of a user's items speak for an item."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from feast_embeddings.cli.options import json_option, model_option, open_store, print_json, repo_option
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from feast_embeddings.artifact import Entity


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID OTHER_ID]")
@click.option("--entity", default="item", show_default=True, type=click.Choice(["user", "item"]), help="Whose ids.")
@click.option("--user", metavar="ID", help="Instead: say which seen items of this user speak for --item.")
@click.option("--item", metavar="ID", help="See --user.")
@json_option
@model_option
@repo_option
def explain(
    ids: tuple[str, ...],
    entity: Entity,
    user: str | None,
    item: str | None,
    as_json: bool,
    model: str | None,
    repo: str,
) -> None:
    """Say why ID and OTHER_ID are near, or which of a user's items speak for an item."""
    if not (len(ids) == 2 and user is None and item is None) and not (
        not ids and user is not None and item is not None
    ):
        raise InputError("name two ids, or a user with --user and an item with --item")
    store = open_store(repo, model)

    from feast_embeddings.analysis.explanation import explain_nearness, explain_score

    if user is not None and item is not None:
        parts = explain_score(store, store.parse_id("user", user), store.parse_id("item", item))
        if as_json:
            rows = [{"item": id, "adds": value} for id, value in parts.added]
            told = {"user": user, "item": item, "folded_in_score": parts.score, "method": parts.method, "items": rows}
            print_json(told)
            return
        click.echo(
            f"score of {item} for {user}, folded in from {len(parts.added)} items ({parts.method}): {parts.score:.4f}"
        )
        for id, value in parts.added:
            click.echo(f"{value:+.4f}  {id}")
        return
    first, second = (store.parse_id(entity, id) for id in ids)
    if first == second:
        raise InputError(f"{ids[0]!r} is named twice; name two different {entity}s")
    found = explain_nearness(store, entity, first, second)
    if as_json:
        print_json({"entity": entity, "ids": [first, second], **dataclasses.asdict(found)})
        return
    click.echo(f"cosine {found.cosine:.4f}: nearer to {first} than {found.cosine_rank:.1%} of the others")
    for name, value in found.shared_attributes.items():
        click.echo(f"both have {name} {value}")
    if found.with_both is not None:
        lift = "" if found.lift is None else f", {found.lift:.1f} times as many as by chance"
        click.echo(f"{'users' if entity == 'item' else 'items'} in common: {found.with_both:,}{lift}")
    for part in found.dimensions:
        click.echo(f"{part.adds:+.4f} of the cosine  dimension {part.number}: {part.name}")
