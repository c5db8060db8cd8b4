"""Check the installed packages, the configuration, the definitions, the registry and the API keys of a repo."""

from __future__ import annotations

import ast
import importlib
import platform
import shlex
import stat
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution, version

from feast.repo_config import load_repo_config
from packaging.requirements import Requirement

from feast_embeddings.artifact import Artifact, Entity, version_folders
from feast_embeddings.artifact.manifest import read_manifest
from feast_embeddings.doctor.findings import Finding, first_line
from feast_embeddings.doctor.patient import Patient
from feast_embeddings.errors import ArtifactError, InputError, MissingExtraError
from feast_embeddings.model.sides import Side
from feast_embeddings.model.views import view_name
from feast_embeddings.online.settings import OnlineStoreSettings
from feast_embeddings.publish.plan import schema_difference
from feast_embeddings.service.api_keys import KeyRing

__all__ = ["configuration", "definitions", "installation", "keys", "registry"]

_US = "feast-embeddings"
# Reported even when all is well, because every bug report needs it.
_NAMED = ("feast", "qdrant-client", "qdrant-edge-py", "numpy", "pyarrow", "implicit")

# Offline stores that this package is tested with.
_OFFLINE = ("duckdb", "postgres")
# Two names of one store, Feast's default.
_DROPPING = ("dask", "file")


def installation(patient: Patient) -> Iterator[Finding]:
    """Check the installed packages against this one's requirements."""
    us = distribution(_US)
    needs = [Requirement(text) for text in us.requires or []]
    always = {str(need) for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})}
    fine = True
    # Everything in the extra ``all`` is in another one too.
    for text in dict.fromkeys(str(need).partition(";")[0].strip() for need in needs):
        need = Requirement(text)
        found = _installed(need.name)
        if found is None and text not in always:
            continue  # of an extra that is not installed
        if found is None or not need.specifier.contains(found, prereleases=True):
            message = f"{need.name}{need.specifier} is needed, found: {found or 'none'}"
            yield Finding(
                "installation", "problem", message, shlex.join([sys.executable, "-m", "pip", "install", text])
            )
            fine = False
    if _installed("implicit") and (reason := _unloadable("implicit.cpu.als")):
        message = str(MissingExtraError("training", "trainers", "implicit", reason))
        # The other libraries come with its wheel.
        yield Finding("installation", "problem", message, "apt-get install libgomp1")
        fine = False
    if fine:
        versions = [f"{name} {found}" for name in _NAMED if (found := _installed(name))]
        yield Finding(
            "installation", "ok", f"{_US} {us.version}, Python {platform.python_version()}, {', '.join(versions)}"
        )


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _unloadable(module: str) -> str:
    try:
        importlib.import_module(module)
    except ImportError as error:
        return str(error)
    return ""


def configuration(patient: Patient) -> Iterator[Finding]:
    """Check that feature_store.yaml can be read, and has the settings that this package needs."""
    file = patient.repo.path / "feature_store.yaml"
    template = f'd=$(mktemp -d) && feast-embeddings init "$d" && diff "$d/feature_store.yaml" {shlex.quote(str(file))}'
    try:
        config = load_repo_config(patient.repo.path, file)
        online, offline = config.online_store, config.offline_store
    except Exception as error:  # anything that Feast, pydantic and YAML raise
        # Without the text around it, which may contain a key.
        mark = getattr(error, "problem_mark", None)
        reason = f"line {mark.line + 1}: {getattr(error, 'problem', '')}" if mark else first_line(error)
        yield Finding("configuration", "problem", f"{file.name} cannot be used: {reason}", template)
        return
    if not isinstance(online, OnlineStoreSettings):
        message = (
            f"online_store.type is {online.type!r}, not feast_embeddings.QdrantEmbeddingOnlineStore: "
            "queries do not work"
        )
        yield Finding("configuration", "problem", message, template)
        return
    patient.config = config
    offline_type = getattr(offline, "type", None)
    expected = {
        "provider": (config.provider, "local"),
        "offline_store.type": (offline_type, offline_type if offline_type in _OFFLINE else "duckdb"),
        "batch_engine.type": (_type(config.batch_engine), "feast_embeddings.ArrowComputeEngine"),
        "registry.serve_features_while_materializing": (config.registry.serve_features_while_materializing, True),
        "entity_key_serialization_version": (config.entity_key_serialization_version, 3),
    }
    others = {name: found for name, (found, wanted) in expected.items() if found != wanted}
    for name, found in others.items():
        message = f"{name} is {found}, but this package is tested with {expected[name][1]}"
        if found in _DROPPING and name == "offline_store.type":
            message = (
                f"{name} is {found}: Feast's get_historical_features then drops label rows that are older than the "
                "first version of their vector, and all but one of rows with the same ids and time; with duckdb it "
                "keeps them. training-frame is not affected"
            )
        yield Finding("configuration", "warning", message, template)
    if not others:
        where = online.url or f"embedded, in {online.path or 'qdrant_storage'}"
        yield Finding("configuration", "ok", f"project {config.project}; vectors: {where}")


def _type(engine: object) -> object:
    return engine.get("type") if isinstance(engine, dict) else getattr(engine, "type", engine)


def definitions(patient: Patient) -> Iterator[Finding]:
    """Check that a file of the repo makes the feature views of trained models, without running it."""
    path = patient.repo.path
    restore = f'd=$(mktemp -d) && feast-embeddings init "$d" && cp "$d/definitions.py" {patient.path}/definitions.py'
    made_in, broken = [], False
    for file in sorted(path.glob("*.py")):
        try:
            tree = ast.parse(file.read_bytes(), str(file))
        except (SyntaxError, ValueError, OSError) as error:
            broken = True
            fix = restore if file.name == "definitions.py" else shlex.join([sys.executable, str(file)])
            yield Finding("definitions", "problem", f"{file.name} is not valid Python: {first_line(error)}", fix)
            continue
        if any("embedding_views" in (getattr(node, "id", ""), getattr(node, "attr", "")) for node in ast.walk(tree)):
            made_in.append(file.name)
    if made_in:
        yield Finding("definitions", "ok", f"feature views of trained models are made in {', '.join(made_in)}")
    elif not broken:
        yield Finding("definitions", "problem", "no file of the repo calls embedding_views for its models", restore)


def registry(patient: Patient) -> Iterator[Finding]:
    """Check that the registry can be read, and that its views fit the newest versions of the models."""
    config = patient.need_config()
    settings, apply = config.registry, patient.feast("apply")
    file = patient.repo.path / str(settings.path)
    on_disk = settings.registry_type == "file" and "://" not in str(settings.path)
    if on_disk and not file.is_file():  # reading it, Feast would make an empty one
        yield Finding("registry", "problem", f"there is no registry at {file}: nothing has been applied", apply)
        return
    try:
        views = patient.feature_store().list_feature_views()
    except Exception as error:  # anything that Feast and its registries raise
        aside = shlex.join(["mv", str(file), f"{file}.broken"]) + " && " if on_disk else ""
        yield Finding("registry", "problem", f"it cannot be read: {first_line(error)}", aside + apply)
        return
    patient.views = {view.name: view for view in views}
    for model in patient.models:
        sides = patient.sides(model)
        if sides is None:
            yield Finding("registry", "problem", "its feature views are not applied", apply, model)
            continue
        if difference := _difference(patient, model, sides):
            message = f"its views do not fit the newest version: {difference}"
            yield Finding("registry", "problem", message, apply, model)
        else:
            dim = next(iter(sides.values())).codec.fields["embedding"].dim
            what = "both views are" if len(sides) > 1 else f"the view of its {next(iter(sides))}s is"
            yield Finding("registry", "ok", f"{what} applied, of dimension {dim}", model=model)


def _difference(patient: Patient, model: str, sides: dict[Entity, Side]) -> str:
    """Describe how the registered views differ from the newest readable version."""
    for folder in reversed(version_folders(patient.repo.data, model)):
        try:
            artifact = Artifact(folder, read_manifest(folder))
            if lost := [view_name(model, entity) for entity in artifact.manifest.sides if entity not in sides]:
                return f"{lost[0]} is not applied"
            for entity, side in sides.items():
                if entity not in artifact.manifest.sides:
                    return f"{side.view.name}: version {folder.name} has no {entity}s"
                columns = artifact.schema(entity).names
                if found := schema_difference(side, columns, artifact.manifest.dim):
                    return f"{side.view.name}: {found}"
        except ArtifactError:
            continue  # reported by another check
        return ""
    return ""


def keys(patient: Patient) -> Iterator[Finding]:
    """Check that the service's keys are usable, and that not every user can read or write them."""
    file = patient.key_file
    if file is None:
        return
    try:
        KeyRing(file)
    except InputError as error:
        fix = f"feast-embeddings api-key NAME --json > key.json  # its line goes into {shlex.quote(str(file))}"
        yield Finding("keys", "problem", str(error), fix)
        return
    mode = stat.S_IMODE(file.stat().st_mode)
    fix = shlex.join(["chmod", "600", str(file)])
    if mode & (stat.S_IWGRP | stat.S_IWOTH):
        yield Finding("keys", "problem", f"other users can write {file} (mode {mode:o}), and so add keys", fix)
    elif mode & stat.S_IROTH:
        yield Finding("keys", "warning", f"every user can read {file} (mode {mode:o})", fix)
    else:
        yield Finding("keys", "ok", f"{file} has usable keys, and is not open to every user")
