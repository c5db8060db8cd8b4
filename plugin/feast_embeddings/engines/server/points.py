"""Points as they are sent to a server."""

from __future__ import annotations

import numpy as np
from qdrant_client import models

from feast_embeddings.engines.engine import TIMESTAMP_KEY, PointBatch

__all__ = ["chunks", "guarded_upserts", "points"]

_BATCH = 256


def chunks(batch: PointBatch) -> list[PointBatch]:
    """The batch in pieces of the size of one request."""
    return [batch.take(np.arange(start, min(start + _BATCH, len(batch)))) for start in range(0, len(batch), _BATCH)]


def guarded_upserts(batch: PointBatch) -> list[models.UpdateOperation]:
    """Upserts that leave alone the stored points with a newer event timestamp than that of the point to write.

    The condition is checked by Qdrant with the write, so that concurrent writers cannot undo each other. It is one per
    timestamp; all of a chunk's go in one request.
    """
    operations: list[models.UpdateOperation] = []
    for timestamp in np.unique(batch.timestamps):
        not_newer = models.Filter(
            must_not=[models.FieldCondition(key=TIMESTAMP_KEY, range=models.Range(gt=int(timestamp)))]
        )
        written = points(batch.take(np.flatnonzero(batch.timestamps == timestamp)))
        operations.append(models.UpsertOperation(upsert=models.PointsList(points=written, update_filter=not_newer)))
    return operations


def points(batch: PointBatch) -> list[models.PointStruct]:
    """The points of a batch, unconditionally."""
    return [
        models.PointStruct(id=id, vector=vectors, payload=payload)
        for id, vectors, payload in zip(batch.ids, batch.named_vectors(), batch.payloads, strict=True)
    ]
