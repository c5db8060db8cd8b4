"""`forget`: remove users and items from everything that a model has of them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import click

from feast_embeddings.cli.options import json_option, model_option, one_model, print_json, repo_option
from feast_embeddings.errors import InputError
from feast_embeddings.repo import Repo

if TYPE_CHECKING:
    from feast_embeddings.changes import Forgotten


@click.command()
@click.option("--user", "users", multiple=True, metavar="ID", help="A user to forget; can be given several times.")
@click.option("--item", "items", multiple=True, metavar="ID", help="An item to forget; can be given several times.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@repo_option
@model_option
@json_option
def forget(
    users: tuple[str, ...], items: tuple[str, ...], yes: bool, repo: str, model: str | None, as_json: bool
) -> None:
    """Remove users and items from all versions, live, kept and on disk, and from the recorded interactions.

    Asks first, and says what it will remove. What is in your own logs, tables and backups stays.
    """
    if not users and not items:
        raise InputError("name whom to forget: --user ID or --item ID")
    if as_json and not yes:
        raise InputError("--json asks no questions: give --yes too")

    from feast_embeddings.query.store import EmbeddingStore

    opened = Repo.open(repo)
    store = EmbeddingStore(opened.feature_store(), one_model(opened, model))
    user_ids = [store.parse_id("user", id) for id in users]
    item_ids = [store.parse_id("item", id) for id in items]
    if not yes:
        click.echo(f"will remove {_said(store.forget(users=user_ids, items=item_ids, dry_run=True))}")
        click.confirm("This cannot be undone. Go on?", abort=True)
    found = store.forget(users=user_ids, items=item_ids)
    if as_json:
        print_json(dataclasses.asdict(found))
    else:
        click.echo(f"removed {_said(found)}")


def _said(found: Forgotten) -> str:
    parts = [
        f"{_count(found.points, 'point')} and {_count(found.lists, 'mention')} from {len(found.collections)} "
        f"collection{'' if len(found.collections) == 1 else 's'} in Qdrant",
        f"rows from {_count(len(found.versions), 'version')} on disk",
        _count(found.events, "recorded interaction"),
    ]
    return ", ".join(parts)


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
