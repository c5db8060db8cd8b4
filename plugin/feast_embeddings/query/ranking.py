"""Rank items for user vectors, and by popularity or by recorded events for those who have none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Unpack, get_args

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from feast_embeddings.arguments import Id
from feast_embeddings.codec.collection import VectorField
from feast_embeddings.engines.engine import PointId, ScoredPoint
from feast_embeddings.errors import OptionError
from feast_embeddings.model.sides import Filter
from feast_embeddings.query.answers import Neighbours
from feast_embeddings.query.collection import LiveCollection, Newest
from feast_embeddings.query.deadline import check_time
from feast_embeddings.query.options import Fallback, ShapingOptions
from feast_embeddings.query.searching.returned import Returned
from feast_embeddings.query.shaping import Shaping, shape

__all__ = ["rank_vectors", "score_query"]


def score_query(field: VectorField, user: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return the vector whose product with a stored item is the item's score for a user."""
    return user if field.bias is None else np.append(user, np.float32(1))


def rank_vectors(
    items: LiveCollection,
    vectors: Sequence[npt.NDArray[np.float32] | None],
    excluded: Sequence[Sequence[PointId]],
    k: int,
    *,
    filter: Filter | None = None,
    item_ids: Iterable[Id] | None = None,
    attributes: bool | Sequence[str] = True,
    fallback: Fallback = "none",
    newest: Newest = tuple,
    **options: Unpack[ShapingOptions],
) -> list[Neighbours | None]:
    """Find the k items with the highest score for each user vector of the items' space, float32 (dim,).

    Args:
        vectors: one per user; None gives None, or the fallback.
        excluded: per user, the points of items to leave out.
        newest: the items of recorded events, see `LiveCollection.recent`.
    """
    side, field = items.side, items.side.field
    shaping = Shaping(side, k, filter, **options)
    if fallback not in get_args(Fallback):
        raise OptionError("fallback", f"fallback must be 'popular', 'recent' or 'none', got {fallback!r:.40}")
    among = None if item_ids is None else list(item_ids)
    only = None if among is None else side.point_ids(among)
    returned = Returned.of(side, attributes)
    payload = returned.reading(*shaping.payload)

    def ranked(vector: npt.NDArray[np.float32] | None, seen: Sequence[PointId]) -> Neighbours | None:
        check_time()
        left_out = [*seen, *shaping.left_out]
        if vector is not None:
            query = score_query(field, vector)
            search: Callable[..., list[ScoredPoint]] = partial(items.nearest, field.name, query)
        elif fallback == "none":
            return None
        else:
            search = items.popular if fallback == "popular" else partial(items.recent, newest=newest)

        def best(n: int, conditions: models.Filter | None) -> list[ScoredPoint]:
            return search(n, filter=conditions, excluded=left_out, only=only, payload=payload)

        hits = shape(best, shaping, items.directions)
        # If all given items have come back, none is unknown.
        missing = items.unknown(among) if among is not None and len(hits) < len(set(only or ())) else []
        found = items.neighbours(hits, returned=returned, missing=missing)
        return found if vector is not None or fallback == "none" else replace(found, fallback=fallback)

    return [ranked(vector, seen) for vector, seen in zip(vectors, excluded, strict=True)]
