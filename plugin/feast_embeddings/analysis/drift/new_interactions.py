"""Interactions that came after a version: of files in the form of its log, or recorded since."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.artifact import ENTITIES, Artifact, Entity
from feast_embeddings.errors import InputError
from feast_embeddings.events import EventLog
from feast_embeddings.reading import Rules, Scan, Source, Wanted
from feast_embeddings.times import future_starts, to_microseconds

__all__ = ["NewInteractions", "read_interactions", "recorded_interactions"]

_TIMESTAMP = "timestamp"


@dataclass(frozen=True)
class NewInteractions:
    """Who did something with what, n rows; each counts 1.

    Attributes:
        ids: per side, the id of each row, of the type of the version's ids, shape (n,).
        since: the first instant that counts; None if rows have no times, so that all count.
        n_older: rows that were left out because they are older.
        n_bad: rows that cannot be used, which the version's training left out too.
    """

    ids: dict[Entity, pa.Array]
    since: datetime | None
    n_older: int = 0
    n_bad: int = 0

    def __len__(self) -> int:
        return len(self.ids["user"])


def recorded_interactions(log: EventLog, artifact: Artifact, since: datetime | None = None) -> NewInteractions:
    """Return the recorded events that are newer than a version.

    Args:
        since: the first instant that counts; None for all that is newer than the version's `as_of`.
    """
    first = _first(artifact, since)
    users, items, older = [], [], 0
    for part in log.batches():
        new = [event for event in part if event.timestamp >= first]
        older += len(part) - len(new)
        users += [event.user_id for event in new]
        items += [event.item_id for event in new]
    types = _id_types(artifact)
    ids: dict[Entity, pa.Array] = {"user": pa.array(users, types["user"]), "item": pa.array(items, types["item"])}
    return NewInteractions(ids, since or artifact.manifest.as_of, older)


def read_interactions(sources: Sequence[Source], artifact: Artifact, since: datetime | None = None) -> NewInteractions:
    """Read those rows of files that are newer than a version, as its training read the log.

    Columns have the names that the version recorded. Rows of weight 0 are no interactions. Without a column of times
    all rows count.

    Args:
        sources: files, folders, globs or tables in memory.
        since: the first instant that counts; None for all that is newer than the version's `as_of`.

    Raises:
        InputError: a source cannot be read, lacks a column or has rows that cannot be used, or `since` is given for one
            without times.
    """
    recorded = artifact.manifest.interactions or {}
    columns: dict[str, str | None] = recorded.get("columns", {})
    reading: dict[str, Any] = recorded.get("reading", {})
    weights = artifact.manifest.event_weights
    names: dict[Entity, str] = {entity: artifact.manifest.log_column(entity) or f"{entity}_id" for entity in ENTITIES}
    times, weight, event = columns.get("timestamp") or _TIMESTAMP, columns.get("weight"), columns.get("event")
    types = _id_types(artifact)
    wanted = [
        *(Wanted(names[e], "id", id_type="text" if pa.types.is_string(types[e]) else "int") for e in ENTITIES),
        Wanted(times, "time", required=since is not None or columns.get("timestamp") is not None),
        # The file that `events` writes has no types.
        *([] if weight is None else [Wanted(weight, "number", required=False)]),
        *([] if event is None else [Wanted(event, "text", required=False, known=tuple(weights))]),
    ]
    latest = None if reading.get("allow_future") else to_microseconds(future_starts())
    counted = pa.array([name for name, value in weights.items() if value > 0], pa.string())
    first, older, bad = _first(artifact, since), 0, 0
    with_times: set[bool] = set()
    parts: dict[Entity, list[pa.Array]] = {entity: [] for entity in ENTITIES}
    for source in sources:
        with Scan(source, wanted, Rules(reading.get("time_format"), latest)) as scan:
            with_times.add(times in scan.columns)
            for batch in scan:
                keep = np.ones(len(batch), dtype=bool)
                if weight is not None and weight in scan.columns:
                    keep &= batch.column(weight).to_numpy() > 0
                if event is not None and event in scan.columns:
                    keep &= pc.is_in(batch.column(event), counted).to_numpy(zero_copy_only=False)
                if times in scan.columns:
                    new = batch.column(times).to_numpy() >= first
                    older += int((keep & ~new).sum())
                    keep &= new
                for entity in ENTITIES:
                    parts[entity].append(batch.column(names[entity]).filter(pa.array(keep)).cast(types[entity]))
        scan.faults.settle(scan.name, reading.get("on_bad_rows", "error"), advice="correct them")
        bad += scan.faults.bad
    if len(with_times) > 1:
        raise InputError(f"some of the files have a column {times!r} and some have none; give all of them one, or none")
    ids = {entity: pa.concat_arrays([pa.array([], types[entity]), *parts[entity]]) for entity in ENTITIES}
    return NewInteractions(ids, (since or artifact.manifest.as_of) if True in with_times else None, older, bad)


def _first(artifact: Artifact, since: datetime | None) -> int:
    """The first microsecond since 1970 that counts."""
    return to_microseconds(artifact.manifest.as_of) + 1 if since is None else to_microseconds(since)


def _id_types(artifact: Artifact) -> dict[Entity, pa.DataType]:
    """The types of ids, text for a side that the version does not have."""
    sides = artifact.manifest.sides
    return {e: artifact.schema(e).field(f"{e}_id").type if e in sides else pa.string() for e in ENTITIES}
