"""`hide` and `unhide`: take users and items out of all answers, and back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from feast_embeddings.cli.options import json_option, model_option, open_store, print_json, repo_option
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from feast_embeddings.changes import Visibility
    from feast_embeddings.query.store import EmbeddingStore


def _options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        json_option,
        model_option,
        repo_option,
        click.option("--item", "items", multiple=True, metavar="ID", help="An item; can be given several times."),
        click.option("--user", "users", multiple=True, metavar="ID", help="A user; can be given several times."),
    ):
        command = option(command)
    return command


@click.command()
@_options
@click.option("--list", "listed", is_flag=True, help="Show who is hidden, after hiding those given.")
def hide(
    users: tuple[str, ...], items: tuple[str, ...], repo: str, model: str | None, as_json: bool, listed: bool
) -> None:
    """Leave users and items out of all answers until `unhide`, such as items out of sale.

    They keep their vectors, and stay hidden whatever is published.
    """
    if not (users or items or listed):
        raise InputError("name whom to hide, --item ID or --user ID, or give --list")
    store = open_store(repo, model)
    done = _changed(store, store.hide, users, items) if users or items else None
    shown: dict[str, Any] = dataclasses.asdict(done) if done else {"model": store.model}
    hidden = {f"hidden_{e}s": sorted(store.hidden(e), key=str) for e in ("user", "item")} if listed else {}
    if as_json:
        print_json(shown | hidden)
        return
    if done:
        _say(done, "hid", "they stay hidden when a version has them")
    for name, ids in hidden.items():
        click.echo(f"{name.replace('_', ' ')}: {', '.join(map(str, ids)) or 'none'}")


@click.command()
@_options
def unhide(users: tuple[str, ...], items: tuple[str, ...], repo: str, model: str | None, as_json: bool) -> None:
    """Show users and items again that are hidden."""
    if not (users or items):
        raise InputError("name whom to show again: --item ID or --user ID")
    store = open_store(repo, model)
    done = _changed(store, store.unhide, users, items)
    if as_json:
        print_json(dataclasses.asdict(done))
    else:
        _say(done, "showed again", "no answer has them")


def _changed(
    store: EmbeddingStore, change: Callable[..., Visibility], users: tuple[str, ...], items: tuple[str, ...]
) -> Visibility:
    return change(
        users=[store.parse_id("user", text) for text in users], items=[store.parse_id("item", text) for text in items]
    )


def _say(done: Visibility, verb: str, unknown: str) -> None:
    parts = [f"{n:,} {what}{'' if n == 1 else 's'}" for n, what in ((done.users, "user"), (done.items, "item")) if n]
    click.echo(f"{verb} {' and '.join(parts) or 'none: all of them were so already'}")
    if done.n_unknown:
        more = ", …" if done.n_unknown > len(done.unknown) else ""
        click.echo(f"not in the live version, {unknown}: {', '.join(map(str, done.unknown))}{more}")
