"""Write points into a shard of the embedded engine; as a program, into one part of a shard that processes fill.

``python -m feast_embeddings.engines.embedded.filler_process FOLDER`` writes the points that the filler sends to its
standard input into the shard in that folder. It imports only the engine, so that it is ready within a tenth of a
second.
"""

from __future__ import annotations

import marshal
import sys
from array import array
from collections.abc import Iterator
from typing import IO, Any

import qdrant_edge as edge

__all__ = ["READY", "Rows", "receive", "send", "write"]

# Ids, named vectors as the bytes of a float32 matrix with a mask of present ones, and payloads.
Rows = tuple[list[str | int], dict[str, tuple[bytes, list[bool]]], list[dict[str, Any]]]

# Printed by the program once it can take points.
READY = b"ready\n"
# Points per update: few enough to be still in the CPU cache when Qdrant reads them.
_UPSERT = 64


def write(shard: edge.EdgeShard, rows: Rows) -> None:
    """Insert or replace points."""
    ids, named_vectors, payloads = rows
    if not ids:
        return
    vectors: list[dict[str, Any]] = [{} for _ in ids]
    for name, (matrix, mask) in named_vectors.items():
        # Qdrant reads an array in half the time that it takes to make and read a list of floats.
        numbers = array("f", matrix)
        size = len(numbers) // len(ids)
        for i, present in enumerate(mask):
            if present:
                vectors[i][name] = numbers[i * size : (i + 1) * size]
    for start in range(0, len(ids), _UPSERT):
        part = slice(start, start + _UPSERT)
        points = list(map(edge.Point, ids[part], vectors[part], payloads[part]))
        shard.update(edge.UpdateOperation.upsert_points(points))


def send(stream: IO[bytes], rows: Rows | None) -> None:
    """Send a message to a process of the same Python: rows, or None for the end."""
    message = marshal.dumps(rows)
    stream.write(len(message).to_bytes(8, "little"))
    stream.write(message)
    stream.flush()


def receive(stream: IO[bytes]) -> Iterator[Rows]:
    """Yield messages until the end.

    Raises:
        EOFError: the sender was gone before the end.
    """
    while True:
        length = int.from_bytes(stream.read(8), "little")
        # An empty or partial message raises EOFError. The sender is the parent process, so it is trusted.
        rows = marshal.loads(stream.read(length))  # noqa: S302
        if rows is None:
            return
        yield rows


def main() -> None:
    """The program."""
    shard = edge.EdgeShard.load(sys.argv[1])
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    for rows in receive(sys.stdin.buffer):
        write(shard, rows)
    shard.flush()
    shard.close()


if __name__ == "__main__":
    try:
        main()
    except Exception as error:
        # One line to the parent; no one else reads the output of this process.
        sys.exit(f"{type(error).__name__}: {error}")
