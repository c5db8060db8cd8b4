"""The collection of one version's users or items, and the queries of it."""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from feast_embeddings.arguments import Id
from feast_embeddings.engines.engine import (
    TIMESTAMP_KEY,
    CollectionSpec,
    Engine,
    PointId,
    ScoredPoint,
    StoredPoint,
    no_more_than_there_are,
)
from feast_embeddings.errors import CursorError, OptionError
from feast_embeddings.model.sides import Side
from feast_embeddings.query.answers import Embeddings, Neighbours, Page
from feast_embeddings.query.searching.hidden import HiddenPoints, shown
from feast_embeddings.query.searching.returned import Returned
from feast_embeddings.times import from_microseconds

__all__ = ["LiveCollection", "Newest", "read_cursor"]

Newest = Callable[[], Iterable[Sequence[tuple[Id, int]]]]

# Up to this many excluded points are fetched too and left out afterwards. As a filter they would remove the very graph
# nodes that the search starts from: of 60,000 vectors in 20 clusters, with the 120 nearest excluded, it found 1.
_OVERFETCHED = 256
# A scan finds every point, but asks a filter about each: of 20,000 with 64 numbers, as long as to fetch 30 more.
_SCAN_OVERFETCHED = 32
_HOUR = 3.6e9  # microseconds
# Fewest candidates per result, whatever the settings: with one per result, the last results are far from exact.
_CANDIDATES = 2
# The candidates that a publish found enough are enough for ten results and the query's own point.
_ENOUGH_FOR = 11


class LiveCollection:
    """The users or the items of one version, in the collection that holds them; searches leave hidden ones out."""

    def __init__(self, engine: Engine, side: Side, collection: str, spec: CollectionSpec, hidden: HiddenPoints) -> None:
        self._engine = engine
        self._hidden = hidden
        self.side = side
        self.collection = collection
        self.spec = spec

    @property
    def hidden_ids(self) -> frozenset[Id]:
        """The users or items that answers leave out as of now."""
        return self._hidden.ids()

    @property
    def dim(self) -> int:
        """Length of the vectors, without the bias."""
        field = self.side.field
        return self.spec.vectors[field.name].size - (field.bias is not None)

    def is_loaded(self) -> bool:
        """Return whether this version still exists in the store."""
        return self.collection in self._engine.collections(self.side.alias)

    def count(self) -> int:
        """Count the points, with a vector or without."""
        return self._engine.count(self.collection)

    def points(self, ids: Sequence[Id], vector: str, payload: Sequence[str] = ()) -> list[StoredPoint | None]:
        """Return the points of these ids with this vector, aligned with the ids; None for unknown ids."""
        stored = self._engine.retrieve(self.collection, self.side.point_ids(ids), vectors=[vector], payload=payload)
        return [point if point is not None and vector in point.vectors else None for point in stored]

    def unknown(self, ids: Iterable[Id]) -> list[Id]:
        """Return the ids that this version does not know."""
        asked = list(dict.fromkeys(ids))
        stored = self._engine.retrieve(self.collection, self.side.point_ids(asked), vectors=[], payload=())
        return [id for id, point in zip(asked, stored, strict=True) if point is None]

    def nearest(
        self,
        vector_name: str,
        vector: npt.NDArray[np.float32],
        k: int,
        *,
        filter: models.Filter | None,
        excluded: Sequence[PointId] = (),
        only: Sequence[PointId] | None = None,
        payload: Sequence[str] | None = None,
    ) -> list[ScoredPoint]:
        """Return the k nearest points, best first; fewer only if fewer pass the filter.

        Args:
            excluded: points to leave out, in addition to hidden ones.
            only: search only these points.
            payload: the keys to return with each; None returns all.
        """

        def nearest(n: int) -> list[ScoredPoint]:
            return self._nearest(vector_name, vector, n, filter, excluded, only, payload)

        return self._shown(nearest, k)

    def _shown(self, search: Callable[[int], list[ScoredPoint]], k: int) -> list[ScoredPoint]:
        """Return the k best that are not hidden; `search` returns the n best of all."""
        return shown(search, no_more_than_there_are(k, self._engine, self.collection), self._hidden.now())

    def _nearest(
        self,
        vector_name: str,
        vector: npt.NDArray[np.float32],
        k: int,
        filter: models.Filter | None,
        excluded: Sequence[PointId],
        only: Sequence[PointId] | None,
        payload: Sequence[str] | None,
    ) -> list[ScoredPoint]:
        """Return the k nearest points, hidden or not."""
        must: list[Any] = [] if filter is None else [filter]
        if only is not None:
            must.append(models.HasIdCondition(has_id=list(only)))
        indexed = self.spec.vectors[vector_name].indexed
        if only is None and len(excluded) <= (_OVERFETCHED if indexed else _SCAN_OVERFETCHED):
            limit = k + len(excluded)
            found = self._engine.query(
                self.collection,
                vector_name,
                vector,
                limit=limit,
                filter=filter,
                payload=payload,
                exact=not indexed,
                search_ef=max(self.spec.search_ef, _CANDIDATES * limit),
                enough_ef=self.spec.enough_ef if filter is None and limit <= _ENOUGH_FOR else 0,
            )
            left_out = set(excluded)
            hits = [hit for hit in found if hit.id not in left_out][:k]
            if len(hits) == k or not indexed:
                return hits
        # A filter removes nodes from the graph, and a search may not get past the gaps. A scan finds every match.
        conditions = models.Filter(
            must=must or None, must_not=[models.HasIdCondition(has_id=list(excluded))] if excluded else None
        )
        return self._engine.query(
            self.collection,
            vector_name,
            vector,
            limit=k,
            filter=conditions if must or excluded else None,
            payload=payload,
            exact=True,
        )

    def nearest_to(
        self,
        direction: npt.NDArray[np.floating],
        k: int,
        *,
        vector_name: str,
        filter: models.Filter | None,
        excluded: Sequence[PointId] = (),
        payload: Sequence[str] | None = None,
    ) -> list[ScoredPoint]:
        """Return the k nearest points by cosine to a direction, shape (dim,), without the bias; as `nearest`."""
        padded = np.zeros(self.spec.vectors[vector_name].size, np.float32)
        padded[: len(direction)] = direction
        return self.nearest(vector_name, padded, k, filter=filter, excluded=excluded, payload=payload)

    def passing(self, points: Sequence[PointId], filter: models.Filter | None) -> list[PointId]:
        """Return the points that exist, are not hidden and pass the filter, in the order given."""
        hidden = self._hidden.now()
        return [id for id in self._passing(points, filter, []) if id not in hidden]

    def _passing(
        self, points: Sequence[PointId], filter: models.Filter | None, payload: Sequence[str] | None
    ) -> dict[PointId, StoredPoint]:
        """Return the points that exist and pass the filter, hidden or not, in the order given."""
        among: list[Any] = [models.HasIdCondition(has_id=list(points))]
        found, _ = self._engine.page(
            self.collection,
            limit=max(1, len(points)),
            start=None,
            payload=payload,
            vectors=[],
            filter=models.Filter(must=among if filter is None else [filter, *among]),
        )
        stored = {point.id: point for point in found}
        return {id: stored[id] for id in points if id in stored}

    def payloads(self, points: Sequence[PointId], keys: Sequence[str] | None) -> list[dict[str, Any] | None]:
        """Return these keys of each point's payload, all for None; None for a point that is not there."""
        stored = self._engine.retrieve(self.collection, points, vectors=[], payload=keys)
        return [None if point is None else point.payload for point in stored]

    def popular(
        self,
        k: int,
        *,
        filter: models.Filter | None,
        excluded: Sequence[PointId] = (),
        only: Sequence[PointId] | None = None,
        payload: Sequence[str] | None = None,
    ) -> list[ScoredPoint]:
        """Return the k points with the most interactions, which are their scores; the arguments are as in `nearest`.

        Raises:
            OptionError: none of the collection's points has any.
        """

        def popular(n: int) -> list[ScoredPoint]:
            return self._popular(n, filter, excluded, only, payload)

        return self._shown(popular, k)

    def recent(
        self,
        k: int,
        *,
        newest: Newest,
        filter: models.Filter | None,
        excluded: Sequence[PointId] = (),
        only: Sequence[PointId] | None = None,
        payload: Sequence[str] | None = None,
    ) -> list[ScoredPoint]:
        """Return k points: points of recorded events, newest first, then popular ones.

        Scores are the hours from 1970 to the newest event; of popular ones n / (n + 1) for n interactions, below 1.

        Args:
            newest: the ids of recorded events with their times in microseconds, newest first, in batches.
            filter, excluded, only, payload: as in `nearest`.

        Raises:
            OptionError: events are too few, and none of the collection's points has a number of interactions.
        """
        never, among = set(excluded), None if only is None else set(only)

        def recent(n: int) -> list[ScoredPoint]:
            hits: list[ScoredPoint] = []
            for batch in newest():
                ids, times = zip(*batch, strict=True)
                moments = dict(zip(self.side.point_ids(ids), times, strict=True))
                points = [p for p in moments if p not in never and (among is None or p in among)]
                passing = self._passing(points, filter, payload)
                hits += [ScoredPoint(p, moments[p] / _HOUR, point.payload) for p, point in passing.items()]
                if len(hits) >= n:
                    return hits[:n]
            rest = self._popular(n - len(hits), filter, [*excluded, *(hit.id for hit in hits)], only, payload)
            return hits + [hit._replace(score=hit.score / (hit.score + 1)) for hit in rest]

        return self._shown(recent, k)

    def _popular(
        self,
        k: int,
        filter: models.Filter | None,
        excluded: Sequence[PointId],
        only: Sequence[PointId] | None,
        payload: Sequence[str] | None,
    ) -> list[ScoredPoint]:
        """Return the k points with the most interactions, hidden or not."""
        name, codec = "n_interactions", self.side.codec
        keys = codec.payload_keys(name) if name in codec.types else []
        conditions = models.Filter(
            must=[
                *([] if filter is None else [filter]),
                *([] if only is None else [models.HasIdCondition(has_id=list(only))]),
            ],
            must_not=[models.HasIdCondition(has_id=list(excluded))] if excluded else None,
        )

        def most(k: int, conditions: models.Filter | None) -> list[ScoredPoint]:
            wanted = None if payload is None else [*payload, *keys]
            found = self._engine.highest(self.collection, name, limit=k, filter=conditions, payload=wanted)
            return [ScoredPoint(p.id, float(codec.native(name, p.payload)), p.payload) for p in found]

        hits = most(k, conditions) if keys else []
        # A filter may leave only items without interactions, but without any at all no item is popular.
        if not (hits and hits[0].score > 0) and not (keys and any(hit.score > 0 for hit in most(1, None))):
            raise OptionError(
                "fallback",
                f"fallback: version {self.spec.version} has no {self.side.entity} with a number of "
                "interactions; train or import one with n_interactions, or leave the fallback out",
            )
        if len(hits) < k:  # rows that were pushed without a number
            uncounted = [models.IsEmptyCondition(is_empty=models.PayloadField(key=name))]
            rest, _ = self._engine.page(
                self.collection,
                limit=k - len(hits),
                start=None,
                payload=payload,
                vectors=[],
                filter=models.Filter(must=[conditions, *uncounted]),
            )
            hits += [ScoredPoint(point.id, 0.0, point.payload) for point in rest]
        return hits

    def vectors(self, ids: Sequence[PointId]) -> npt.NDArray[np.float64]:
        """Return the vectors of points, without the bias, float64 (n, dim); zeros for a point without one."""
        points = self._engine.retrieve(self.collection, ids, vectors=[self.side.field.name], payload=())
        return np.nan_to_num(self.matrix(points).astype(np.float64))

    def directions(self, ids: Sequence[PointId]) -> npt.NDArray[np.float64]:
        """Return the vectors of points as unit vectors, float64 (n, dim); zeros for a point without one."""
        vectors = self.vectors(ids)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors / np.where(lengths > 0, lengths, 1)

    def neighbours(
        self, hits: Sequence[ScoredPoint], *, returned: Returned, missing: list[Id] | None = None
    ) -> Neighbours:
        """Build the answer from hits."""
        side = self.side
        return Neighbours(
            id_name=side.id_name,
            ids=[hit.payload[side.id_name] for hit in hits],
            scores=np.array([hit.score for hit in hits], dtype=np.float32),
            attributes=[side.attributes(hit.payload, returned.names) for hit in hits],
            version=self.spec.version,
            space=self.spec.space,
            missing=missing or [],
        )

    def embeddings(self, ids: Sequence[Id]) -> Embeddings:
        """Return the vectors of these ids, without the bias."""
        name = self.side.field.name
        points = self.points(ids, name, [TIMESTAMP_KEY])
        return Embeddings(
            ids=list(ids),
            vectors=self.matrix(points),
            found=np.array([point is not None for point in points], dtype=np.bool_),
            event_timestamps=[
                None if point is None else from_microseconds(point.payload[TIMESTAMP_KEY]) for point in points
            ],
            version=self.spec.version,
            space=self.spec.space,
            as_of=self.spec.as_of,
        )

    def page(
        self, filter: models.Filter | None, limit: int, start: PointId | None, *, vectors: bool, returned: Returned
    ) -> Page:
        """Return at most `limit` rows that pass the filter, starting at a point."""
        side = self.side
        points, following = self._engine.page(
            self.collection,
            limit=no_more_than_there_are(limit, self._engine, self.collection),
            start=start,
            payload=returned.payload,
            vectors=[side.field.name] if vectors else [],
            filter=filter,
        )
        hidden = self._hidden.now()
        return Page(
            id_name=side.id_name,
            ids=[point.payload[side.id_name] for point in points],
            attributes=[side.attributes(point.payload, returned.names) for point in points],
            vectors=self.matrix(points) if vectors else None,
            hidden=[point.id in hidden for point in points],
            version=self.spec.version,
            cursor=None if following is None else _cursor(self.spec.version, following),
        )

    def scroll(self, filter: models.Filter | None) -> Iterator[list[StoredPoint]]:
        """Yield every point that passes the filter, page by page, with all its data but the searched copies."""
        return self._engine.scroll(self.collection, payload=None, vectors=self._written, filter=filter)

    def whole(self, ids: Sequence[Id]) -> list[StoredPoint | None]:
        """Return the points of these ids with all their data but the searched copies; None for unknown ids."""
        return self._engine.retrieve(self.collection, self.side.point_ids(ids), vectors=self._written)

    @property
    def _written(self) -> list[str]:
        """The vectors as they were written; from these the searched copies are made."""
        return [name for name in self.side.codec.fields if name in self.spec.vectors]

    def matrix(self, points: Sequence[StoredPoint | None], name: str | None = None) -> npt.NDArray[np.float32]:
        """Return the points' vectors as float32 (n, dim), without the bias; NaN for a missing one.

        Args:
            name: which vector; by default the embedding.
        """
        name, dim = name or self.side.field.name, self.dim
        matrix = np.full((len(points), dim), np.nan, dtype=np.float32)
        for row, point in zip(matrix, points, strict=True):
            if point is not None and name in point.vectors:
                row[:] = point.vectors[name][:dim]
        return matrix


def _cursor(version: str, start: PointId) -> str:
    return base64.urlsafe_b64encode(json.dumps([version, start]).encode()).decode().rstrip("=")


def _is_point_id(value: Any) -> bool:
    if isinstance(value, str):
        uuid.UUID(value)
        return True
    return type(value) is int and 0 <= value < 2**64


def read_cursor(cursor: str) -> tuple[str, PointId]:
    """Return the version of the page that a cursor came with, and where the next page starts.

    Raises:
        CursorError: it did not come with a page.
    """
    try:
        version, start = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        if isinstance(version, str) and _is_point_id(start):
            return version, start
    except (ValueError, TypeError, RecursionError):
        pass
    raise CursorError(f"cursor {cursor[:40]!r} did not come with a page; leave it out to begin at the first page")
