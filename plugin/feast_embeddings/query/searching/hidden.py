"""Leave hidden users and items out of a search, after it.

A filter would be the other way. It would have to be sent with each query, thousands of ids long, or stored with each
point and carried over by each publish; and it takes nodes out of the graph, so that a search finds fewer of the rest
(`feast_embeddings.query.collection`). A search that meets no hidden point costs what it did.
"""

from __future__ import annotations

from collections.abc import Callable

from feast_embeddings.arguments import Id
from feast_embeddings.engines.engine import PointId, ScoredPoint
from feast_embeddings.events import Hidden
from feast_embeddings.model.sides import Side
from feast_embeddings.query.deadline import check_time

__all__ = ["HiddenPoints", "shown"]

# If hidden ones are found, each next try asks for this many times more.
_GROWTH = 4


class HiddenPoints:
    """The points of the hidden users, or items, of a model; safe to use from many threads."""

    def __init__(self, hidden: Hidden, side: Side) -> None:
        self._hidden = hidden
        self._side = side
        self._kept: tuple[frozenset[Id], frozenset[PointId]] = frozenset(), frozenset()

    def ids(self) -> frozenset[Id]:
        """Return the ids that are hidden as of now."""
        return self._hidden.ids(self._side.entity)

    def now(self) -> frozenset[PointId]:
        """Return the points that are hidden as of now."""
        ids = self.ids()
        known, points = self._kept
        if known is not ids:
            points = frozenset(self._side.point_ids(self._side.possible(ids)))
            self._kept = ids, points
        return points


def shown(search: Callable[[int], list[ScoredPoint]], k: int, hidden: frozenset[PointId]) -> list[ScoredPoint]:
    """Return the k best that are not hidden; fewer only if there are no more.

    Args:
        search: returns the n best of all, best first; fewer only if there are no more.
    """
    n = k
    while True:
        found = search(n)
        hits = [hit for hit in found if hit.id not in hidden][:k]
        if len(hits) == k or len(found) < n or n >= k + len(hidden):
            return hits
        check_time()
        # Of this number, at least k are not hidden.
        n = min(_GROWTH * n, k + len(hidden))
