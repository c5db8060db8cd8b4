"""Reads by entity key, without the call: what to request from an engine, and how to decode its answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from feast_embeddings._feast.private import EntityKeyProto, ValueProto
from feast_embeddings.codec.rows import PointCodec, point_ids
from feast_embeddings.engines.engine import TIMESTAMP_KEY, CollectionSpec, StoredPoint

__all__ = ["KeyRead", "ReadRow"]

ReadRow = tuple[datetime | None, dict[str, ValueProto] | None]


class KeyRead:
    """A read of features of one view by entity key.

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
