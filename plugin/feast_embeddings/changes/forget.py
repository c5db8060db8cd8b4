"""Forget users and items: remove them from everything that a model has of them in the repo and in Qdrant.

Each place is changed in one step, in this order: versions and history on disk, recorded interactions, versions in the
artifact store, hidden ids, collections in Qdrant. A process that dies leaves the places after it unchanged, and the
next call finishes. The disk is first, so that a publish meanwhile cannot bring back points that are gone from Qdrant.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
from feast import FeatureStore, ValueType

from feast_embeddings.arguments import Id
from feast_embeddings.artifact import Entity, load_artifact
from feast_embeddings.artifact.forgetting import forget_on_disk, versions_with
from feast_embeddings.artifact.seen import SEEN
from feast_embeddings.codec.columns import payload_values
from feast_embeddings.codec.seen_weights import WEIGHTS_KEY, packed, unpacked
from feast_embeddings.engines.dropped import is_gone
from feast_embeddings.engines.engine import CollectionSpec, Engine, PointId
from feast_embeddings.errors import EngineError, InputError
from feast_embeddings.events import event_log_of, hidden_of
from feast_embeddings.model.sides import Side, missing_side, qdrant_store, sides_of
from feast_embeddings.model.versions import versions_of

__all__ = ["Forgotten", "forget"]


@dataclass(frozen=True)
class Forgotten:
    """What was removed, or would be.

    Attributes:
        versions: those on disk whose tables changed.
        collections: those in Qdrant, live or kept, that changed.
        points: points removed, over all collections.
        lists: points of users whose list of seen items changed, over all collections.
        events: recorded interactions removed.
    """

    model: str
    versions: list[str]
    collections: list[str]
    points: int
    lists: int
    events: int


class _Seen(NamedTuple):
    """What is left of what a user has seen; without weights if all are 1."""

    items: list[Id]
    weights: list[float] | None


@dataclass(frozen=True)
class _Found:
    """What one collection has of them."""

    side: Side
    spec: CollectionSpec
    points: list[PointId]
    lists: dict[PointId, _Seen]


def forget(
    feature_store: FeatureStore,
    data: Path,
    model: str,
    *,
    users: Iterable[Id] = (),
    items: Iterable[Id] = (),
    dry_run: bool = False,
) -> Forgotten:
    """Remove users and items from all versions on disk and in Qdrant, the history, and the recorded interactions.

    Items are also removed from the lists of seen items. Ids that are nowhere are not an error, and a call that was
    interrupted is finished by the next one.

    Args:
        dry_run: only count what would be removed.

    Raises:
        InputError: no id is given, or one is not of the type of the model's ids; nothing is removed.
        MissingSideError: the model has no such side.
        ArtifactError: a version on disk is damaged.
        EngineError: Qdrant failed, or a collection cannot be read.
    """
    ids: dict[Entity, list[Id]] = {"user": list(dict.fromkeys(users)), "item": list(dict.fromkeys(items))}
    if not any(ids.values()):
        raise InputError("forget: expected ids of users or items, got none")
    engine, sides = qdrant_store(feature_store).engine(feature_store.config), sides_of(feature_store, model)
    for entity, those in ids.items():
        if those and entity not in sides:
            raise missing_side(model, entity)
        if those:
            sides[entity].point_ids(those)  # raises for an id of another type
    arrays = {entity: pa.array(those) for entity, those in ids.items() if those}
    log, trained = event_log_of(data, model), versions_of(feature_store, model)
    trained.pull_all()
    # Attributes must not be set meanwhile: the file would have the id again.
    with contextlib.nullcontext() if dry_run else log.changing():
        if dry_run:
            versions, events = versions_with(data, model, arrays), log.count(ids["user"], ids["item"])
        else:
            versions, events = forget_on_disk(data, model, arrays), log.forget(ids["user"], ids["item"])
            trained.push_all()
            for entity, those in ids.items():
                if those:
                    hidden_of(data, model).remove(entity, those)
        collections, points, lists = [], 0, 0
        for name, found in _found(engine, sides, ids):
            if found.points or found.lists:
                collections.append(name)
                points += len(found.points)
                lists += len(found.lists)
                if not dry_run:
                    _remove(engine, name, found)
            if not dry_run:
                _match(engine, name, found, data, model)
        if not dry_run:
            engine.drop([])  # what a killed call left
    return Forgotten(model, versions, collections, points, lists, events)


def _found(
    engine: Engine, sides: Mapping[Entity, Side], ids: Mapping[Entity, Sequence[Id]]
) -> Iterator[tuple[str, _Found]]:
    for entity, side in sides.items():
        wanted = side.point_ids(ids[entity])
        for name, spec in engine.collections(side.alias).items():
            try:
                there = engine.retrieve(name, wanted, vectors=[], payload=[])
                lists = _lists(engine, name, side, ids["item"]) if entity == "user" and ids["item"] else {}
            except EngineError:
                # A publish may have dropped it.
                if not is_gone(engine, side.alias, name):
                    raise
                continue
            points = [point.id for point in there if point is not None]
            yield name, _Found(side, spec, points, {id: seen for id, seen in lists.items() if id not in points})


def _lists(engine: Engine, collection: str, side: Side, items: Sequence[Id]) -> dict[PointId, _Seen]:
    """Return the new lists of the users who have seen an item, by a scan: the lists are not indexed."""
    codec, gone = side.codec, frozenset(items)
    if SEEN not in codec.types:
        return {}
    found = {}
    for page in engine.scroll(collection, payload=[*codec.payload_keys(SEEN), WEIGHTS_KEY], vectors=[]):
        for point in page:
            seen = codec.native(SEEN, point.payload) or ()
            if not gone.isdisjoint(seen):
                weighed = zip(seen, unpacked(point.payload, len(seen)), strict=True)
                left = [(id, weight) for id, weight in weighed if id not in gone]
                weights = [weight for _, weight in left] if WEIGHTS_KEY in point.payload else None
                found[point.id] = _Seen([id for id, _ in left], weights)
    return found


def _remove(engine: Engine, collection: str, found: _Found) -> None:
    payloads: dict[PointId, Mapping[str, Any]] = {}
    if found.lists:
        codec = found.side.codec
        element = pa.string() if codec.types[SEEN] == ValueType.STRING_LIST else pa.int64()
        items = pa.array([seen.items for seen in found.lists.values()], pa.list_(element))
        for (id, seen), values in zip(found.lists.items(), payload_values(codec, SEEN, items), strict=True):
            weights = {} if seen.weights is None else {WEIGHTS_KEY: packed(seen.weights)}
            payloads[id] = values | weights
    engine.forget(collection, found.points, payloads)


def _match(engine: Engine, collection: str, found: _Found, data: Path, model: str) -> None:
    """Tell the collection of the changed files, so that a publish of its version need not load it again."""
    try:
        manifest = load_artifact(data, model, found.spec.version).manifest
    except InputError:  # not on disk
        return
    fingerprint = manifest.hash_of(found.side.entity)
    spec = engine.describe(collection)
    if spec.fingerprint and spec.fingerprint != fingerprint:
        engine.annotate(collection, spec.model_copy(update={"fingerprint": fingerprint}))
