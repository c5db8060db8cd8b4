"""Reads and writes by key at a Qdrant server, without blocking the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence

from qdrant_client import AsyncQdrantClient, models

from feast_embeddings.engines.engine import CollectionSpec, PointBatch, PointId, StoredPoint, stored_points
from feast_embeddings.engines.server.catalog import Catalog, spec_in
from feast_embeddings.engines.server.failures import Caller
from feast_embeddings.engines.server.requests import chunks, guarded_upserts, wanted

__all__ = ["AsyncServer"]

_Opened = tuple[AsyncQdrantClient, AsyncGenerator[AsyncQdrantClient]]


class AsyncServer:
    """The part of `ServerEngine` for Feast's async methods: the same answers and errors, by `AsyncQdrantClient`.

    The connections of a client belong to the event loop that opened them, so each loop has its own client. It is
    closed by `close`, or when its loop ends.

    Args:
        connect: makes a client. Nothing is sent yet.
        catalog: the known collections, shared with the engine.
        caller: calls the client.
        consistency: how many replicas a read asks.
    """

    def __init__(
        self,
        connect: Callable[[], AsyncQdrantClient],
        catalog: Catalog,
        caller: Caller,
        consistency: models.ReadConsistency | None = None,
    ) -> None:
        self._consistency = consistency
        self._connect = connect
        self._ask = caller.ask_on_loop
        self._catalog = catalog
        self._opened: dict[asyncio.AbstractEventLoop, _Opened] = {}

    async def client(self) -> AsyncQdrantClient:
        """Return the client of the running loop; opened on first use."""
        loop = asyncio.get_running_loop()
        if loop not in self._opened:
            for other in list(self._opened):
                if other.is_closed():
                    del self._opened[other]
            owner = _owner(self._connect())
            self._opened[loop] = await anext(owner), owner
        return self._opened[loop][0]

    async def close(self) -> None:
        """Close the client of the running loop; the next call opens another. Safe to repeat."""
        if (opened := self._opened.pop(asyncio.get_running_loop(), None)) is not None:
            await opened[1].aclose()

    async def aliases(self) -> dict[str, str]:
        """As `Engine.aliases`."""
        client = await self.client()
        return self._catalog.aliases(await self._ask("list aliases", client.get_aliases))

    async def describe(self, collection: str) -> CollectionSpec:
        """As `Engine.describe`."""
        if (spec := self._catalog.spec(collection)) is not None:
            return spec
        client, mark = await self.client(), self._catalog.mark(collection)
        info = await self._ask(f"describe {collection!r}", client.get_collection, collection)
        return self._catalog.learn(collection, mark, spec_in(info))

    async def retrieve(
        self, collection: str, ids: Sequence[PointId], *, vectors: Sequence[str]
    ) -> list[StoredPoint | None]:
        """As `Engine.retrieve`, with the whole payload."""
        client = await self.client()
        what, parts = f"read from {collection!r}", wanted(None, vectors)
        records = await self._ask(what, client.retrieve, collection, list(ids), **parts, consistency=self._consistency)
        return stored_points(records, ids)

    async def upsert(self, collection: str, batch: PointBatch) -> None:
        """As `Engine.upsert`, without waiting for indexes."""
        client = await self.client()
        for chunk in chunks(batch):
            upserts = guarded_upserts(chunk)
            await self._ask(f"write to {collection!r}", client.batch_update_points, collection, upserts)


async def _owner(client: AsyncQdrantClient) -> AsyncGenerator[AsyncQdrantClient]:
    """Yield the client, and close it in the end: asyncio finishes a loop's generators before it ends the loop."""
    try:
        yield client
    finally:
        await client.close()
