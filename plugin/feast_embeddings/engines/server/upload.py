"""The points of a new collection on their way to a server."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from qdrant_client import QdrantClient

from feast_embeddings.engines.engine import PointBatch
from feast_embeddings.engines.server.points import chunks, points

__all__ = ["upload"]


def upload(
    client: QdrantClient, collection: str, batches: Iterable[PointBatch], *, streams: int, skip_present: bool
) -> None:
    """Several requests at a time, while the next batch is being made.

    Args:
        skip_present: whether to ask which points are there, and to send only the others.
    """
    pending: deque[Future[object]] = deque()

    def wait_for(count: int) -> None:
        while len(pending) > count:
            pending.popleft().result()

    def send(chunk: PointBatch) -> None:
        client.upsert(collection, points(chunk))

    with ThreadPoolExecutor(streams) as pool:
        try:
            for batch in batches:
                if skip_present:
                    wait_for(0)
                    batch = _absent(client, collection, batch)
                for chunk in chunks(batch):
                    wait_for(streams - 1)
                    # The caller's context says for how long a request may be repeated.
                    pending.append(pool.submit(contextvars.copy_context().run, send, chunk))
            wait_for(0)
        except BaseException:
            for future in pending:
                future.cancel()
            raise


def _absent(client: QdrantClient, collection: str, batch: PointBatch) -> PointBatch:
    """The points that the collection does not hold."""
    found = client.retrieve(collection, list(batch.ids), with_payload=False, with_vectors=False)
    present = {record.id for record in found}
    return batch.take(np.flatnonzero([id not in present for id in batch.ids]))
