"""Fill a new shard of the embedded engine, by several processes at once if the points are many.

The engine converts and inserts points in Rust, but with Python's GIL held, so more threads would not help. Each
process writes a separate shard, with the points whose ids are assigned to it; in the end their segments, the parts of
Qdrant's shards, are moved into one shard. Later writes continue from the highest operation number in any segment, so
they replace points of every segment.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Self, cast

import numpy as np
import qdrant_edge as edge

from feast_embeddings.engines.embedded.filler_process import READY, Rows, send, write
from feast_embeddings.engines.engine import PointBatch
from feast_embeddings.errors import EngineError

__all__ = ["MOST_PROCESSES", "ShardFiller", "as_rows", "usable_processes"]

_log = logging.getLogger(__name__)

# Each process leaves one segment, and every search reads every segment.
MOST_PROCESSES = 4
# Fewer points are written faster than other processes start.
_MANY = 10_000
# Points per message: some megabytes.
_MESSAGE = 10_000


def usable_processes() -> int:
    """Return how many processes can write at the same time."""
    if not Path(sys.executable or "").name.lower().startswith("python"):
        return 1  # inside another program, which would start instead of Python
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, MOST_PROCESSES)


def as_rows(batch: PointBatch) -> Rows:
    """Convert a batch of points to builtin types."""
    vectors = {name: (matrix.tobytes(), mask.tolist()) for name, (matrix, mask) in batch.vectors.items()}
    return batch.ids, vectors, batch.payloads


class ShardFiller:
    """A new shard to fill; processes that still run when the block ends are stopped.

    Args:
        path: folder of the shard; must exist and be empty.
        config: configuration of the shard.
        processes: how many may write at the same time; 1 writes in this process.
        merge: whether the engine merges the segments of all processes into one when it optimizes the shard.

    Attributes:
        shard: empty. The merge builds its payload indexes, once and over all points.
    """

    def __init__(self, path: Path, config: edge.EdgeConfig, processes: int, *, merge: bool) -> None:
        self.shard = edge.EdgeShard.create(str(path), config)
        self._path = path
        self._config = config
        self._processes = processes
        self._keep_empty = merge
        self._waiting: list[PointBatch] = []
        self._parts: list[_Part] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for part in self._parts:
            part.stop()

    def write(self, batch: PointBatch) -> None:
        """Insert or replace points; `finish` completes pending writes."""
        self._waiting.append(batch)
        if self._parts or self._processes == 1:
            self._write_waiting()
        elif sum(map(len, self._waiting)) >= _MANY:
            # The processes start while the caller makes the next batch.
            self._parts = self._start()

    def finish(self) -> None:
        """Write the remaining points and flush the files; raises if a process failed."""
        self._write_waiting()
        for part in self._parts:
            part.end()
        for part in self._parts:
            part.wait()
        self.shard.flush()
        self.shard.close()
        if self._parts:
            self._merge()

    def _start(self) -> list[_Part]:
        folders = [self._path / "parts" / str(i) for i in range(self._processes)]
        for folder in folders:
            folder.mkdir(parents=True)
            edge.EdgeShard.create(str(folder), self._config).close()
        parts: list[_Part] = []
        try:
            for folder in folders:
                parts.append(_Part(folder))  # noqa: PERF401 - if one cannot start, the started ones are stopped
        except OSError as error:
            self._write_alone(parts, str(error))
            return []
        return parts

    def _write_waiting(self) -> None:
        if failed := next((part for part in self._parts if not part.is_ready()), None):
            self._write_alone(self._parts, failed.said())
            self._parts = []
        for batch in self._waiting:
            if self._parts:
                self._distribute(batch)
            else:
                write(self.shard, as_rows(batch))
        self._waiting.clear()

    def _write_alone(self, parts: list[_Part], reason: str) -> None:
        _log.debug("no other process could be started to write to %s: %s", self._path, reason)
        for part in parts:
            part.stop()
        shutil.rmtree(self._path / "parts")
        self._processes = 1

    def _distribute(self, batch: PointBatch) -> None:
        for start in range(0, len(batch), _MESSAGE):
            rows = np.arange(start, min(start + _MESSAGE, len(batch)))
            # By id, so the later of two points with one id stays. A tuple's hash is well mixed, an int's is not.
            owners = np.array([hash((batch.ids[i],)) for i in rows]) % len(self._parts)
            for i, part in enumerate(self._parts):
                part.send(as_rows(batch.take(rows[owners == i])))

    def _merge(self) -> None:
        segments = self._path / "segments"
        if not self._keep_empty:
            for empty in segments.iterdir():
                shutil.rmtree(empty)
        for part in self._parts:
            for segment in (part.folder / "segments").iterdir():
                segment.rename(segments / segment.name)
        shutil.rmtree(self._path / "parts")


class _Part:
    """A process that writes a part of a shard."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ready = False
        self._said = b""
        process = subprocess.Popen(
            # -P: nothing is imported from the working directory.
            [sys.executable, "-P", "-m", "feast_embeddings.engines.embedded.filler_process", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            # Ctrl-C is for the parent process, which then stops this one.
            start_new_session=True,
        )
        self._process = process
        self._input, self._output = cast(IO[bytes], process.stdin), cast(IO[bytes], process.stdout)

    def is_ready(self) -> bool:
        """Return whether the process can take points; waits until it reports so, or has ended."""
        while not self._ready and (line := self._output.readline()):
            self._ready = line == READY
            self._said += line  # a warning, or the reason why it ends
        return self._ready

    def send(self, rows: Rows) -> None:
        """Send points to write; blocks while the process is busy."""
        with self._sending():
            send(self._input, rows)

    def end(self) -> None:
        """Send the end of the points."""
        with self._sending():
            send(self._input, None)
            self._input.close()

    def wait(self) -> None:
        """Wait until the process has written everything; raises `EngineError` if it could not."""
        said = self.said()
        if status := self._process.wait():
            raise EngineError(
                f"a process that wrote to {self.folder} ended with status {status}: {said or 'no reason'}"
            )

    def said(self) -> str:
        """Wait for the end of the process, and return its last line of output."""
        said = (self._said + self._output.read()).replace(READY, b"")
        return said.decode(errors="replace").strip().rpartition("\n")[2]

    def stop(self) -> None:
        """Kill the process if it still runs, and wait for its end."""
        self._process.kill()
        self._process.wait()
        for stream in (self._input, self._output):
            with contextlib.suppress(OSError):  # unsent data is lost
                stream.close()

    @contextlib.contextmanager
    def _sending(self) -> Iterator[None]:
        try:
            yield
        except OSError:
            self.wait()
            raise
