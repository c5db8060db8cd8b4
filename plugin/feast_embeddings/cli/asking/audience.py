"""Commands that pick people: look-alikes of some users, the users for an item, what a visitor would like, listings."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Unpack

import click

from feast_embeddings.cli.asking.answers import Shown, shown_options
from feast_embeddings.cli.asking.shaping import Given, ranking_options, to_options
from feast_embeddings.cli.options import filter_option, k_option, model_option, open_store, repo_option
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from feast_embeddings.arguments import Id
    from feast_embeddings.artifact import Entity
    from feast_embeddings.query.store import EmbeddingStore

_PAGE = 1000


@click.command()
@click.option("--seeds", metavar="FILE", help="File with the ids of users who are as wanted, in a column user_id.")
@click.option("--seed-filter", metavar="CONDITION", help="Instead: the users that pass this condition.")
@click.option("-k", default=100, show_default=True, type=click.IntRange(min=1), help="How many.")
@filter_option
@shown_options
@model_option
@repo_option
def audience(
    seeds: str | None,
    seed_filter: str | None,
    k: int,
    filter: str | None,
    shown: Shown,
    model: str | None,
    repo: str,
) -> None:
    """Users most like the given ones: nearest by cosine to their mean direction, without them."""
    if (seeds is None) == (seed_filter is None):
        raise InputError("name the users to start from, either with --seeds or with --seed-filter")
    store = open_store(repo, model)
    ids = _ids_in(store, seeds) if seeds is not None else [id for id, _ in _listed(store, "user", seed_filter)]
    found = store.lookalike_users(ids, k, filter=filter)
    if len(set(found.missing)) == len(set(ids)):
        raise InputError(
            f"none of the {len(set(ids)):,} users in {seeds} has an embedding in version {found.version}"
            if seeds is not None
            else f"no user passes --seed-filter {seed_filter!r}"
        )
    note = f"{len(found.missing):,} of {len(set(ids)):,} users are not known: {_some(found.missing)}"
    shown.neighbours(found, note if found.missing else "", missing=found.missing)


@click.command()
@click.argument("item_id")
@k_option
@filter_option
@click.option("--include-seen", is_flag=True, help="Include users who interacted with the item in training.")
@shown_options
@model_option
@repo_option
def users_for_item(
    item_id: str, k: int, filter: str | None, include_seen: bool, shown: Shown, model: str | None, repo: str
) -> None:
    """Users with the highest score for ITEM_ID."""
    store = open_store(repo, model)
    item = store.parse_id("item", item_id)
    shown.neighbours(store.users_for_item(item, k, filter=filter, exclude_seen=not include_seen))


@click.command()
@click.argument("item_ids", nargs=-1, required=True)
@click.option("--weight", "weights", type=float, multiple=True, help="Of each of ITEM_IDS in turn; by default 1.")
@k_option
@filter_option
@click.option("--include-seen", is_flag=True, help="Include ITEM_IDS.")
@ranking_options
@shown_options
@model_option
@repo_option
def visitor(
    item_ids: tuple[str, ...],
    weights: tuple[float, ...],
    k: int,
    filter: str | None,
    include_seen: bool,
    shown: Shown,
    model: str | None,
    repo: str,
    **given: Unpack[Given],
) -> None:
    """Items with the highest score for a visitor without an id, who interacted with ITEM_IDS."""
    if weights and len(weights) != len(item_ids):
        raise InputError(f"--weight: give one for each of the {len(item_ids)} items, got {len(weights)}")
    store = open_store(repo, model)
    ids = [store.parse_id("item", text) for text in item_ids]
    history: dict[Id, float] = dict.fromkeys(ids, 0.0)
    for id, weight in zip(ids, weights or [1.0] * len(ids), strict=True):
        history[id] += weight
    found = store.rank_visitor(history, k, **to_options(store, filter, include_seen, given))
    note = f"not known to version {found.version}: {_some(found.missing)}" if found.missing else ""
    shown.ranking(found, note, missing=found.missing)


@click.command(name="list")
@click.option("--entity", required=True, type=click.Choice(["user", "item"]), help="Whom to list.")
@click.option("-k", type=click.IntRange(min=1), help="At most this many; by default 100, or all with --output.")
@filter_option
@shown_options
@model_option
@repo_option
def list_members(entity: Entity, k: int | None, filter: str | None, shown: Shown, model: str | None, repo: str) -> None:
    """Users or items that pass a condition, with their attributes, in no order."""
    store = open_store(repo, model)
    most = k if k is not None or shown.output is not None else 100
    live = store.live().side(entity)
    rows = [{live.side.id_name: id} | attributes for id, attributes in islice(_listed(store, entity, filter), most)]
    names = [live.side.id_name, *live.side.attribute_names]
    shown.show(rows, names, key=f"{entity}s", facts={"version": live.spec.version})


def _listed(store: EmbeddingStore, entity: Entity, filter: str | None) -> Iterator[tuple[Id, dict[str, Any]]]:
    cursor: str | None = None
    while True:
        page = store.page(entity, _PAGE, filter=filter, cursor=cursor)
        yield from zip(page.ids, page.attributes, strict=True)
        if (cursor := page.cursor) is None:
            return


def _ids_in(store: EmbeddingStore, path: str) -> list[Id]:
    from feast_embeddings.reading import read_table

    names = ("user_id", store.live().side("user").side.id_name)
    table = read_table(path, as_text=names)  # 007 is not 7
    name = next((name for name in names if name in table.column_names), None)
    if name is None:
        raise InputError(
            f"{path}: expected a column {' or '.join(dict.fromkeys(names))}, there are {', '.join(table.column_names)}"
        )
    texts = [str(id) for id in table[name].to_pylist() if id is not None]
    if len(texts) < table.num_rows:
        raise InputError(f"{path}, column {name!r}: {table.num_rows - len(texts):,} rows have no id; remove them")
    if not texts:
        raise InputError(f"{path} has no rows; it needs at least one user")
    return [store.parse_id("user", text) for text in texts]


def _some(ids: list[Id]) -> str:
    return ", ".join(str(id) for id in ids[:5]) + (", …" if len(ids) > 5 else "")
