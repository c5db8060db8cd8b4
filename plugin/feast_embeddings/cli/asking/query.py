"""The query commands: neighbours, ranking, and vectors by id."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Unpack

import click

from feast_embeddings.cli.asking.answers import Shown, shown_options
from feast_embeddings.cli.asking.shaping import Given, Similar, ranking_options, similar_options, to_options, to_similar
from feast_embeddings.cli.asking.versions import version_option
from feast_embeddings.cli.options import filter_option, k_option, model_option, open_store, print_json, repo_option
from feast_embeddings.errors import UnknownIdError

if TYPE_CHECKING:
    from feast_embeddings.artifact import Entity


def _query_options(command: Callable[..., Any]) -> Callable[..., Any]:
    return k_option(filter_option(shown_options(model_option(repo_option(command)))))


def _embedding_options(command: Callable[..., Any]) -> Callable[..., Any]:
    # Scripts pass --json to every command that prints a result; this one has no other form.
    json_too = click.option(
        "--json", is_flag=True, expose_value=False, help="Accepted for scripts; the output is always JSON."
    )
    return repo_option(model_option(json_too(command)))


@click.command()
@click.argument("item_ids", nargs=-1, required=True)
@_query_options
@click.option(
    "--unlike", "negative", multiple=True, metavar="ID", help="An item to be unlike; can be given several times."
)
@version_option
@similar_options
def similar_items(
    item_ids: tuple[str, ...],
    negative: tuple[str, ...],
    k: int,
    filter: str | None,
    version: str,
    shown: Shown,
    model: str | None,
    repo: str,
    **given: Unpack[Similar],
) -> None:
    """Items nearest to ITEM_IDS by cosine.

    To several, or with --unlike, by one direction: twice the mean of their unit vectors, less the mean of those to be
    unlike.
    """
    store = open_store(repo, model)
    liked, disliked = ([store.parse_id("item", id) for id in ids] for ids in (item_ids, negative))
    options = to_similar(store, "item", filter, given)
    if len(liked) == 1 and not disliked:
        shown.neighbours(store.similar_items(liked[0], k, version=version, **options))
        return
    found = store.similar_items(None, k, positive=liked, negative=disliked, version=version, **options)
    if liked and set(liked) <= set(found.missing):
        named = ", ".join(map(str, liked))
        raise UnknownIdError(f"version {found.version} of model {store.model!r} knows none of {named}")
    note = f"not known to version {found.version}: {', '.join(map(str, found.missing))}" if found.missing else ""
    shown.neighbours(found, note, missing=found.missing)


@click.command()
@click.argument("user_id")
@_query_options
@version_option
@similar_options
def similar_users(
    user_id: str,
    k: int,
    filter: str | None,
    version: str,
    shown: Shown,
    model: str | None,
    repo: str,
    **given: Unpack[Similar],
) -> None:
    """Users nearest to USER_ID by cosine."""
    store = open_store(repo, model)
    user = store.parse_id("user", user_id)
    options = to_similar(store, "user", filter, given)
    shown.neighbours(store.similar_users(user, k, version=version, **options))


@click.command()
@click.argument("user_id")
@_query_options
@click.option("--include-seen", is_flag=True, help="Include items that the user interacted with in training.")
@version_option
@ranking_options
def rank(
    user_id: str,
    k: int,
    filter: str | None,
    version: str,
    include_seen: bool,
    shown: Shown,
    model: str | None,
    repo: str,
    **given: Unpack[Given],
) -> None:
    """Items with the highest score for USER_ID."""
    store = open_store(repo, model)
    user = store.parse_id("user", user_id)
    options = to_options(store, filter, include_seen, given)
    shown.ranking(store.rank(user, k, version=version, **options))


@click.command()
@click.argument("text")
@_query_options
@click.option("--user", metavar="ID", help="Prefer items with a high score for this user.")
def search(text: str, k: int, filter: str | None, shown: Shown, model: str | None, repo: str, user: str | None) -> None:
    """Items for TEXT: by its words, by what it says as content, and for a user.

    The version has to be trained with a column of text among its content. A score is the sum of 1 / (60 + place) over
    the rankings; --json has the places.
    """
    store = open_store(repo, model)
    shown.found(store.search(text, None if user is None else store.parse_id("user", user), k, filter=filter))


@click.command()
@click.argument("user_ids", nargs=-1, required=True)
@_embedding_options
def user_embedding(user_ids: tuple[str, ...], repo: str, model: str | None) -> None:
    """Vectors of USER_IDS, as JSON."""
    _print_embeddings("user", user_ids, repo, model)


@click.command()
@click.argument("item_ids", nargs=-1, required=True)
@_embedding_options
def item_embedding(item_ids: tuple[str, ...], repo: str, model: str | None) -> None:
    """Vectors of ITEM_IDS, as JSON."""
    _print_embeddings("item", item_ids, repo, model)


def _print_embeddings(entity: Entity, texts: tuple[str, ...], repo: str, model: str | None) -> None:
    store = open_store(repo, model)
    ids = [store.parse_id(entity, text) for text in texts]
    found = store.user_embeddings(ids) if entity == "user" else store.item_embeddings(ids)
    print_json(
        {
            "embeddings": [
                {
                    "id": id,
                    "vector": [float(x) for x in vector],
                    "version": found.version,
                    "as_of": found.as_of,
                    "event_timestamp": event_timestamp.isoformat(),
                }
                for id, vector, event_timestamp in zip(found.ids, found.vectors, found.event_timestamps, strict=True)
                if event_timestamp is not None
            ],
            "missing": found.missing,
        }
    )
    if len(found.missing) == len(ids):
        print(f"error: none of these {entity}s has an embedding in version {found.version}", file=sys.stderr)
        sys.exit(2)
