"""Requests to a server that write and read points."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from feast_embeddings.engines.engine import TIMESTAMP_KEY, PointBatch, PointId
from feast_embeddings.engines.payload import payload_keys
from feast_embeddings.engines.server.failures import Caller

__all__ = ["chunks", "guarded_upserts", "payload_updates", "upload", "wanted"]

_BATCH = 256


def chunks(batch: PointBatch) -> list[PointBatch]:
    """Split a batch into pieces of the size of one request."""
    return [batch.take(np.arange(start, min(start + _BATCH, len(batch)))) for start in range(0, len(batch), _BATCH)]


def guarded_upserts(batch: PointBatch) -> list[models.UpdateOperation]:
    """Build upserts that keep stored points with a newer event timestamp than the point to write.

    Qdrant checks the condition with the write, so that concurrent writers cannot undo each other. There is one upsert
    per timestamp; all of a chunk go in one request.
    """
    operations: list[models.UpdateOperation] = []
    for timestamp in np.unique(batch.timestamps):
        not_newer = models.Filter(
            must_not=[models.FieldCondition(key=TIMESTAMP_KEY, range=models.Range(gt=int(timestamp)))]
        )
        written = _points(batch.take(np.flatnonzero(batch.timestamps == timestamp)))
        operations.append(models.UpsertOperation(upsert=models.PointsList(points=written, update_filter=not_newer)))
    return operations


def payload_updates(payloads: Mapping[PointId, Mapping[str, Any]]) -> Iterator[list[models.UpdateOperation]]:
    """Build the requests that set keys in the payload of points; None removes a key."""
    points = list(payloads.items())
    for start in range(0, len(points), _BATCH):
        operations: list[models.UpdateOperation] = []
        for id, keys in points[start : start + _BATCH]:
            # By a filter: Qdrant refuses ids that are not there.
            point = models.Filter(must=[models.HasIdCondition(has_id=[id])])
            if there := {key: value for key, value in keys.items() if value is not None}:
                set_keys = models.SetPayload(payload=there, filter=point)
                operations.append(models.SetPayloadOperation(set_payload=set_keys))
            if gone := [key for key, value in keys.items() if value is None]:
                delete_keys = models.DeletePayload(keys=gone, filter=point)
                operations.append(models.DeletePayloadOperation(delete_payload=delete_keys))
        yield operations


def upload(
    caller: Caller,
    client: QdrantClient,
    collection: str,
    batches: Iterable[PointBatch],
    *,
    streams: int,
    skip_present: bool,
) -> None:
    """Write to a new collection, by several requests at a time, while the next batch is being made.

    Args:
        skip_present: whether to check which points are present, and to send only the others.
    """
    pending: deque[Future[object]] = deque()

    def wait_for(count: int) -> None:
        while len(pending) > count:
            pending.popleft().result()

    def send(chunk: PointBatch) -> None:
        caller.ask(f"write to {collection!r}", client.upsert, collection, _points(chunk))

    with ThreadPoolExecutor(streams) as pool:
        try:
            for batch in batches:
                if skip_present:
                    wait_for(0)
                    batch = _absent(caller, client, collection, batch)
                for chunk in chunks(batch):
                    wait_for(streams - 1)
                    # The caller's context limits how long a request may be retried.
                    pending.append(pool.submit(contextvars.copy_context().run, send, chunk))
            wait_for(0)
        except BaseException:
            for future in pending:
                future.cancel()
            raise


def wanted(payload: Sequence[str] | None, vectors: Sequence[str]) -> dict[str, Any]:
    """Return the arguments of a read: the payload of these features, of all if None, and these named vectors."""
    return {"with_payload": payload_keys(payload), "with_vectors": list(vectors) or False}


def _absent(caller: Caller, client: QdrantClient, collection: str, batch: PointBatch) -> PointBatch:
    """Return the points that the collection does not hold."""
    found = caller.ask(
        f"read from {collection!r}", client.retrieve, collection, batch.ids, with_payload=False, with_vectors=False
    )
    present = {record.id for record in found}
    return batch.take(np.flatnonzero([id not in present for id in batch.ids]))


def _points(batch: PointBatch) -> list[models.PointStruct]:
    """Convert a batch to points for an unconditional upsert."""
    return [
        models.PointStruct(id=id, vector=vectors, payload=payload)
        for id, vectors, payload in zip(batch.ids, batch.named_vectors(), batch.payloads, strict=True)
    ]
