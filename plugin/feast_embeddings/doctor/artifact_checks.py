"""Are the trained versions on disk what training wrote, and is the offline history in line with them?"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

from feast import FileSource

from feast_embeddings.artifact import ENTITIES, Artifact, version_folders
from feast_embeddings.artifact.history import folder_of_source, history_folder
from feast_embeddings.artifact.manifest import read_manifest
from feast_embeddings.artifact.model_folder import artifact_lock, leftovers
from feast_embeddings.doctor.findings import Finding
from feast_embeddings.doctor.patient import Patient
from feast_embeddings.errors import ArtifactError
from feast_embeddings.files import is_held
from feast_embeddings.model.views import view_name

__all__ = ["artifacts", "history"]

# Deletes no version, clears what processes left that were killed, and brings the history in line with what is on disk.
_REFRESH = ("--artifacts", "--keep", "1000000")


def artifacts(patient: Patient) -> Iterator[Finding]:
    """Manifests and checksums of all versions, and what trainings left that were killed."""
    data = patient.repo.data
    for model in patient.models:
        whole, unsigned = 0, 0
        for folder in version_folders(data, model):
            try:
                artifact = Artifact(folder, read_manifest(folder))
                for entity in ENTITIES:
                    artifact.verified(entity)
                whole += 1
                unsigned += artifact.manifest.format_version == 1
            except (ArtifactError, OSError) as error:
                if not folder.is_dir():  # deleted since it was listed
                    continue
                fix = f"{shlex.join(['rm', '-r', str(folder)])} && {patient.command('prune', model, *_REFRESH)}"
                message = f"version {folder.name} is damaged: {error} (or restore it from a copy)"
                yield Finding("artifacts", "problem", message, fix, model)
        if whole:
            message = f"{_several(whole, 'version')} with the right checksums"
            if unsigned:
                message += f"; {unsigned} of format 1, whose metrics and settings have none"
            yield Finding("artifacts", "ok", message, model=model)
        elif not version_folders(data, model):
            message = f"no version is on disk in {data / model}; restore the folder from a copy, or train again"
            fix = patient.command("train", model, "--interactions", "LOG")
            yield Finding("artifacts", "problem", message, fix, model)
        if not is_held(artifact_lock(data / model)) and (left := leftovers(data / model)):
            message = f"{_several(len(left), 'folder')} left by trainings that were killed"
            yield Finding("artifacts", "warning", message, patient.command("prune", model, *_REFRESH), model)
    if not patient.models:
        message = f"no model is trained under {data}"
        yield Finding("artifacts", "warning", message, patient.command("train", "NAME", "--interactions", "LOG"))


def history(patient: Patient) -> Iterator[Finding]:
    """Training frames read the history: has it each version, and no other, and does Feast read this one?"""
    for model in patient.models:
        folder = patient.repo.data / model
        versions = {path.name for path in version_folders(patient.repo.data, model)}
        if not versions:
            continue
        for entity in ENTITIES:
            place = history_folder(folder, entity)
            found = {path.stem for path in place.glob("*.parquet")}
            if found != versions:
                lost, extra = (", ".join(sorted(some)) or "none" for some in (versions - found, found - versions))
                message = f"{place} lacks versions ({lost}) or has too many ({extra}): training frames are wrong"
                yield Finding("history", "problem", message, patient.command("prune", model, *_REFRESH), model)
                break
            if elsewhere := _elsewhere(patient, view_name(model, entity), place):
                message = (
                    f"Feast reads {elsewhere} instead of {place}, as when a repo was moved or copied after its apply"
                )
                yield Finding("history", "problem", message, patient.feast("apply"), model)
                break
        else:
            yield Finding("history", "ok", f"has {_several(len(versions), 'version')}", model=model)


def _elsewhere(patient: Patient, view: str, place: Path) -> str:
    """The folder of files that a registered view reads, if it is another than this one."""
    registered = (patient.views or {}).get(view)
    source = None if registered is None else registered.batch_source
    if not isinstance(source, FileSource) or "://" in source.path or folder_of_source(source.path).resolve() == place:
        return ""
    return source.path


def _several(n: int, what: str) -> str:
    return f"{n} {what}" + ("" if n == 1 else "s")
