"""Check that the versions on disk are as training wrote them, and that the offline history agrees with them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from feast import FileSource

from feast_embeddings.artifact import ENTITIES, Artifact, version_folders
from feast_embeddings.artifact.history import files_of, folder_of_source, history_folder
from feast_embeddings.artifact.manifest import read_manifest
from feast_embeddings.artifact.model_folder import artifact_lock, leftovers
from feast_embeddings.artifact.table_files import table_files
from feast_embeddings.doctor.findings import Finding, Level
from feast_embeddings.doctor.patient import Patient
from feast_embeddings.errors import ArtifactError, InputError
from feast_embeddings.files import is_held
from feast_embeddings.model.views import reads_given_source, view_name
from feast_embeddings.publish.history import history_tables

__all__ = ["artifacts", "history"]

# Deletes no version, but clears leftovers of killed processes, and makes the history agree with the versions on disk.
_REFRESH = ("--artifacts", "--keep", "1000000")


def artifacts(patient: Patient) -> Iterator[Finding]:
    """Check manifests and checksums of all versions, and look for leftovers of killed trainings."""
    data = patient.repo.data
    for model in patient.models:
        whole, unsigned = 0, 0
        for folder in version_folders(data, model):
            try:
                artifact = Artifact(folder, read_manifest(folder))
                for entity in artifact.manifest.sides:
                    artifact.verified(entity)
                    artifact.content(entity)
                whole += 1
                unsigned += artifact.manifest.format_version == 1
            except (ArtifactError, OSError) as error:
                if not folder.is_dir():  # deleted since it was listed
                    continue
                again = ("pull", model, "--version", folder.name)
                then = patient.command(*again if patient.has_artifact_store else ("prune", model, *_REFRESH))
                fix = f"{shlex.join(['rm', '-r', str(folder)])} && {then}"
                message = f"version {folder.name} is damaged: {error} (or restore it from a backup)"
                yield Finding("artifacts", "problem", message, fix, model)
        if whole:
            message = f"{_several(whole, 'version')} with the right checksums"
            if unsigned:
                message += f"; {unsigned} of format 1, whose metrics and settings have no checksum"
            yield Finding("artifacts", "ok", message, model=model)
        elif not version_folders(data, model) and patient.has_artifact_store:
            yield Finding("artifacts", "ok", "none is on this disk: each is pulled when it is needed", model=model)
        elif not version_folders(data, model):
            message = f"no version is on disk in {data / model}; restore the folder from a backup, or train again"
            fix = patient.command("train", model, "--interactions", "LOG")
            yield Finding("artifacts", "problem", message, fix, model)
        if not is_held(artifact_lock(data / model)) and (left := leftovers(data / model)):
            message = f"{_several(len(left), 'folder')} left by trainings that were killed"
            yield Finding("artifacts", "warning", message, patient.command("prune", model, *_REFRESH), model)
    if not patient.models:
        message = f"no model is trained under {data}"
        yield Finding("artifacts", "warning", message, patient.command("train", "NAME", "--interactions", "LOG"))


def history(patient: Patient) -> Iterator[Finding]:
    """Check that the history, which training frames read, has exactly the versions on disk, and that Feast reads it.

    Where views read tables of the repo's own, also that the newest version can be written to them.
    """
    for model in patient.models:
        folder = patient.repo.data / model
        versions = version_folders(patient.repo.data, model)
        if not versions:
            continue
        for entity in ENTITIES:
            place = history_folder(folder, entity)
            found = {path.name for path in place.glob("*.parquet")}
            expected = {name for version in versions for name in files_of(version, entity)}
            if found != expected:
                lost, extra = (_listed(some) for some in (expected - found, found - expected))
                message = f"{place} lacks versions ({lost}) or has extra ones ({extra}): training frames are wrong"
                yield Finding("history", "problem", message, patient.command("prune", model, *_REFRESH), model)
                break
            if elsewhere := _elsewhere(patient, view_name(model, entity), place):
                message = f"Feast reads {elsewhere} instead of {place}; was the repo moved or copied after feast apply?"
                # Of several machines, the one that trains is the one whose history Feast can read.
                level: Level = "warning" if patient.has_artifact_store else "problem"
                yield Finding("history", level, message, patient.feast("apply"), model)
                break
        else:
            if reason := _unwritable(patient, model, versions[-1]):
                yield Finding("history", "problem", reason, patient.command("publish", model, "--dry-run"), model)
                continue
            yield Finding("history", "ok", f"has {_several(len(versions), 'version')}", model=model)


def _listed(files: Iterable[str]) -> str:
    return ", ".join(sorted(name.removesuffix(".parquet") for name in files)) or "none"


def _elsewhere(patient: Patient, view: str, place: Path) -> str:
    """Return the folder that a registered view reads, if it is not this one."""
    registered = (patient.views or {}).get(view)
    source = None if registered is None or reads_given_source(registered) else registered.batch_source
    if not isinstance(source, FileSource) or "://" in source.path or folder_of_source(source.path).resolve() == place:
        return ""
    return source.path


def _unwritable(patient: Patient, model: str, newest: Path) -> str:
    """Say why the newest version cannot be written to tables of the repo's own; empty if it can, or need not."""
    sides = patient.sides(model) if patient.views and patient.config else None
    if not any(reads_given_source(side.view) for side in (sides or {}).values()):
        return ""
    try:
        manifest = read_manifest(newest)
        files = {entity: table_files([newest / name for name in manifest.parts(entity)]) for entity in manifest.sides}
        rows = [(side, files[entity]) for entity, side in (sides or {}).items() if entity in files]
        history_tables(patient.feature_store(), manifest, rows)
    except InputError as error:
        return str(error)
    except (ArtifactError, OSError):  # reported by another check
        return ""
    return ""


def _several(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
