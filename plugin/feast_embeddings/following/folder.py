"""Follow a folder: each file that appears in it is read once, in the order of names."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from feast_embeddings.errors import InputError
from feast_embeddings.events import EventLog, ReadFile
from feast_embeddings.following.file_events import read_events
from feast_embeddings.following.form import Batch, Form
from feast_embeddings.following.pausing import pause

__all__ = ["follow_folder"]

_UNFINISHED = (".tmp", ".part")


class _Found(NamedTuple):
    path: Path
    size: int
    modified: int


def follow_folder(
    folder: Path, log: EventLog, form: Form, *, once: bool, stopped: Callable[[], bool]
) -> Iterator[Batch]:
    """Add the events of each file of a folder to the log, and yield what became of it.

    A file is a batch: its events and the note that it has been read are written in one transaction, so a process that
    is killed has read a file or has not. An event's id is the file's ``event_id``, or else ``<file name>:<row>``, where
    rows are counted from 1 among those that can be used. Files below folders of the folder, and those whose names start
    with ``.`` or ``_`` or end in ``.tmp`` or ``.part``, are not read, nor are empty ones.

    Args:
        once: end when everything is read that is there; otherwise look for more each second.
        stopped: asked between files, and while there are none.

    Raises:
        InputError: the folder does not exist; a file cannot be read, or changed after or while it was read. Nothing of
            that file is added.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; expected one whose files are followed")
    read = log.read_files()
    while not stopped():
        waiting = _waiting(folder, read)
        for place, path in enumerate(waiting, 1):
            if stopped():
                return
            if (batch := _add(path, log, form, read)) is not None:
                yield batch._replace(behind=len(waiting) - place)
        if once:
            return
        if not waiting:
            pause(stopped)


def _waiting(folder: Path, read: dict[str, ReadFile]) -> list[Path]:
    """Return the files that have not been read, and check that the others are as they were."""
    waiting = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")) or path.name.endswith(_UNFINISHED) or (found := _found(path)) is None:
            continue
        if not found.size:
            continue  # no format has a complete file without a byte but JSON, where it has no event
        if (before := read.get(path.name)) is None:
            waiting.append(path)
        elif found[1:] != before[1:3]:
            read[path.name] = _as_before(found, before)
    return waiting


def _found(path: Path) -> _Found | None:
    """Return the state of a file; None if it is none, or gone."""
    try:
        state = path.stat()
    except FileNotFoundError:
        return None
    return None if path.is_dir() else _Found(path, state.st_size, state.st_mtime_ns)


def _as_before(found: _Found, before: ReadFile) -> ReadFile:
    digest = _sha256(found.path)
    if digest != before.sha256:
        raise InputError(
            f"{found.path} changed after it was read, or a file of the same name was read from another folder: it had "
            f"{before.size:,} bytes (sha256 {before.sha256[:12]}…), now it has {found.size:,} (sha256 {digest[:12]}…); "
            "write new events to a file with a new name"
        )
    return ReadFile(found.path.name, found.size, found.modified, digest)


def _add(path: Path, log: EventLog, form: Form, read: dict[str, ReadFile]) -> Batch | None:
    """Add the events of a file; return None if it has gone."""
    if (found := _found(path)) is None:
        return None
    source = ReadFile(path.name, found.size, found.modified, _sha256(path))
    events, without_weight, dropped = read_events(path, form, datetime.now(UTC))
    if _found(path) != found:
        raise InputError(
            f"{path} changed while it was read, and nothing of it was added; write it under a name that ends in .tmp, "
            "and rename it when it is complete"
        )
    added = log.add(events, source)
    read[path.name] = source
    return Batch(path.name, added.added, added.duplicates, without_weight, dropped, 0)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
