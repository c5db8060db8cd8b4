"""A backup as a folder, or as one .tar file: written whole or not at all, and opened as a folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

from feast_embeddings.errors import EmbeddingsError, InputError
from feast_embeddings.files import is_held, writer_lock, written_whole

__all__ = ["TAR", "check_room", "new_backup", "opened", "scratch_folder"]

TAR = ".tar"


@contextlib.contextmanager
def new_backup(path: Path) -> Iterator[Path]:
    """Yield a folder to fill, which becomes the backup of this name when the block succeeds; else it is deleted.

    It is next to the name that it gets, under a hidden one; the next backup there deletes files of killed processes.

    Raises:
        InputError: something has the name already, or it cannot be written there.
    """
    if path.exists():
        raise InputError(f"{path} exists already; name a new file or folder for the backup")
    if not path.parent.is_dir():
        raise InputError(f"{path.parent} is no folder; make it, or name another place for the backup")
    try:
        with scratch_folder(path.parent, f".{path.name}.") as scratch:
            made = scratch / "backup"
            made.mkdir()
            yield made
            if path.suffix == TAR:
                with written_whole(path) as file, tarfile.open(fileobj=file, mode="w") as tar:
                    tar.add(made, arcname="")
            else:
                for file_path in made.rglob("*"):
                    if file_path.is_file():
                        _sync(file_path)
                made.rename(path)
    except PermissionError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}; name another place for the backup") from None


@contextlib.contextmanager
def opened(path: Path, scratch: Path) -> Iterator[Path]:
    """Yield the folder of a backup: itself, or what a .tar file has, in the scratch folder.

    Raises:
        InputError: it is neither, or the file is damaged.
    """
    if path.is_dir():
        yield path
        return
    if not path.is_file():
        raise InputError(f"{path} does not exist; expected a file or folder from feast-embeddings backup")
    check_room(scratch, path.stat().st_size, f"unpack {path}")
    folder = scratch / "unpacked"
    folder.mkdir()
    try:
        with tarfile.open(path, mode="r:") as tar:
            for member in tar:
                target = folder / member.name
                # A file of someone else could have names that lead out of the folder, or links.
                if member.isfile() and folder in target.parents and ".." not in target.parts:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    with target.open("xb") as file:
                        shutil.copyfileobj(tar.extractfile(member), file)  # type: ignore[arg-type] # it is a file
    except (tarfile.TarError, EOFError, FileExistsError, ValueError) as error:
        raise InputError(f"{path} is damaged, or is no backup: {error}; take another backup") from None
    yield folder


@contextlib.contextmanager
def scratch_folder(parent: Path, start: str) -> Iterator[Path]:
    """Yield a new folder whose name begins so, deleted at the end; folders of killed processes are deleted first."""
    for left in parent.glob(f"{start}*.scratch"):
        if (left / "lock").exists() and not is_held(left / "lock"):
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=start, suffix=".scratch", dir=parent))
    try:
        with writer_lock(folder / "lock", timeout=0):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def check_room(folder: Path, needed: int, task: str) -> None:
    """Refuse a task that the disk of a folder has no room for.

    Raises:
        EmbeddingsError: it has not.
    """
    if (free := shutil.disk_usage(folder).free) < needed:
        raise EmbeddingsError(
            f"no space left to {task}: that may take {needed / 2**20:.0f} MiB in {folder}, which has "
            f"{free / 2**20:.0f} MiB; make room. Nothing was changed"
        )


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
