"""Atomic writes of files, and a lock for one writer at a time that names its holder."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, BinaryIO

import portalocker

from feast_embeddings.errors import WriterLockedError

__all__ = ["is_held", "writer_lock", "written_whole"]

_POLL_SECONDS = 0.05
# Older temporary files have no writer any more.
_STALE_SECONDS = 3600


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Write a file that gets its name, replacing an existing one, when the block succeeds; else it is deleted.

    Readers see the old content or all of the new, even if the writer is killed. A later write deletes leftovers of
    killed writers.

    Raises:
        OSError: the file cannot be written in its folder.
    """
    start = f".{path.name}."
    for left in [other for other in path.parent.iterdir() if other.name.startswith(start)]:
        with contextlib.suppress(FileNotFoundError):  # deleted by another writer
            if time.time() - left.stat().st_mtime > _STALE_SECONDS:
                left.unlink()
    # A unique name: concurrent writers must not write into the same file.
    temporary = path.with_name(f"{start}{uuid.uuid4().hex[:12]}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def writer_lock(path: Path, *, timeout: float) -> Iterator[None]:
    """Hold the lock during the block. The operating system frees it when the process dies.

    Raises:
        WriterLockedError: another thread or process still held it after `timeout` seconds, or the file system has no
            working locks.
    """
    deadline = time.monotonic() + timeout
    with path.open("a+") as handle:
        while not _try(path, handle):
            if time.monotonic() >= deadline:
                raise WriterLockedError(
                    f"{path.parent} is being written by {_holder(path)}; waited {timeout:g} s. "
                    "Wait for it to finish, or stop it"
                )
            time.sleep(_POLL_SECONDS)
        with path.open("a+") as second:
            if _try(path, second):
                raise _no_locks(path, "two writers got the lock at once")
        handle.truncate(0)
        handle.write(
            json.dumps(
                {
                    "pid": os.getpid(),
                    "host": socket.gethostname(),
                    "program": Path(sys.argv[0]).name,  # no arguments: they could hold a secret
                    "since": datetime.now(UTC).isoformat(timespec="seconds"),
                }
            )
        )
        handle.flush()
        yield


def _try(path: Path, handle: IO[str]) -> bool:
    try:
        portalocker.lock(handle, portalocker.LockFlags.EXCLUSIVE | portalocker.LockFlags.NON_BLOCKING)
    except portalocker.AlreadyLocked:
        return False
    except portalocker.LockException as error:
        raise _no_locks(path, str(error)) from None
    return True


def _no_locks(path: Path, reason: str) -> WriterLockedError:
    return WriterLockedError(
        f"the file system of {path.parent} has no working file locks ({reason}), so two writers would lose each "
        "other's rows; use a local disk, or a Qdrant server"
    )


def is_held(path: Path) -> bool:
    """Return whether a process holds this lock now."""
    if not path.is_file():
        return False
    # Shared, so that concurrent checks do not see each other; released at once.
    with path.open() as handle:
        try:
            portalocker.lock(handle, portalocker.LockFlags.SHARED | portalocker.LockFlags.NON_BLOCKING)
        except portalocker.AlreadyLocked:
            return True
        except portalocker.LockException:  # no locks on this file system, so none is held
            return False
    return False


def _holder(path: Path) -> str:
    try:
        holder = json.loads(path.read_text())
        return f"{holder['program']} (pid {holder['pid']} on {holder['host']}, since {holder['since']})"
    except (OSError, ValueError, KeyError):
        return "another process"
