"""The folder of a model: its versions, their names and order, and the lock of whoever writes or deletes one.

::

    <data>/<model>/<version>/      a version; its name is the time of its writing
    <data>/<model>/.<version>.*    one that is being written or deleted, under the lock
    <data>/<model>/writer.lock
    <data>/<model>/history/        see `feast_embeddings.artifact.history`
"""

from __future__ import annotations

import contextlib
import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from feast_embeddings.errors import ArtifactError, InputError
from feast_embeddings.files import writer_lock

__all__ = [
    "artifact_lock",
    "leftovers",
    "time_after",
    "trained_models",
    "validate_model_name",
    "version_at",
    "version_folders",
    "writing",
]

_MODEL = re.compile(r"[a-z][a-z0-9_]{0,39}")
_VERSION = re.compile(r"\d{8}T\d{9}Z")
# A writer holds the lock while it writes two tables, not while it trains.
_LOCK_SECONDS = 600
_MILLISECOND = timedelta(milliseconds=1)


def validate_model_name(model: str) -> str:
    """Return the name if it can stand in paths, Feast names and Qdrant names; raise `InputError` if not."""
    if not _MODEL.fullmatch(model):
        raise InputError(
            f"model name {model!r}: expected 1 to 40 lower-case letters, digits and '_', starting with a letter"
        )
    return model


def trained_models(data: Path) -> list[str]:
    """Names of the models that have at least one version under the data folder, sorted."""
    if not data.is_dir():
        return []
    return sorted(p.name for p in data.iterdir() if _MODEL.fullmatch(p.name) and any(_version_paths(p)))


def version_folders(data: Path, model: str) -> list[Path]:
    """The folders of all versions of a model, oldest first, damaged or not."""
    return sorted(_version_paths(data / validate_model_name(model)))


def artifact_lock(folder: Path) -> Path:
    """The file whose lock a process holds that writes or deletes a version of the model in this folder."""
    return folder / "writer.lock"


def leftovers(folder: Path) -> list[Path]:
    """Folders of versions that were, while nobody holds the lock, left half written or half deleted."""
    return sorted(folder.glob(".*Z.*"))


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Hold the lock of a model for the length of the block; what processes left that were killed is cleared first."""
    with writer_lock(artifact_lock(folder), timeout=_LOCK_SECONDS):
        for left in leftovers(folder):
            shutil.rmtree(left, ignore_errors=True)
        yield


def version_at(time: datetime) -> str:
    """The name of a version of this time, to the millisecond."""
    return time.strftime("%Y%m%dT%H%M%S") + f"{time.microsecond // 1000:03d}Z"


def time_after(version: Path) -> datetime:
    """The first time whose version comes after this one.

    Raises:
        ArtifactError: there is none.
    """
    try:
        return datetime.strptime(version.name, "%Y%m%dT%H%M%S%fZ").replace(tzinfo=UTC) + _MILLISECOND
    except (ValueError, OverflowError):
        raise ArtifactError(
            f"{version} is named like a version, but no time comes after it, so none can be newer: move it away"
        ) from None


def _version_paths(folder: Path) -> Iterator[Path]:
    return (p for p in folder.iterdir() if _VERSION.fullmatch(p.name)) if folder.is_dir() else iter(())
