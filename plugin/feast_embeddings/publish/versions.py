"""List the versions of a model, roll back to one, and prune old ones."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from feast import FeatureStore

from feast_embeddings.artifact import Entity, Manifest, delete_artifacts, version_folders
from feast_embeddings.artifact.manifest import read_manifest
from feast_embeddings.engines.dropped import count_unless_dropped, why_unreadable
from feast_embeddings.engines.engine import CollectionSpec, Engine
from feast_embeddings.errors import ArtifactError, InputError, NotPublishedError
from feast_embeddings.events import set_attributes_of
from feast_embeddings.model.sides import Side, qdrant_store, sides_of
from feast_embeddings.model.versions import artifact_store_of, versions_of
from feast_embeddings.online.set_attributes import carry_set_attributes
from feast_embeddings.publish.gates import Gates
from feast_embeddings.publish.plan import KEEP, live_sides, superseded
from feast_embeddings.publish.run import PublishResult, publish_artifact, register

__all__ = ["Pruned", "Version", "list_versions", "prune_versions", "roll_back"]


@dataclass(frozen=True)
class Version:
    """One version, wherever it is.

    Attributes:
        live: whether queries answer from it.
        kept: whether it is whole in Qdrant, so that going back to it is instant.
        on_disk: whether its artifact is there; without a `manifest` it is damaged, see `problem`.
        stored: whether it is in the artifact store.
        points: per side, its points in Qdrant; empty if it is not there.
        bytes_on_disk: size of the artifact.
        unreadable: why Qdrant cannot read it, as with parts of it on a dead node; empty if it can, or does not hold it.
        space, as_of: as on disk or, without an artifact, in Qdrant.
    """

    version: str
    live: bool
    kept: bool
    on_disk: bool
    stored: bool
    points: dict[Entity, int]
    bytes_on_disk: int
    space: str
    as_of: str
    manifest: Manifest | None
    problem: str | None
    unreadable: str


@dataclass(frozen=True)
class Pruned:
    """What was deleted, or would be; `leftovers` are from killed writers of the embedded engine."""

    collections: list[str]
    artifacts: list[str]
    leftovers: list[str]


def list_versions(feature_store: FeatureStore, data: Path, model: str) -> list[Version]:
    """List every version that is on disk, in Qdrant or in the artifact store, oldest first.

    Before `feast apply` none is in Qdrant.
    """
    store = artifact_store_of(feature_store)
    stored = [] if store is None else store.versions(model)
    folders = {path.name: path for path in version_folders(data, model)}
    engine = _engine(feature_store)  # fails for other stores, whose live version is unknown
    try:
        registered = sides_of(feature_store, model)
    except InputError:
        found = [
            _version(name, folders.get(name), {}, {}, frozenset(), {}, "", stored)
            for name in sorted(folders.keys() | set(stored))
        ]
        return [version for version in found if version.on_disk or version.stored]
    live = frozenset(spec.version for _, spec in live_sides(engine, registered).values())
    loaded = _loaded(engine, registered)
    found = []
    for name in sorted(folders.keys() | loaded.keys() | set(stored)):
        sides = loaded.get(name, {})
        unreadable = "; ".join(reason for side, _ in sides.values() if (reason := why_unreadable(engine, side)))
        points = {} if unreadable else _points(engine, sides)
        found.append(_version(name, folders.get(name), sides, points, live, registered, unreadable, stored))
    # Leave out versions that a concurrent prune has deleted.
    return [one for one in found if one.on_disk or one.stored or one.points or one.unreadable]


def roll_back(feature_store: FeatureStore, data: Path, model: str, version: str | None = None) -> PublishResult:
    """Make an older version live again. If Qdrant still holds it, nothing is loaded: it is one switch.

    It is served as when it was live, with the attributes set since then; rows written since then into the version after
    it stay there.

    Args:
        version: by default the newest kept one before the live one. One that is only on disk is published again,
            without gates.

    Raises:
        NotPublishedError: nothing is live.
        InputError: no older version is kept, or none has this name.
    """
    started = time.monotonic()
    engine, registered = _engine(feature_store), sides_of(feature_store, model)
    live = {spec.version for _, spec in live_sides(engine, registered).values()}
    if not live:
        raise NotPublishedError(f"no version of model {model!r} is live: run feast-embeddings publish --model {model}")
    kept = {name: sides for name, sides in _loaded(engine, registered).items() if _is_whole(sides, registered)}
    # One with parts on a dead node would answer nothing.
    kept = {
        name: sides for name, sides in kept.items() if not any(why_unreadable(engine, c) for c, _ in sides.values())
    }
    if version is None:
        older = [name for name in kept if name < min(live)]
        if not older:
            on_disk = ", ".join(path.name for path in version_folders(data, model)) or "none"
            raise InputError(
                f"no version of model {model!r} before the live one is kept in Qdrant; name one with --to "
                f"(on disk: {on_disk})"
            )
        version = max(older)
    if version not in kept:
        flags = ("allow_worse", "allow_shrink", "allow_new_space", "allow_future", "allow_probe_drop")
        everything = Gates(**dict.fromkeys(flags, True))
        return publish_artifact(feature_store, versions_of(feature_store, model).load(version), gates=everything)
    sides, attributes = kept[version], set_attributes_of(data, model)

    def carry() -> int:
        parts = [(registered[entity].codec, entity, name) for entity, (name, _) in sides.items()]
        return sum(carry_set_attributes(engine, *part, attributes)[0] for part in parts)

    carry()  # so that no query misses them after the switch
    engine.switch({registered[entity].alias: name for entity, (name, _) in sides.items()})
    n_attributes = carry()  # those set meanwhile too
    if as_of := next(iter(sides.values()))[1].as_of:
        register(feature_store, [side.view for side in registered.values()], datetime.fromisoformat(as_of))
    points = _points(engine, sides)
    return PublishResult(
        model=model,
        version=version,
        changed=live != {version},
        n_users=points.get("user", 0),
        n_items=points.get("item", 0),
        previous=" and ".join(sorted(live)),
        n_attributes=n_attributes,
        seconds=time.monotonic() - started,
    )


def prune_versions(
    feature_store: FeatureStore,
    data: Path,
    model: str,
    *,
    keep: int = KEEP,
    artifacts: bool = False,
    dry_run: bool = False,
) -> Pruned:
    """Delete all versions but the live one and the newest others.

    Args:
        keep: how many others stay.
        artifacts: also delete from disk, from the artifact store, and from the offline history: training frames no
            longer get their vectors. The newest version stays, and all that are newer than the live one.
        dry_run: only report what would be deleted.
    """
    if keep < 0:
        raise InputError(f"keep must be at least 0, got {keep}")
    engine, registered = _engine(feature_store), sides_of(feature_store, model)
    sides = live_sides(engine, registered)
    collections = []
    for entity, (name, spec) in sides.items():
        collections += superseded(engine.collections(registered[entity].alias), name, spec.version, keep)
    store = artifact_store_of(feature_store) if artifacts else None
    stored = [] if store is None else store.versions(model)
    trained = sorted({path.name for path in version_folders(data, model)}.union(stored))
    live = {spec.version for _, spec in sides.values()}
    others = [version for version in trained if version not in live]
    unwanted = []
    if artifacts:
        # If nothing is live, only the newest version may be waiting for its publish.
        waiting = max(live) if live else trained[-1] if trained else ""
        unwanted = [v for v in others[: max(0, len(others) - keep)] if v < waiting and v != trained[-1]]
    left = engine.leftovers()
    if not dry_run:
        engine.drop(collections)
        if store is not None:
            store.delete(model, [version for version in unwanted if version in stored])
        delete_artifacts(data, model, unwanted)
    return Pruned(collections, unwanted, left)


def _engine(feature_store: FeatureStore) -> Engine:
    return qdrant_store(feature_store).engine(feature_store.config)


# The collection of each side, and its spec.
Loaded = Mapping[Entity, tuple[str, CollectionSpec]]


def _loaded(engine: Engine, registered: Mapping[Entity, Side]) -> dict[str, dict[Entity, tuple[str, CollectionSpec]]]:
    """Return version -> its collection of each side, complete or not; the live one, if a version has several."""
    loaded: dict[str, dict[Entity, tuple[str, CollectionSpec]]] = {}
    live = engine.aliases()
    for entity, side in registered.items():
        found = engine.collections(side.alias)
        for name in sorted(found, key=lambda name: (name == live.get(side.alias), name)):
            loaded.setdefault(found[name].version, {})[entity] = name, found[name]
    return loaded


def _is_whole(sides: Loaded, registered: Mapping[Entity, Side]) -> bool:
    return (
        bool(sides)
        and sides.keys() == registered.keys()
        and all(spec.verified and registered[entity].fits(spec) for entity, (_, spec) in sides.items())
    )


def _points(engine: Engine, sides: Loaded) -> dict[Entity, int]:
    points = {}
    for entity, (name, spec) in sides.items():
        if (count := count_unless_dropped(engine, name, spec.alias)) is not None:
            points[entity] = count
    return points


def _version(
    version: str,
    folder: Path | None,
    sides: Loaded,
    points: dict[Entity, int],
    live: frozenset[str],
    registered: Mapping[Entity, Side],
    unreadable: str,
    stored: Collection[str],
) -> Version:
    manifest, problem, size = None, None, 0
    if folder is not None:
        try:
            manifest = read_manifest(folder)
        except ArtifactError as error:
            problem = str(error)
        try:
            size = sum(path.stat().st_size for path in folder.iterdir())
        except FileNotFoundError:  # deleted since it was listed
            folder, manifest, problem = None, None, None
    spec = next((spec for _, spec in sides.values()), None)
    return Version(
        version=version,
        live=version in live,
        kept=_is_whole(sides, registered) and points.keys() == sides.keys(),
        on_disk=folder is not None,
        stored=version in stored,
        points=points,
        bytes_on_disk=size,
        space=manifest.space_id if manifest else spec.space if spec else "",
        as_of=manifest.as_of.isoformat() if manifest else spec.as_of if spec else "",
        manifest=manifest,
        problem=problem,
        unreadable=unreadable,
    )
