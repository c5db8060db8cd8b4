"""The folder of a model: its versions, their names and order, and the lock for writing or deleting one.

::

    <data>/<model>/<version>/      a version; its name is the time when it was written
    <data>/<model>/.<version>.*    one that is being written or deleted, under the lock
    <data>/<model>/writer.lock
    <data>/<model>/history/        see `feast_embeddings.artifact.history`
"""

from __future__ import annotations

import contextlib
import re
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from feast_embeddings.artifact.table_files import fsync
from feast_embeddings.errors import ArtifactError, InputError
from feast_embeddings.files import writer_lock

__all__ = [
    "artifact_lock",
    "is_version_name",
    "leftovers",
    "time_after",
    "trained_models",
    "validate_model_name",
    "version_at",
    "version_folders",
    "version_written_whole",
    "writing",
]

_MODEL = re.compile(r"[a-z][a-z0-9_]{0,39}")
_VERSION = re.compile(r"\d{8}T\d{9}Z", re.ASCII)
# A writer holds the lock while it writes two tables, not while it trains.
_LOCK_SECONDS = 600
_MILLISECOND = timedelta(milliseconds=1)


def validate_model_name(model: str) -> str:
    """Return the name if it is valid in paths, Feast names and Qdrant names; raise `InputError` if not."""
    if not _MODEL.fullmatch(model):
        raise InputError(
            f"model name {model!r}: expected 1 to 40 lower-case letters, digits and '_', starting with a letter"
        )
    return model


def is_version_name(name: str) -> bool:
    """Return whether a version can have this name."""
    return _VERSION.fullmatch(name) is not None


def trained_models(data: Path) -> list[str]:
    """Return the names of the models with at least one version under the data folder, sorted.

    Stability: stable, see docs/compatibility.md.
    """
    if not data.is_dir():
        return []
    return sorted(p.name for p in data.iterdir() if _MODEL.fullmatch(p.name) and any(_version_paths(p)))


def version_folders(data: Path, model: str) -> list[Path]:
    """Return the folders of all versions of a model, oldest first, damaged or not."""
    return sorted(_version_paths(data / validate_model_name(model)))


def artifact_lock(folder: Path) -> Path:
    """Return the lock file that a process holds while it writes or deletes a version of the model in this folder."""
    return folder / "writer.lock"


def leftovers(folder: Path) -> list[Path]:
    """Return folders of half-written or half-deleted versions; they are leftovers if no process holds the lock."""
    return sorted(folder.glob(".*Z.*"))


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the lock of a model during the block; leftovers of killed processes are deleted first."""
    with writer_lock(artifact_lock(folder), timeout=_LOCK_SECONDS):
        for left in leftovers(folder):
            shutil.rmtree(left, ignore_errors=True)
        yield


@contextlib.contextmanager
def version_written_whole(folder: Path, version: str) -> Iterator[Path]:
    """Make a folder that becomes the version's when the block ends well, and is deleted else.

    Called with the model's lock held.
    """
    temporary = folder / f".{version}.{uuid.uuid4().hex[:8]}"
    temporary.mkdir()
    try:
        yield temporary
        temporary.rename(folder / version)
        fsync(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def version_at(time: datetime) -> str:
    """Return the version name for a time, to the millisecond."""
    return time.strftime("%Y%m%dT%H%M%S") + f"{time.microsecond // 1000:03d}Z"


def time_after(version: Path) -> datetime:
    """Return the first time whose version name sorts after this one.

    Raises:
        ArtifactError: there is no such time.
    """
    try:
        return datetime.strptime(version.name, "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC) + _MILLISECOND
    except (ValueError, OverflowError):
        raise ArtifactError(
            f"{version} is named like a version, but no later time exists, so no version can be newer: move it away"
        ) from None


def _version_paths(folder: Path) -> Iterator[Path]:
    return (p for p in folder.iterdir() if is_version_name(p.name)) if folder.is_dir() else iter(())
