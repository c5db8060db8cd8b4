"""Points as engines read and write them; `feast_embeddings.codec.rows` converts them to and from rows."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

__all__ = [
    "TIMESTAMP_KEY",
    "Page",
    "PointBatch",
    "PointId",
    "ScoredPoint",
    "StoredPoint",
    "all_pages",
    "all_points",
    "plain_id",
    "scored_points",
    "stored_points",
    "vectors_of",
]

# A UUID as text, or an unsigned 64-bit integer.
PointId = str | int

# Payload key of the event timestamp, microseconds since the epoch. `Engine.upsert` compares it.
TIMESTAMP_KEY = "_event_timestamp"


@dataclass(frozen=True)
class PointBatch:
    """Points to write.

    Attributes:
        ids: n point ids.
        vectors: named vector -> float32 matrix (n, size) and a boolean mask (n,), False where a point has none.
        payloads: one JSON-compatible mapping per point, holding `TIMESTAMP_KEY`.
        timestamps: int64 (n,), the event timestamps in microseconds since the epoch.
    """

    ids: list[PointId]
    vectors: dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]
    payloads: list[dict[str, Any]]
    timestamps: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, rows: npt.NDArray[np.intp]) -> PointBatch:
        """Return the points at these positions, in this order."""
        return PointBatch(
            ids=[self.ids[i] for i in rows],
            vectors={name: (matrix[rows], mask[rows]) for name, (matrix, mask) in self.vectors.items()},
            payloads=[self.payloads[i] for i in rows],
            timestamps=self.timestamps[rows],
        )

    def named_vectors(self) -> list[dict[str, Any]]:
        """Return the named vectors of each point as Python lists, the fastest form for both clients."""
        lists = {name: (matrix.tolist(), mask.tolist()) for name, (matrix, mask) in self.vectors.items()}
        return [{name: rows[i] for name, (rows, mask) in lists.items() if mask[i]} for i in range(len(self.ids))]


class StoredPoint(NamedTuple):
    """A point as read back; vectors are float32 of shape (size,)."""

    id: PointId
    payload: dict[str, Any]
    vectors: dict[str, npt.NDArray[np.float32]]


class ScoredPoint(NamedTuple):
    """A search hit. For Dot and Cosine a higher score is nearer, for Euclid and Manhattan a lower one."""

    id: PointId
    score: float
    payload: dict[str, Any]


class _Record(Protocol):
    """A point as both of Qdrant's clients return it."""

    @property
    def id(self) -> Any: ...
    @property
    def payload(self) -> dict[str, Any] | None: ...
    @property
    def vector(self) -> Any: ...


class _Hit(Protocol):
    @property
    def id(self) -> Any: ...
    @property
    def score(self) -> float: ...
    @property
    def payload(self) -> dict[str, Any] | None: ...


Page = tuple[list[StoredPoint], PointId | None]


def plain_id(id: Any) -> PointId:
    """Convert an id from Qdrant's clients, which may be a `uuid.UUID`."""
    return id if isinstance(id, int) else str(id)


def all_pages(page: Callable[[PointId | None], Page]) -> Iterator[list[StoredPoint]]:
    """Yield every page of a listing, given a function that reads the page from a start point."""
    points, following = page(None)
    yield points
    while following is not None:
        points, following = page(following)
        yield points


def all_points(records: Iterable[_Record]) -> list[StoredPoint]:
    """Convert records, in Qdrant's order."""
    return [
        StoredPoint(
            id=plain_id(record.id),
            payload=record.payload or {},
            vectors={
                name: np.fromiter(values, np.float32, len(values)) for name, values in (record.vector or {}).items()
            },
        )
        for record in records
    ]


def vectors_of(
    points: Sequence[StoredPoint], name: str, size: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Return one named vector of points as a batch has it: float32 (n, size), zeros without one, and the mask (n,)."""
    present = np.array([name in point.vectors for point in points], dtype=np.bool_)
    matrix = np.zeros((len(points), size), dtype=np.float32)
    for row in np.flatnonzero(present).tolist():
        matrix[row] = points[row].vectors[name]
    return matrix, present


def stored_points(records: Iterable[_Record], ids: Sequence[PointId]) -> list[StoredPoint | None]:
    """Convert records into the order of the requested ids; Qdrant returns them in its own order."""
    found = {point.id: point for point in all_points(records)}
    return [found.get(id) for id in ids]


def scored_points(hits: Iterable[_Hit]) -> list[ScoredPoint]:
    """Convert search hits, in Qdrant's order."""
    return [ScoredPoint(id=plain_id(hit.id), score=hit.score, payload=hit.payload or {}) for hit in hits]
