"""Set attributes of users and items: their values in the live version, without a training.

The values are on disk before they are in Qdrant. A process that dies between the two leaves them pending, and the next
call writes them; the next publish writes all that are newer than its training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from feast import FeatureStore, ValueType

from feast_embeddings.arguments import Id, id_list
from feast_embeddings.artifact import Entity, load_artifact
from feast_embeddings.artifact.attributes import RESERVED_COLUMNS, SOURCE
from feast_embeddings.codec.attribute_values import checked_value, expected_kind, named_type
from feast_embeddings.engines.dropped import ask_live
from feast_embeddings.engines.engine import Engine
from feast_embeddings.errors import ArtifactError, InputError, NotPublishedError
from feast_embeddings.events import SetAttributes, SetValue, added_attributes_of, set_attributes_of
from feast_embeddings.model.sides import Side, missing_side, qdrant_store, sides_of
from feast_embeddings.online.set_attributes import apply_set_attributes, attribute_types, row_times
from feast_embeddings.times import to_microseconds

__all__ = ["AttributesSet", "Given", "new_types", "set_attributes"]

_NAMED = 10
# What a filter can name without quotes, and Qdrant's paths can express.
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,62}")

# What answers say of each result next to its attributes.
_IN_ANSWERS = {"score", "because", "hidden", "places"}

# Id -> attribute -> value.
Given = Mapping[Any, Mapping[str, Any]]


@dataclass(frozen=True)
class AttributesSet:
    """What was set.

    Attributes:
        version: the live one.
        users, items: how many had attributes set.
        n_unknown: ids that the version does not have.
        unknown: the first of them, at most 10.
    """

    model: str
    version: str
    users: int = 0
    items: int = 0
    n_unknown: int = 0
    unknown: list[Id] = field(default_factory=list)


def set_attributes(
    feature_store: FeatureStore,
    data: Path,
    model: str,
    *,
    items: Given | None = None,
    users: Given | None = None,
    add: Mapping[str, str] | None = None,
) -> AttributesSet:
    """Set attributes of users and items of the live version; None sets a null. Everything else stays as it is.

    Vectors, event timestamps and other attributes do not change. Ids that the version does not have are left out.

    Args:
        add: attributes that are new to the sides for which values are given, and the names of their types, see
            `named_type`. One that is there already stays.

    Raises:
        InputError: nothing is given, an attribute is not one of the model, or an id or value is not of its type;
            nothing is changed. Or a new attribute has the name of something else, or is there with another type.
        MissingSideError: the model has no such side.
        NotPublishedError: no version is live.
        EngineError: Qdrant failed; the values are on disk, and the next call or publish writes them.
    """
    if not isinstance(add or {}, Mapping):
        raise InputError(f"add takes a dictionary of names with the name of a type each, got {type(add).__name__}")
    engine, sides = qdrant_store(feature_store).engine(feature_store.config), sides_of(feature_store, model)
    values: dict[Entity, dict[Id, dict[str, tuple[str, Any]]]] = {}
    added: dict[Entity, dict[str, ValueType]] = {}
    for entity, given in _given(users, items):
        if entity not in sides:
            raise missing_side(model, entity)
        computed = _computed(data, model, entity)
        added[entity] = new_types(sides[entity], add or {}, computed)
        values[entity] = _checked(sides[entity], given, added[entity], computed)
    if not any(values.values()):
        raise InputError("set_attributes: expected users or items with attributes to set, got none")
    if any(added.values()):
        # Before the values: an attribute without values is null for all.
        for entity, types in added.items():
            added_attributes_of(data, model).add(entity, {name: kind.name for name, kind in types.items()})
        sides = sides_of(feature_store, model)
    kept = set_attributes_of(data, model)
    with kept.changing():
        counts, unknown, versions = dict.fromkeys(values, 0), list[Id](), set[str]()
        rows: list[tuple[str, SetValue]] = []
        for entity, by_id in values.items():
            times, version = _live_times(engine, sides[entity], model, list(by_id))
            versions.add(version)
            unknown += [id for id in by_id if id not in times]
            counts[entity] = len(times)
            now = to_microseconds(datetime.now(UTC))
            rows += [
                # Never older than the point, whose time may be a little in the future.
                (entity, SetValue(id, name, kind, value, max(now, times[id] + 1)))
                for id, attributes in by_id.items()
                if id in times
                for name, (kind, value) in attributes.items()
            ]
        if rows:
            kept.add(rows)
        for side in sides.values():
            _write_pending(engine, side, kept)
    return AttributesSet(
        model, max(versions), counts.get("user", 0), counts.get("item", 0), len(unknown), unknown[:_NAMED]
    )


def _given(users: Given | None, items: Given | None) -> Iterable[tuple[Entity, Given]]:
    for entity, given in (("user", users), ("item", items)):
        if given is None:
            continue
        if not isinstance(given, Mapping):
            raise InputError(
                f"{entity}s takes a dictionary of ids with a dictionary of attributes each, got {type(given).__name__}"
            )
        if given:
            yield entity, given  # type: ignore[misc]


def _computed(data: Path, model: str, entity: Entity) -> frozenset[str]:
    """Return the attributes that training writes, and no one else."""
    try:
        made_of_content = load_artifact(data, model).manifest.content_of(entity) is not None
    except (InputError, ArtifactError):  # no version on this disk
        made_of_content = False
    return frozenset({SOURCE} if made_of_content else ())


def new_types(side: Side, new: Mapping[str, str], computed: frozenset[str] = frozenset()) -> dict[str, ValueType]:
    """Return the types of those attributes that a side does not have yet.

    Args:
        new: the names of the types.
        computed: attributes that are the training's own.

    Raises:
        InputError: a name is in use, cannot be one, or is there with another type.
    """
    found: dict[str, ValueType] = {}
    types = attribute_types(side.codec)
    for name, type_name in new.items():
        what = f"the new {side.entity} attribute {str(name)!r:.80}"
        kind = named_type(type_name, what)
        if name in types and name not in computed:
            if types[name] != kind:
                raise InputError(f"{what}: there is one, which is {expected_kind(types[name])}; choose another name")
            continue
        names = side.codec.types.keys() | RESERVED_COLUMNS | _IN_ANSWERS | {SOURCE}
        taken = next((other for other in names if other.casefold() == str(name).casefold()), None)
        if taken is not None:
            raise InputError(f"{what}: {taken!r} is in use; choose another name")
        if not isinstance(name, str) or _NAME.fullmatch(name) is None:
            raise InputError(f"{what}: expected letters, digits and _, the first a letter, at most 63; rename it")
        found[name] = kind
    return found


def _checked(
    side: Side, given: Given, added: Mapping[str, ValueType], computed: frozenset[str]
) -> dict[Id, dict[str, tuple[str, Any]]]:
    """Return id -> attribute -> the name of its type, and the value as it is kept."""
    types = {name: kind for name, kind in attribute_types(side.codec).items() if name not in computed} | dict(added)
    ids = id_list(given, f"{side.entity}s")
    side.point_ids(ids)  # raises for an id of another type
    checked: dict[Id, dict[str, tuple[str, Any]]] = {}
    for id, attributes in zip(ids, given.values(), strict=True):
        if not isinstance(attributes, Mapping):
            raise InputError(
                f"{side.entity} {id!r:.80}: expected a dictionary of attributes, got {type(attributes).__name__}"
            )
        for name, value in attributes.items():
            if name not in types:
                there = ", ".join(f"{known} ({expected_kind(kind)})" for known, kind in types.items()) or "none"
                raise InputError(
                    f"{side.entity}s have no attribute {str(name)!r:.80} to set; there are {there}; to add one, name "
                    "it and its type with add"
                )
            where = f"{side.entity} {id!r:.80}: attribute {name!r}"
            checked.setdefault(id, {})[name] = types[name].name, checked_value(value, types[name], where)
    return checked


def _live_times(engine: Engine, side: Side, model: str, ids: list[Id]) -> tuple[dict[Id, int], str]:
    """Return the event timestamp of each id that is live, and the live version."""

    def times(aliases: dict[str, str]) -> tuple[dict[Id, int], str]:
        collection = _live(aliases, side, model)
        found = row_times(engine, side.codec, collection, ids)
        return {id: at for id, (_, at) in found.items()}, engine.describe(collection).version

    return ask_live(engine.aliases, times)


def _write_pending(engine: Engine, side: Side, kept: SetAttributes) -> None:
    """Write values that are on disk, and may not be in Qdrant, into the version that is live by now."""
    pending = [value for page in kept.pending(side.entity) for value in page]
    if not pending:
        return

    def write(aliases: dict[str, str]) -> None:
        if side.alias in aliases:
            apply_set_attributes(engine, side.codec, aliases[side.alias], pending)

    ask_live(engine.aliases, write)
    kept.settle(side.entity, pending)


def _live(aliases: Mapping[str, str], side: Side, model: str) -> str:
    if side.alias not in aliases:
        raise NotPublishedError(f"no version of model {model!r} is live: run feast-embeddings publish --model {model}")
    return aliases[side.alias]
