"""Restore a backup: everything is verified and loaded next to the old data, and the aliases switch at the end.

A process that dies before the end leaves the old collections live; another restore begins again, and deletes what the
first one left.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from feast import FeatureStore

from feast_embeddings.artifact import version_folders
from feast_embeddings.artifact.history import refresh_history
from feast_embeddings.artifact.model_folder import writing
from feast_embeddings.artifact.table_files import sha256_of
from feast_embeddings.backup.container import check_room, opened, scratch_folder
from feast_embeddings.backup.contents import ADDED, EVENTS, HIDDEN, REGISTRY, Contents, read_contents, verify_files
from feast_embeddings.backup.points import read_points
from feast_embeddings.backup.write import Progress, models_of
from feast_embeddings.engines.engine import CollectionSpec, Engine
from feast_embeddings.engines.room import room_for
from feast_embeddings.errors import EngineError, InputError
from feast_embeddings.events import added_attributes_of, event_log_of, hidden_of
from feast_embeddings.files import writer_lock, written_whole
from feast_embeddings.model.sides import qdrant_store
from feast_embeddings.online.table_names import collection_name

__all__ = ["STEPS", "Restored", "restore"]

STEPS = ("verify", "load", "versions", "files", "switch", "clear")


@dataclass(frozen=True)
class Restored:
    """What was restored.

    Attributes:
        live: the live version of each table that is one of a model.
        registry: False if the repo's registry is not a file, which stays as it is.
    """

    project: str
    models: list[str]
    versions: int
    collections: int
    points: int
    live: dict[str, str]
    registry: bool


def restore(
    feature_store: FeatureStore,
    repo: Path,
    path: Path,
    *,
    replace: bool = False,
    progress: Progress | None = None,
    on_step: Callable[[str], object] | None = None,
) -> Restored:
    """Bring back what a backup has, into a repo of the same project, on either engine.

    Collections get the settings of this repo's online store, such as quantization. Versions on disk that the backup
    does not have stay, and so do models that it does not have.

    Args:
        path: a folder or file from `back_up`.
        replace: also if the repo has something of the backup's models, or feature views; they are replaced.
        progress: called with the number of points loaded, and of all.
        on_step: called with the name of each of `STEPS` as it begins.

    Raises:
        InputError: it is no backup, or damaged, or of another project; or the repo is not empty. Nothing is changed.
        WriterLockedError: another restore is running.
        EngineError: Qdrant failed. What was live is live.
    """
    begin = on_step or (lambda step: None)
    data = repo / "data"
    data.mkdir(exist_ok=True)
    with writer_lock(data / "restore.lock", timeout=0), scratch_folder(data, ".restore.") as scratch:
        begin("verify")
        with opened(path, scratch) as folder:
            contents = read_contents(folder, path)
            verify_files(folder, path, contents)
            engine = qdrant_store(feature_store).engine(feature_store.config)
            _check(feature_store, engine, data, contents, replace)
            _check_room(engine, data, contents)
            begin("load")
            loaded = _load(engine, folder, contents, progress)
            begin("versions")
            for model in contents.models:
                _place_versions(data, model, folder, contents)
            begin("files")
            with _replaced_files(feature_store, repo, folder, scratch, contents) as has_registry:
                for name, collection in loaded.items():
                    engine.annotate(collection, _spec(engine, collection, contents.collections[name].spec))
                begin("switch")
                gone = dict.fromkeys(contents.tables - contents.aliases.keys())
                engine.switch({**gone, **{alias: loaded[name] for alias, name in contents.aliases.items()}})
    begin("clear")
    for table in contents.tables:
        engine.drop([name for name in engine.collections(table) if name not in loaded.values()])
    specs = {alias: contents.collections[name].spec for alias, name in contents.aliases.items()}
    return Restored(
        project=contents.project,
        models=contents.models,
        versions=sum(len(contents.versions_of(model)) for model in contents.models),
        collections=len(loaded),
        points=sum(collection.points for collection in contents.collections.values()),
        live={spec.view: spec.version for spec in specs.values() if spec.version},
        registry=has_registry,
    )


def _check(feature_store: FeatureStore, engine: Engine, data: Path, contents: Contents, replace: bool) -> None:
    """Refuse another project, and a repo that has something which would be replaced."""
    if contents.project != feature_store.project:
        raise InputError(
            f"the backup is of project {contents.project!r}, and this repo is of project {feature_store.project!r}; "
            "give feature_store.yaml that project, as the names of tables have it"
        )
    if replace:
        return
    there = [f"live table {alias}" for alias in engine.aliases() if alias in contents.tables]
    there += [f"model {model} on disk" for model in models_of(data) if model in contents.models]
    views = feature_store.registry.list_all_feature_views(feature_store.project)
    there += [f"registered feature view {view.name}" for view in views]
    if there:
        more = f" and {len(there) - 3} more" if len(there) > 3 else ""
        raise InputError(
            f"the repo is not empty: {', '.join(there[:3])}{more}; restore into a new repo, or replace its data "
            "with --replace"
        )


def _check_room(engine: Engine, data: Path, contents: Contents) -> None:
    """Refuse what the disk has no room for; the embedded engine's folder counts as on the disk of the data folder."""
    needed = sum(file.bytes for name, file in contents.files.items() if name.startswith("models/"))
    if engine.free_bytes() is not None:
        needed += sum(room_for(stored.spec, stored.points) for stored in contents.collections.values())
    check_room(data, needed, "restore")


def _load(engine: Engine, folder: Path, contents: Contents, progress: Progress | None) -> dict[str, str]:
    """Load every collection under a name that no other has; return the name in the backup -> the one here."""
    total, done = sum(collection.points for collection in contents.collections.values()), 0

    def read(n: int) -> None:
        nonlocal done
        done += n
        if progress:
            progress(done, total)

    # In the place of the fingerprint while it is loaded, so that another restore knows it, and a publish does not.
    mark = f"restore {contents.checksum}"
    loaded: dict[str, str] = {}
    for name, stored in contents.collections.items():
        spec = stored.spec.model_copy(update={"verified": False, "fingerprint": mark, "datatype": "float32"})
        there = engine.collections(spec.alias)
        half = [other for other, found in there.items() if not found.verified and found.fingerprint == mark]
        taken = there.keys() | set(loaded.values())
        names = (name if n == 0 else collection_name(spec.alias, spec.version, n) for n in count())
        target = next(
            (other for other in half if there[other].version == spec.version and other not in loaded.values()),
            None,
        ) or next(other for other in names if other not in taken)
        engine.create(target, spec, read_points(folder / stored.file, spec, read))
        if (found := engine.count(target)) != stored.points:
            raise EngineError(f"{target} has {found} points after loading {stored.points}; restore again")
        loaded[name] = target
    return loaded


def _spec(engine: Engine, collection: str, spec: CollectionSpec) -> CollectionSpec:
    """Return the spec of the backup, but for what this engine's settings say."""
    return spec.model_copy(update={"datatype": engine.describe(collection).datatype})


def _place_versions(data: Path, model: str, folder: Path, contents: Contents) -> None:
    """Put the versions of a model into their folders, each whole or not at all."""
    if not (versions := contents.versions_of(model)):
        return
    home = data / model
    home.mkdir(exist_ok=True)
    with writing(home):
        for version, files in versions.items():
            source = f"models/{model}/versions/{version}"
            if all(
                (home / version / file).is_file()
                and sha256_of(home / version / file) == contents.files[f"{source}/{file}"].sha256
                for file in files
            ):
                continue
            # What a killed process leaves under these names is deleted by the next one that writes here.
            new, old = (home / f".{version}.{uuid.uuid4().hex[:8]}" for _ in range(2))
            new.mkdir()
            for file in files:
                with (folder / source / file).open("rb") as reading, written_whole(new / file) as made:
                    shutil.copyfileobj(reading, made)
            if (home / version).exists():
                (home / version).rename(old)
            new.rename(home / version)
            shutil.rmtree(old, ignore_errors=True)
        refresh_history(home, version_folders(data, model))


@contextlib.contextmanager
def _replaced_files(
    feature_store: FeatureStore, repo: Path, folder: Path, scratch: Path, contents: Contents
) -> Iterator[bool]:
    """Replace registry, events and hidden ones during the block, and for good if it succeeds.

    Each is replaced in one step. Yields whether the registry is a file, and so was replaced.
    """
    with contextlib.ExitStack() as undo:
        for model in contents.models:
            _replace_model_files(repo / "data", model, folder / "models" / model, scratch, undo)
        registry = _registry_file(feature_store, repo)
        if registry is not None:
            registry.parent.mkdir(parents=True, exist_ok=True)
            if registry.exists():
                undo.callback(_write, registry, registry.read_bytes())
            _write(registry, (folder / REGISTRY).read_bytes())
        yield registry is not None
        undo.pop_all()


def _replace_model_files(data: Path, model: str, source: Path, scratch: Path, undo: contextlib.ExitStack) -> None:
    log = event_log_of(data, model)
    before = scratch / f"{model}.before"
    with log.changing():
        if log.path.exists():
            log.copy_to(before)
        undo.callback(log.replace_by, before if before.exists() else None)
        log.replace_by(source / EVENTS if (source / EVENTS).is_file() else None)
    for name, file in ((HIDDEN, hidden_of(data, model)), (ADDED, added_attributes_of(data, model))):
        undo.callback(file.replace_by, file.read())
        file.replace_by(json.loads((source / name).read_bytes()) if (source / name).is_file() else {})


def _registry_file(feature_store: FeatureStore, repo: Path) -> Path | None:
    registry = feature_store.config.registry
    is_file = registry.registry_type == "file" and "://" not in str(registry.path)
    return repo / registry.path if is_file else None


def _write(path: Path, content: bytes) -> None:
    with written_whole(path) as file:
        file.write(content)
