"""Write a backup, while the repo is in use."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from feast import FeatureStore

from feast_embeddings.artifact import trained_models, version_folders
from feast_embeddings.artifact.manifest import read_manifest
from feast_embeddings.artifact.model_folder import writing
from feast_embeddings.artifact.table_files import sha256_of
from feast_embeddings.backup.container import new_backup
from feast_embeddings.backup.contents import (
    ADDED,
    EVENTS,
    FORMAT_VERSION,
    HIDDEN,
    REGISTRY,
    Contents,
    File,
    StoredCollection,
    write_contents,
)
from feast_embeddings.backup.points import write_points
from feast_embeddings.engines.engine import CollectionSpec, Engine
from feast_embeddings.errors import EngineError
from feast_embeddings.events import added_attributes_of, event_log_of, hidden_of
from feast_embeddings.model.sides import qdrant_store
from feast_embeddings.online.view_tables import tables_of

__all__ = ["BackedUp", "back_up", "models_of"]

Progress = Callable[[int, int], object]


@dataclass(frozen=True)
class BackedUp:
    """What a backup has; `bytes` is the size of its files."""

    path: Path
    project: str
    models: list[str]
    versions: int
    collections: int
    points: int
    files: int
    bytes: int


def back_up(feature_store: FeatureStore, data: Path, path: Path, *, progress: Progress | None = None) -> BackedUp:
    """Write a backup of all models and feature views of a repo. Changes nothing; writers may go on meanwhile.

    What comes while it is written may be in it or not. Users and items forgotten later are in it.

    Args:
        path: a new folder, or a new file that ends in ``.tar``.
        progress: called with the number of points written, and of all.

    Raises:
        InputError: the path exists, or cannot be written; or the repo uses a different online store.
        ArtifactError: a version on disk is damaged.
        EngineError: Qdrant failed, or another version went live meanwhile: back up again.
    """
    created = datetime.now(UTC)
    engine = qdrant_store(feature_store).engine(feature_store.config)
    with new_backup(path) as folder:
        (folder / REGISTRY).write_bytes(feature_store.registry.proto().SerializeToString())
        # First the values that were set, then the collections: these have all that is marked as written to them.
        models = models_of(data)
        for model in models:
            _write_model(data, model, folder / "models" / model)
        aliases, collections = _write_collections(engine, _tables(engine, feature_store), folder, progress)
        files = {
            file.relative_to(folder).as_posix(): File(bytes=file.stat().st_size, sha256=sha256_of(file))
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        }
        contents = Contents(
            format_version=FORMAT_VERSION,
            created_at=created,
            feast_embeddings=version("feast-embeddings"),
            feast=version("feast"),
            project=feature_store.project,
            models=models,
            aliases=aliases,
            collections=collections,
            files=files,
        )
        write_contents(folder, contents)
    return BackedUp(
        path=path,
        project=contents.project,
        models=models,
        versions=sum(len(contents.versions_of(model)) for model in models),
        collections=len(collections),
        points=sum(collection.points for collection in collections.values()),
        files=len(files),
        bytes=sum(file.bytes for file in files.values()),
    )


def models_of(data: Path) -> list[str]:
    """Return the models that have versions, events or hidden ones in a folder of versions."""
    endings = (".events.sqlite", ".hidden.json")
    others = {file.name.removesuffix(end) for end in endings for file in data.glob(f"[a-z]*{end}")}
    return sorted(others.union(trained_models(data)))


def _write_model(data: Path, model: str, target: Path) -> None:
    target.mkdir(parents=True)
    log = event_log_of(data, model)
    if log.path.exists():
        log.copy_to(target / EVENTS)
    for name, watched in ((HIDDEN, hidden_of(data, model)), (ADDED, added_attributes_of(data, model))):
        if watched.path.exists():
            (target / name).write_text(json.dumps(watched.read(), ensure_ascii=False))
    if not version_folders(data, model):
        return
    with writing(data / model):  # nothing is deleted or forgotten meanwhile
        for folder in version_folders(data, model):
            read_manifest(folder)  # a damaged one must not pass for a backup
            (target / "versions" / folder.name).mkdir(parents=True)
            for file in folder.iterdir():
                if file.is_file() and not file.name.startswith("."):
                    shutil.copyfile(file, target / "versions" / folder.name / file.name)


def _tables(engine: Engine, feature_store: FeatureStore) -> set[str]:
    live, config = engine.aliases(), feature_store.config
    views: list[Any] = feature_store.registry.list_all_feature_views(feature_store.project)
    return {table for view in views for table in tables_of(live, config, view)}


def _write_collections(
    engine: Engine, tables: set[str], folder: Path, progress: Progress | None
) -> tuple[dict[str, str], dict[str, StoredCollection]]:
    """Write the whole collections of these tables, live and kept ones."""
    live = _live(engine, tables)
    specs: dict[str, CollectionSpec] = {}
    for table in sorted(tables):
        specs |= {name: spec for name, spec in engine.collections(table).items() if spec.verified}
    total, done = sum(engine.count(name) for name in specs), 0

    def written(n: int) -> None:
        nonlocal done
        done += n
        if progress:
            progress(done, max(total, done))

    (folder / "collections").mkdir()
    stored = {}
    for number, (name, spec) in enumerate(specs.items()):
        file = f"collections/{number:04}.parquet"
        pages = engine.scroll(name, payload=None, vectors=list(spec.vectors))
        points = write_points(folder / file, spec, pages, written)
        stored[name] = StoredCollection(file=file, points=points, spec=spec)
    if _live(engine, tables) != live or not specs.keys() >= set(live.values()):
        raise EngineError("another version went live while the backup was written, so it would be of two; run it again")
    return live, stored


def _live(engine: Engine, tables: set[str]) -> dict[str, str]:
    return {alias: collection for alias, collection in engine.aliases().items() if alias in tables}
