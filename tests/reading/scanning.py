"""Logs for the tests of reading: what a scan finds in a file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feast_embeddings.reading import Faults, IdType, Rules, Scan, Wanted


def scan(
    source: Any,
    *,
    columns: tuple[str, ...] = ("user_id", "item_id"),
    time: str | None = "timestamp",
    weight: str | None = None,
    event: str | None = None,
    known: tuple[str, ...] = (),
    id_type: IdType | None = None,
    time_format: str | None = None,
    latest: int | None = None,
) -> tuple[list[tuple[Any, ...]], Faults, Scan]:
    """The good rows in their order, and the bad ones."""
    wanted = [Wanted(name, "id", id_type=id_type) for name in columns]
    if time is not None:
        wanted.append(Wanted(time, "time", required=False))
    if weight is not None:
        wanted.append(Wanted(weight, "number"))
    if event is not None:
        wanted.append(Wanted(event, "text", known=known))
    with Scan(source, wanted, Rules(time_format, latest)) as found:
        rows = [row for batch in found for row in zip(*batch.to_pydict().values(), strict=True)]
    return rows, found.faults, found


def write(path: Path, content: str | bytes) -> Path:
    """A file with this content."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path
