"""Late rows: rows pushed, materialized or folded in while, or after, a version was live, kept for the next one.

A version serves its own rows. In addition it serves rows of earlier versions that

* are of the same space, so that their vectors can be compared with its own, and
* are newer than the training data of both versions: their event timestamp is after both cut-offs.

So a user who was folded in yesterday stays known after tonight's aligned retraining, until a training has seen their
interactions. Rows of another space are never carried over, because their vectors would be meaningless.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import chain

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from feast_embeddings.codec.rows import PointCodec
from feast_embeddings.engines.engine import TIMESTAMP_KEY, CollectionSpec, Engine, PointBatch, StoredPoint
from feast_embeddings.engines.points import vectors_of
from feast_embeddings.times import to_microseconds

__all__ = ["carry_late_rows", "late_after"]


def late_after(live: CollectionSpec, others: Iterable[CollectionSpec]) -> dict[str, int]:
    """Return the older versions whose late rows the live one serves -> the timestamp (microseconds) they are after."""
    return {
        other.version: max(_cutoff(live), _cutoff(other))
        for other in others
        if other.version < live.version and other.space == live.space
    }


def carry_late_rows(engine: Engine, codec: PointCodec, source: str, target: str) -> int:
    """Copy the late rows of an older version's collection into a newer one, and return how many. Safe to repeat."""
    new, old = engine.describe(target), engine.describe(source)
    after = late_after(new, [old]).get(old.version)
    if after is None:
        return 0
    # Filter only by the timestamp, which has an index; almost all late rows are of the space.
    is_late = models.Filter(must=[models.FieldCondition(key=TIMESTAMP_KEY, range=models.Range(gt=after))])
    carried = 0

    def batches() -> Iterator[PointBatch]:
        nonlocal carried
        for found in engine.scroll(source, payload=[], vectors=[], filter=is_late):
            ids = [point.id for point in found]
            stored = engine.retrieve(source, ids, vectors=sorted(codec.fields))
            rows = [row for row in stored if row is not None and row.payload.get("space") == new.space]
            there = engine.retrieve(target, [row.id for row in rows], vectors=[])
            rows = [row for row, present in zip(rows, there, strict=True) if _is_newer(row, present)]
            if rows:
                carried += len(rows)
                yield _as_batch(codec, new, rows)

    late = batches()
    # A write copies the embedded engine's collection, so do not start one without rows.
    if (first := next(late, None)) is not None:
        engine.upsert(target, chain([first], late), wait_for_indexes=False)
    return carried


def _cutoff(spec: CollectionSpec) -> int:
    return to_microseconds(datetime.fromisoformat(spec.as_of)) if spec.as_of else 0


def _is_newer(row: StoredPoint, stored: StoredPoint | None) -> bool:
    return stored is None or bool(row.payload[TIMESTAMP_KEY] > stored.payload[TIMESTAMP_KEY])


def _as_batch(codec: PointCodec, spec: CollectionSpec, rows: list[StoredPoint]) -> PointBatch:
    """Convert stored points to points to write; every named vector is derived again from the one kept as written."""
    vectors: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]] = {}
    for field in codec.fields.values():
        matrix, present = vectors_of(rows, field.name, spec.vectors[field.name].size)
        bias = None if field.bias is None else matrix[:, -1]
        vectors |= codec.named_vectors(field, matrix if bias is None else matrix[:, :-1], present, bias)
    return PointBatch(
        ids=[row.id for row in rows],
        vectors=vectors,
        payloads=[row.payload for row in rows],
        timestamps=np.array([row.payload[TIMESTAMP_KEY] for row in rows], dtype=np.int64),
    )
