"""Read rows by entity key from the live collection of a feature view.

Users and items of a model must not be of two versions, so all reads of a request use one look-up of the live
collections.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from datetime import datetime

from feast_embeddings._feast.private import EntityKeyProto, ValueProto
from feast_embeddings.codec.rows import PointCodec, point_ids
from feast_embeddings.engines.dropped import ask_live, ask_live_on_loop
from feast_embeddings.engines.engine import TIMESTAMP_KEY, CollectionSpec, Engine, StoredPoint
from feast_embeddings.engines.server.on_loop import AsyncServer

__all__ = ["KeyRead", "ReadRow", "live_of_request", "read_live", "read_live_on_loop", "reading_live"]

ReadRow = tuple[datetime | None, dict[str, ValueProto] | None]

# The live collections, for all reads of one request.
_LIVE: ContextVar[Mapping[str, str] | None] = ContextVar("live", default=None)


class KeyRead:
    """What to request from an engine, and how to decode its answer.

    Args:
        names: the features; None for all.
        oldest: rows with an event timestamp before this one (microseconds) have expired.

    Attributes:
        ids: the points to request, one per key.
        has_vectors: whether a vector is among the features, so that the collection's spec is needed.
    """

    def __init__(
        self, codec: PointCodec, keys: Sequence[EntityKeyProto], names: Sequence[str] | None, oldest: int | None
    ) -> None:
        self._codec = codec
        self._names = codec.features if names is None else names
        self._oldest = oldest
        self.ids = point_ids(keys)
        self.has_vectors = bool(codec.fields.keys() & set(self._names))

    def vectors(self, spec: CollectionSpec | None) -> list[str]:
        """Return the stored named vectors to request."""
        stored: Mapping[str, object] = {} if spec is None else spec.vectors
        return [name for name in self._names if name in stored]

    def nothing(self) -> list[ReadRow]:
        """Return the rows of the answer if no collection is live."""
        return [(None, None)] * len(self.ids)

    def rows(self, points: Iterable[StoredPoint | None]) -> list[ReadRow]:
        """Decode points into rows in the order of the keys; (None, None) for one that is not stored, or expired."""
        return [
            (None, None)
            if point is None or (self._oldest is not None and point.payload[TIMESTAMP_KEY] < self._oldest)
            else self._codec.decode(point, self._names)
            for point in points
        ]


def read_live(engine: Engine, alias: str, read: KeyRead) -> list[ReadRow]:
    """Read from the collection behind an alias; (None, None) for each key if there is none."""

    def rows(live: Mapping[str, str]) -> list[ReadRow]:
        if (collection := live.get(alias)) is None:
            return read.nothing()
        spec = engine.describe(collection) if read.has_vectors else None
        return read.rows(engine.retrieve(collection, read.ids, vectors=read.vectors(spec)))

    return ask_live(engine.aliases, rows) if (looked_up := _LIVE.get()) is None else rows(looked_up)


async def read_live_on_loop(server: AsyncServer, alias: str, read: KeyRead) -> list[ReadRow]:
    """`read_live`, without blocking the event loop."""

    async def rows(live: Mapping[str, str]) -> list[ReadRow]:
        if (collection := live.get(alias)) is None:
            return read.nothing()
        spec = await server.describe(collection) if read.has_vectors else None
        return read.rows(await server.retrieve(collection, read.ids, vectors=read.vectors(spec)))

    looked_up = _LIVE.get()
    return await (ask_live_on_loop(server.aliases, rows) if looked_up is None else rows(looked_up))


def live_of_request() -> Mapping[str, str] | None:
    """Return the live collections that all reads of this request use; None outside of one."""
    return _LIVE.get()


@contextlib.contextmanager
def reading_live(live: Mapping[str, str]) -> Iterator[None]:
    """Let all reads in the block use these live collections."""
    token = _LIVE.set(live)
    try:
        yield
    finally:
        _LIVE.reset(token)
