"""`set-attributes`: set attributes of live users and items from files."""

from __future__ import annotations

import dataclasses
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from feast_embeddings.cli.options import json_option, model_option, open_store, print_json, repo_option
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from feast_embeddings.arguments import Id
    from feast_embeddings.artifact import Entity
    from feast_embeddings.query.store import EmbeddingStore


@click.command()
@click.option("--items", metavar="FILE", help="A table of items: their ids, and the attributes to set.")
@click.option("--users", metavar="FILE", help="A table of users: their ids, and the attributes to set.")
@click.option(
    "--add",
    metavar="NAME:TYPE",
    multiple=True,
    help="A column of FILE that is an attribute of its own, which the training did not have; TYPE is text, int, float, "
    "bool, time, texts or ints. Repeatable.",
)
@repo_option
@model_option
@json_option
def set_attributes(
    items: str | None, users: str | None, add: tuple[str, ...], repo: str, model: str | None, as_json: bool
) -> None:
    """Set attributes of live users and items, such as price and stock, without a training.

    FILE is CSV, Parquet or JSON, with a column item_id or user_id. Each other column is an attribute; an empty value
    sets a null. Attributes that FILE does not have stay as they are.
    """
    added = _added(add)
    if items is None and users is None:
        raise InputError("name a file of --items, of --users, or both")
    store = open_store(repo, model)
    item_rows = None if items is None else _read(store, "item", items, added)
    user_rows = None if users is None else _read(store, "user", users, added)
    there = {name for rows in (item_rows, user_rows) for row in islice((rows or {}).values(), 1) for name in row}
    if there and (absent := [name for name in added if name not in there]):
        # It would be an attribute for good.
        raise InputError(f"--add: FILE has no column {absent[0]!r:.80}; there are {', '.join(sorted(there))}")
    done = store.set_attributes(items=item_rows, users=user_rows, add=added)
    if as_json:
        print_json(dataclasses.asdict(done))
        return
    parts = [_count(n, what) for n, what, file in ((done.users, "user", users), (done.items, "item", items)) if file]
    click.echo(f"set attributes of {' and '.join(parts)} in version {done.version}")
    if done.n_unknown:
        more = ", …" if done.n_unknown > len(done.unknown) else ""
        named = ", ".join(map(str, done.unknown))
        click.echo(f"{_count(done.n_unknown, 'id')} not in that version, and left out: {named}{more}")


def _added(given: tuple[str, ...]) -> dict[str, str]:
    added: dict[str, str] = {}
    for text in given:
        name, colon, type_name = text.rpartition(":")
        if not colon:
            raise InputError(f"--add {text!r:.80}: expected NAME:TYPE, as segment:int")
        if added.setdefault(name, type_name) != type_name:
            raise InputError(f"--add names {name!r:.80} with two types, {added[name]} and {type_name}; leave one")
    return added


def _read(store: EmbeddingStore, entity: Entity, file: str, added: dict[str, str]) -> dict[Id, dict[str, Any]]:
    from feast_embeddings.artifact.ids import id_column_in
    from feast_embeddings.codec.attribute_values import named_type, parsed_text
    from feast_embeddings.online.set_attributes import attribute_types
    from feast_embeddings.reading import missing_column, read_table

    side = store.side(entity)
    types = {name: named_type(type_name, f"--add {name}") for name, type_name in added.items()}
    types |= attribute_types(side.codec)
    names = tuple(dict.fromkeys((f"{entity}_id", side.id_name)))
    table = read_table(file, ids=names, as_text=list(types))
    key = id_column_in(table.column_names, names, file)
    if key is None:
        raise missing_column(file, names[0], table.column_names)
    if table.num_columns == 1:
        raise InputError(f"{file}: expected columns of attributes next to {key!r}, got none")
    found: dict[Id, dict[str, Any]] = {}
    for number, row in enumerate(table.to_pylist(), start=1):
        id = side.parse_id(row.pop(key))
        if id in found:
            raise InputError(f"{file}: row {number} repeats the id {id!r:.80}; leave one of its rows")
        found[id] = {
            name: parsed_text(value, types[name], f"{file}: row {number}, column {name!r}")
            if isinstance(value, str) and name in types
            else value
            for name, value in row.items()
        }
    return found


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"
