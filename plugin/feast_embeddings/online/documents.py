"""Feast's document search over a feature view: nearest vectors, keywords, or both.

Distances are lower-is-better, as Feast wants them: ``1 - cosine``, ``-dot``, Euclidean (l2), Manhattan (l1); always
between the vectors as written, without the bias coordinate. Qdrant's index answers the metric that a field names, and
the dot product for fields with cosine; any other metric reads every vector of the view.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt
from feast import ValueType
from feast.filter_models import ComparisonFilter, CompoundFilter
from qdrant_client import models

from feast_embeddings._feast.private import EntityKeyProto, ValueProto
from feast_embeddings.arguments import at_least_one
from feast_embeddings.codec.collection import VectorField, parse_metric
from feast_embeddings.codec.filters import QdrantFilterTranslator
from feast_embeddings.codec.rows import PointCodec
from feast_embeddings.engines.dropped import ask_live
from feast_embeddings.engines.engine import (
    TIMESTAMP_KEY,
    CollectionSpec,
    Distance,
    Engine,
    PointId,
    StoredPoint,
    no_more_than_there_are,
)
from feast_embeddings.errors import InputError
from feast_embeddings.online.text_search import bm25, reciprocal_rank_fusion

__all__ = ["DocumentV1", "DocumentV2", "DocumentView", "search_v1", "search_v2"]

DocumentV1 = tuple[datetime | None, EntityKeyProto | None, ValueProto | None, ValueProto | None, ValueProto | None]
DocumentV2 = tuple[datetime | None, EntityKeyProto | None, dict[str, ValueProto] | None]

# Length of each of the two rankings that a hybrid search merges.
_FUSED = 100

_Row = tuple[datetime, EntityKeyProto, dict[str, ValueProto]]
_Vectors = npt.NDArray[np.float64]


def _cosine(vectors: _Vectors, query: _Vectors) -> _Vectors:
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(query)
    similarity: _Vectors = np.divide(vectors @ query, lengths, out=np.zeros(len(vectors)), where=lengths > 0)
    return 1 - similarity


_DISTANCES: dict[Distance, Callable[[_Vectors, _Vectors], Any]] = {
    "Cosine": _cosine,
    "Dot": lambda vectors, query: -(vectors @ query),
    "Euclid": lambda vectors, query: np.linalg.norm(vectors - query, axis=1),
    "Manhattan": lambda vectors, query: np.abs(vectors - query).sum(axis=1),
}


@dataclass(frozen=True)
class DocumentView:
    """A feature view to search.

    Attributes:
        alias: the alias of its live collection.
        valid_from: rows with an older event timestamp (microseconds since the epoch) have expired.
    """

    engine: Engine
    codec: PointCodec
    alias: str
    valid_from: int | None = None


@dataclass(frozen=True)
class _Query:
    vector: npt.NDArray[np.float32]
    field: VectorField
    distance: Distance


def search_v1(
    view: DocumentView, requested: Sequence[str], embedding: Sequence[float], top_k: int, metric: str | None
) -> list[DocumentV1]:
    """Find the rows nearest to a vector, nearest first.

    Returns:
        Per row: event timestamp, entity key, the first requested feature (the vector if none is requested),
        the vector, the distance.

    Raises:
        InputError: a feature that the view does not have, no vector field, or a vector that does not fit.
        MetricError: a metric that Qdrant does not have.
    """
    _check(view, requested, top_k)
    query = _query(view, embedding, metric)
    vector = query.field.name
    name = next((name for name in requested if name in view.codec.features), vector)
    rows = _search(view, [name, vector], query, None, None, top_k)
    return [(at, key, values[name], values[vector], values.get("distance")) for at, key, values in rows]


def search_v2(
    view: DocumentView,
    requested: Sequence[str],
    embedding: Sequence[float] | None,
    top_k: int,
    metric: str | None,
    query_string: str | None,
    filters: ComparisonFilter | CompoundFilter | None,
) -> list[DocumentV2]:
    """Find the rows nearest to a vector, best for a text, or both.

    Args:
        requested: features and join keys to return. With a text, the string features among them are searched.

    Returns:
        Per row: event timestamp, entity key, and the requested features with ``distance`` (if a vector was given)
        and ``text_rank`` (if a text was given, in [0, 1), higher is better). The entity key begins with the synthetic
        join key ``rank`` = 0, 1, …: Feast sorts rows by entity key before it attaches the features to them, so
        without it ids would get the features of other rows.

    Raises:
        InputError: a feature that the view does not have, neither vector nor text, no field to search, or a vector
            that does not fit.
        MetricError: a metric that Qdrant does not have.
        FilterError: the filter cannot be applied.
    """
    _check(view, requested, top_k)
    if embedding is None and query_string is None:
        raise InputError("a document search needs a query vector, a query_string, or both")
    query = None if embedding is None else _query(view, embedding, metric)
    rank_key = "rank" if "rank" not in view.codec.types else "_rank"
    return [
        (
            at,
            EntityKeyProto(
                join_keys=[rank_key, *key.join_keys],
                entity_values=[ValueProto(int64_val=rank), *key.entity_values],
            ),
            values,
        )
        for rank, (at, key, values) in enumerate(_search(view, requested, query, query_string, filters, top_k))
    ]


def _check(view: DocumentView, requested: Sequence[str], top_k: int) -> None:
    types = view.codec.types
    if unknown := [name for name in requested if name not in types]:
        raise InputError(
            f"feature view {view.codec.view.name!r} has no feature {unknown[0]!r}; it has: {', '.join(sorted(types))}"
        )
    at_least_one(top_k, "top_k")


def _query(view: DocumentView, embedding: Sequence[float], metric: str | None) -> _Query:
    name = view.codec.view.name
    field = next(iter(view.codec.fields.values()), None)
    if field is None:
        raise InputError(f"feature view {name!r} has no field with vector_index=True to search")
    distance = field.distance if metric is None else parse_metric(metric, "distance_metric")
    vector = np.asarray(embedding, dtype=np.float32)
    if vector.ndim != 1 or not vector.size or not np.isfinite(vector).all():
        raise InputError(f"feature view {name!r}: the query vector must be finite numbers")
    return _Query(vector, field, distance)


def _search(
    view: DocumentView,
    requested: Sequence[str],
    query: _Query | None,
    text: str | None,
    filters: ComparisonFilter | CompoundFilter | None,
    top_k: int,
) -> list[_Row]:
    codec, engine = view.codec, view.engine
    translated = QdrantFilterTranslator(codec.types, whole=codec.whole).translate(filters)
    features = [name for name in dict.fromkeys(requested) if name in codec.features]
    texts = [name for name in features if codec.types[name] == ValueType.STRING]
    if text is not None and not texts:
        raise InputError("query_string searches string features that are requested, but none is")
    conditions = _conditions(translated, view.valid_from)

    def search(collection: str | None) -> list[_Row]:
        if collection is None:
            return []
        return _search_in(view, collection, requested, features, texts, query, text, conditions, top_k)

    return ask_live(lambda: engine.aliases().get(view.alias), search)


def _search_in(
    view: DocumentView,
    collection: str,
    requested: Sequence[str],
    features: Sequence[str],
    texts: Sequence[str],
    query: _Query | None,
    text: str | None,
    conditions: models.Filter | None,
    top_k: int,
) -> list[_Row]:
    codec, engine = view.codec, view.engine
    top_k = no_more_than_there_are(top_k, engine, collection)
    spec = engine.describe(collection)
    rankings: list[list[PointId]] = []
    if query is not None:
        depth = top_k if text is None else max(top_k, _FUSED)
        rankings.append(_nearest(engine, collection, spec, query, depth, conditions))
    ranks: dict[PointId, float] = {}
    if text is not None:
        ranks = bm25(_texts(engine, collection, texts, conditions), text)
        rankings.append(list(ranks) if query is None else list(ranks)[: max(top_k, _FUSED)])
    ids = rankings[0] if len(rankings) == 1 else list(reciprocal_rank_fusion(rankings))

    names = {name for name in requested if name in spec.vectors}
    if query is not None and query.field.name in spec.vectors:
        names.add(query.field.name)
    # A point may have been deleted since it was found.
    points = [p for p in engine.retrieve(collection, ids[:top_k], vectors=sorted(names)) if p is not None]
    scored = list(zip(points, _distances(points, query), strict=True))
    if text is None:
        # Qdrant ranks by rounded scores, in float32 or on quantized vectors.
        scored.sort(key=lambda pair: np.inf if pair[1] is None else pair[1])
    rows = []
    for point, distance in scored:
        at, values = codec.decode(point, features)
        key = codec.entity_key(point)
        values |= {name: v for name, v in zip(key.join_keys, key.entity_values, strict=True) if name in requested}
        if distance is not None:
            values["distance"] = ValueProto(double_val=distance)
        if text is not None:
            values["text_rank"] = ValueProto(double_val=ranks.get(point.id, 0.0))
        rows.append((at, key, values))
    return rows


def _conditions(filters: models.Filter | None, valid_from: int | None) -> models.Filter | None:
    if valid_from is None:
        return filters
    valid = models.FieldCondition(key=TIMESTAMP_KEY, range=models.Range(gte=valid_from))
    return models.Filter(must=[valid] if filters is None else [filters, valid])


def _nearest(
    engine: Engine,
    collection: str,
    spec: CollectionSpec,
    query: _Query,
    limit: int,
    conditions: models.Filter | None,
) -> list[PointId]:
    """Find the ids of the nearest points, nearest first."""
    field, vector = query.field, query.vector
    if field.name not in spec.vectors:
        return []  # no row has a vector yet
    dim = spec.vectors[field.name].size - (field.bias is not None)
    if len(vector) != dim:
        raise InputError(f"field {field.name!r} has vectors of length {dim}, the query has length {len(vector)}")
    for name in (field.search_name, field.name):
        if spec.vectors[name].distance == query.distance:
            # 0 for the bias: the bias of an item is part of a rank, not of a distance.
            padded = np.append(vector, np.zeros(spec.vectors[name].size - dim, dtype=np.float32))
            hits = engine.query(collection, name, padded, limit=limit, filter=conditions, search_ef=spec.search_ef)
            return [hit.id for hit in hits]
    best: list[tuple[float, PointId]] = []
    for points in engine.scroll(collection, payload=[], vectors=[field.name], filter=conditions):
        found = [point for point in points if field.name in point.vectors]
        pairs = [(d, p.id) for d, p in zip(_distances(found, query), found, strict=True) if d is not None]
        best = sorted([*best, *pairs], key=lambda pair: pair[0])[:limit]
    return [id for _, id in best]


def _distances(points: Sequence[StoredPoint], query: _Query | None) -> list[float | None]:
    """Compute the distance of each point's vector to the query; None without a query or a vector."""
    distances: list[float | None] = [None] * len(points)
    if query is None:
        return distances
    name, dim = query.field.name, len(query.vector)
    rows = [i for i, point in enumerate(points) if name in point.vectors]
    if rows:
        vectors = np.stack([points[i].vectors[name][:dim] for i in rows]).astype(np.float64)
        found = _DISTANCES[query.distance](vectors, query.vector.astype(np.float64))
        for i, distance in zip(rows, found.tolist(), strict=True):
            distances[i] = distance
    return distances


def _texts(
    engine: Engine, collection: str, names: Sequence[str], conditions: models.Filter | None
) -> Iterator[tuple[PointId, str]]:
    for points in engine.scroll(collection, payload=names, vectors=[], filter=conditions):
        for point in points:
            yield point.id, "\n".join(text for name in names if isinstance(text := point.payload.get(name), str))
