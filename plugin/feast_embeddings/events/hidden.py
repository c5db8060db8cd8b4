"""Users and items that are out of all answers for now: a file of the repo, which is read again when it has changed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from feast_embeddings.arguments import Id
from feast_embeddings.errors import EmbeddingsError
from feast_embeddings.files import writer_lock, written_whole

__all__ = ["Hidden", "hidden_of"]

_LOCK_SECONDS = 60.0
_NONE: Mapping[str, frozenset[Id]] = {}


class _Read(NamedTuple):
    state: tuple[int, int, int]
    ids: Mapping[str, frozenset[Id]]


class Hidden:
    """The hidden users and items of one model; safe to use from many threads and processes.

    A separate file, not a table among the events: each query asks whether it has changed, which is one look at the
    folder, while events are written all the time. The first write makes it; until then nothing is hidden.

    Raises:
        EmbeddingsError: from every method: the file cannot be read or written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._kept: _Read | None = None

    def ids(self, entity: str) -> frozenset[Id]:
        """Return the hidden users or items as of now: the same object until they change."""
        return self._now().get(entity, frozenset())

    def add(self, entity: str, ids: Iterable[Id]) -> int:
        """Hide these, and return how many were not; when it returns, the next query of any process knows it."""
        return self._change(entity, lambda hidden: hidden | dict.fromkeys(ids))

    def remove(self, entity: str, ids: Collection[Id]) -> int:
        """Show these again, and return how many were hidden."""
        gone = frozenset(ids)
        return self._change(entity, lambda hidden: {id: None for id in hidden if id not in gone})

    def all(self) -> dict[str, list[Id]]:
        """Return the hidden ids of each entity that had some, in the order of hiding."""
        return self._read()

    def replace_by(self, ids: Mapping[str, list[Id]]) -> None:
        """Hide these, as from `all`, and no others."""
        if not ids and not self.path.exists():
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with writer_lock(self.path.with_suffix(".lock"), timeout=_LOCK_SECONDS):
                self._write(ids)
        except OSError as error:
            raise self._cannot(error) from error

    def _change(self, entity: str, change: Callable[[dict[Id, None]], dict[Id, None]]) -> int:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with writer_lock(self.path.with_suffix(".lock"), timeout=_LOCK_SECONDS):
                before = self._read()
                hidden = dict.fromkeys(before.get(entity, ()))
                changed = change(hidden)
                if changed.keys() != hidden.keys():
                    self._write({**before, entity: list(changed)})
        except OSError as error:
            raise self._cannot(error) from error
        return abs(len(changed) - len(hidden))

    def _write(self, ids: Mapping[str, list[Id]]) -> None:
        # Strictly newer than the file that it replaces, however coarse the clock is: readers go by the time.
        at = time.time_ns()
        if self.path.exists():
            at = max(at, self.path.stat().st_mtime_ns + 1)
        with written_whole(self.path) as file:
            file.write(json.dumps(ids, ensure_ascii=False).encode())
            file.flush()
            os.utime(file.name, ns=(at, at))

    def _now(self) -> Mapping[str, frozenset[Id]]:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return _NONE
        except OSError as error:
            raise self._cannot(error) from error
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        kept = self._kept
        if kept is None or kept.state != state:
            # If the file is replaced in between, the next query reads it once more.
            kept = self._kept = _Read(state, {entity: frozenset(ids) for entity, ids in self._read().items()})
        return kept.ids

    def _read(self) -> dict[str, list[Id]]:
        try:
            return dict(json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            raise self._cannot(error) from error

    def _cannot(self, reason: Exception) -> EmbeddingsError:
        return EmbeddingsError(f"the hidden users and items in {self.path} cannot be used: {reason}")


def hidden_of(data: Path, model: str) -> Hidden:
    """Return the hidden users and items of a model in a repo's folder of versions."""
    return Hidden(data / f"{model}.hidden.json")
