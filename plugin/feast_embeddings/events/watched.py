"""A small JSON file of a model that every query looks at, and reads again only when it has changed."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from feast_embeddings.errors import EmbeddingsError
from feast_embeddings.files import writer_lock, written_whole

__all__ = ["WatchedFile"]

_LOCK_SECONDS = 60.0

Value = TypeVar("Value")


class _Read(NamedTuple, Generic[Value]):
    state: tuple[int, int, int]
    value: Value


class WatchedFile(Generic[Value]):
    """An object in JSON; safe to use from many threads and processes.

    A separate file, not a table among the events: each query asks whether it has changed, which is one look at the
    folder, while events are written all the time. The first write makes it; until then the object is empty.

    Args:
        what: what it holds, for errors.
        parsed: makes of the object what readers get; a `ValueError` says why it cannot.

    Raises:
        EmbeddingsError: from every method: the file cannot be read or written.
    """

    def __init__(self, path: Path, what: str, parsed: Callable[[dict[str, Any]], Value]) -> None:
        self.path = path
        self._what = what
        self._parsed = parsed
        self._none = parsed({})
        self._kept: _Read[Value] | None = None

    def now(self) -> Value:
        """Return what the file says as of now: the same object until it changes."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return self._none
        except OSError as error:
            raise self._cannot(error) from error
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        kept = self._kept
        if kept is None or kept.state != state:
            # If the file is replaced in between, the next query reads it once more.
            read = self.read()
            try:
                kept = self._kept = _Read(state, self._parsed(read))
            except (ValueError, TypeError, AttributeError) as error:
                raise self._cannot(error) from error
        return kept.value

    def read(self) -> dict[str, Any]:
        """Read the object itself."""
        try:
            return dict(json.loads(self.path.read_bytes()))
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError) as error:
            raise self._cannot(error) from error

    def change(self, changed: Callable[[dict[str, Any]], Mapping[str, Any]]) -> None:
        """Replace the object by what the function makes of it; when it returns, the next query of any process knows."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with writer_lock(self.path.with_suffix(".lock"), timeout=_LOCK_SECONDS):
                before = self.read()
                after = changed(dict(before))
                if after != before:
                    self._write(after)
        except OSError as error:
            raise self._cannot(error) from error

    def replace_by(self, value: Mapping[str, Any]) -> None:
        """Replace the object, as from `read`."""
        if value or self.path.exists():
            self.change(lambda _: value)

    def _write(self, value: Mapping[str, Any]) -> None:
        # Strictly newer than the file that it replaces, however coarse the clock is: readers go by the time.
        at = time.time_ns()
        if self.path.exists():
            at = max(at, self.path.stat().st_mtime_ns + 1)
        with written_whole(self.path) as file:
            file.write(json.dumps(value, ensure_ascii=False).encode())
            file.flush()
            os.utime(file.name, ns=(at, at))

    def _cannot(self, reason: Exception) -> EmbeddingsError:
        return EmbeddingsError(f"the {self._what} in {self.path} cannot be used: {reason}")
