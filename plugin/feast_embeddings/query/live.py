"""What a model serves at one moment: every answer is of the versions that were live then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from feast_embeddings.arguments import Id, at_least_one
from feast_embeddings.artifact import Entity
from feast_embeddings.engines.engine import PointId, ScoredPoint
from feast_embeddings.errors import NotPublishedError, VersionMismatchError
from feast_embeddings.query.answers import Neighbours, NeighboursBatch
from feast_embeddings.query.deadline import check_time
from feast_embeddings.query.side import Filter, LiveSide
from feast_embeddings.query.visitors import Visitors

__all__ = ["LiveModel"]

_SEEN = "seen_items"
# When users who have seen an item are left out, so many times more are looked at in each next try.
_GROWTH = 4


class LiveModel:
    """The queries, for many ids at once; `feast_embeddings.EmbeddingStore` says what each means.

    Args:
        sides: users and items as far as they are live.
        visitors: of the version of the items.
    """

    def __init__(self, model: str, sides: Mapping[Entity, LiveSide], visitors: Visitors) -> None:
        self.model = model
        self._sides = sides
        self._visitors = visitors
        self.collections = {entity: side.collection for entity, side in sides.items()}

    def side(self, entity: Entity) -> LiveSide:
        """The live users or items; `NotPublishedError` when there are none."""
        if entity not in self._sides:
            raise NotPublishedError(
                f"no version of model {self.model!r} is live: run feast-embeddings publish --model {self.model}"
            )
        return self._sides[entity]

    def similar(
        self, entity: Entity, ids: Sequence[Id], k: int, *, filter: Filter | None, attributes: bool
    ) -> NeighboursBatch:
        """To each id the k nearest by cosine, without itself."""
        k = at_least_one(k, "k")
        live = self.side(entity)
        name, conditions = live.side.field.search_name, live.side.translate(filter)
        payload = None if attributes else [live.side.id_name]
        answers: list[Neighbours | None] = []
        for point in live.points(ids, name):
            check_time()
            if point is None:
                answers.append(None)
                continue
            hits = live.nearest(name, point.vectors[name], k, filter=conditions, excluded=[point.id], payload=payload)
            answers.append(live.neighbours(hits, attributes=attributes))
        return NeighboursBatch(list(ids), answers, live.spec.version)

    def similar_to_all(self, user_ids: Sequence[Id], k: int, *, filter: Filter | None, attributes: bool) -> Neighbours:
        """The k users nearest to the mean direction of these users, without them."""
        k = at_least_one(k, "k")
        live = self.side("user")
        name, conditions = live.side.field.search_name, live.side.translate(filter)
        points = live.points(user_ids, name)
        seeds = [point for point in points if point is not None]
        missing = [id for id, point in zip(user_ids, points, strict=True) if point is None]
        if not seeds:
            return live.neighbours([], attributes=attributes, missing=missing)
        # Under Cosine Qdrant keeps the vectors at length one.
        mean = np.stack([point.vectors[name] for point in seeds]).mean(axis=0)
        payload = None if attributes else [live.side.id_name]
        hits = live.nearest(name, mean, k, filter=conditions, excluded=[point.id for point in seeds], payload=payload)
        return live.neighbours(hits, attributes=attributes, missing=missing)

    def rank(
        self,
        user_ids: Sequence[Id],
        k: int,
        *,
        filter: Filter | None,
        include_seen: bool,
        item_ids: Sequence[Id] | None,
        attributes: bool,
    ) -> NeighboursBatch:
        """To each user the k items of the highest score, of all items or of these."""
        k = at_least_one(k, "k")
        users, items = self._same_space()
        name = users.side.field.name
        points = users.points(user_ids, name, () if include_seen else [_SEEN])
        ranked = self.ranking(k, filter=filter, item_ids=item_ids, attributes=attributes)
        answers: list[Neighbours | None] = []
        for point in points:
            check_time()
            if point is None:
                answers.append(None)
                continue
            seen = [] if include_seen else point.payload.get(_SEEN) or []
            answers.append(ranked(point.vectors[name], items.side.point_ids(seen)))
        return NeighboursBatch(list(user_ids), answers, items.spec.version)

    def rank_visitors(
        self,
        histories: Sequence[Mapping[Id, float]],
        k: int,
        *,
        filter: Filter | None,
        include_seen: bool,
        item_ids: Sequence[Id] | None,
        attributes: bool,
    ) -> NeighboursBatch:
        """To each visitor, given as items with weights, the k items of the highest score."""
        k = at_least_one(k, "k")
        _, items = self._same_space()
        # Also those of them that came after the training, which fold-in does not know.
        seen = [items.side.point_ids(history) for history in histories]
        visitors = self._visitors.fold_in(histories)
        ranked = self.ranking(k, filter=filter, item_ids=item_ids, attributes=attributes)
        answers: list[Neighbours | None] = []
        for visitor, excluded in zip(visitors, seen, strict=True):
            check_time()
            if visitor.vector is None:
                answers.append(None)
                continue
            found = ranked(visitor.vector, [] if include_seen else excluded)
            answers.append(replace(found, missing=list(dict.fromkeys([*visitor.unknown, *found.missing]))))
        unknown = dict.fromkeys(id for visitor in visitors for id in visitor.unknown)
        return NeighboursBatch(list(range(len(answers))), answers, items.spec.version, list(unknown))

    def ranking(
        self, k: int, *, filter: Filter | None, item_ids: Sequence[Id] | None, attributes: bool
    ) -> Callable[[npt.NDArray[np.float32], Sequence[PointId]], Neighbours]:
        """A function for the k items of the highest score, for one user vector of this version's space after another.

        It takes the vector, float32 (dim,), and the points of items that are left out.
        """
        k = at_least_one(k, "k")
        _, items = self._same_space()
        side, field = items.side, items.side.field
        conditions = side.translate(filter)
        only = None if item_ids is None else side.point_ids(item_ids)
        payload = None if attributes else [side.id_name]

        def ranked(user: npt.NDArray[np.float32], excluded: Sequence[PointId]) -> Neighbours:
            vector = user if field.bias is None else np.append(user, np.float32(1))
            hits = items.nearest(
                field.name, vector, k, filter=conditions, excluded=excluded, only=only, payload=payload
            )
            # Where all that were given have come back, none is unknown.
            missing = items.unknown(item_ids) if item_ids is not None and len(hits) < len(set(only or ())) else []
            return items.neighbours(hits, attributes=attributes, missing=missing)

        return ranked

    def users_for(
        self, item_ids: Sequence[Id], k: int, *, filter: Filter | None, include_seen: bool, attributes: bool
    ) -> NeighboursBatch:
        """To each item the k users whose score for it is highest."""
        k = at_least_one(k, "k")
        users, items = self._same_space()
        conditions = users.side.translate(filter)
        has_seen = _SEEN in users.side.codec.types and not include_seen
        payload = None if attributes else [users.side.id_name, *([_SEEN] if has_seen else [])]
        field = items.side.field
        answers: list[Neighbours | None] = []
        for id, point in zip(item_ids, items.points(item_ids, field.name), strict=True):
            if point is None:
                answers.append(None)
                continue
            vector, bias = point.vectors[field.name], np.float32(0)
            if field.bias is not None:
                vector, bias = vector[:-1], vector[-1]

            def search(n: int, vector: npt.NDArray[np.float32] = vector) -> list[ScoredPoint]:
                return users.nearest(users.side.field.name, vector, n, filter=conditions, payload=payload)

            hits = _unseen(search, id, k) if has_seen else search(k)
            # Not part of the search: it is the same for all users.
            hits = [hit._replace(score=float(np.float32(hit.score) + bias)) for hit in hits]
            answers.append(users.neighbours(hits, attributes=attributes))
        return NeighboursBatch(list(item_ids), answers, users.spec.version)

    def _same_space(self) -> tuple[LiveSide, LiveSide]:
        users, items = self.side("user"), self.side("item")
        if users.spec.space != items.spec.space:
            raise VersionMismatchError(
                f"{users.collection} is of space {users.spec.space!r} but {items.collection} is of space "
                f"{items.spec.space!r}; publish one version of the model to get both from one space"
            )
        return users, items


def _unseen(search: Callable[[int], list[ScoredPoint]], item_id: Id, k: int) -> list[ScoredPoint]:
    """The k best users who have not seen the item: lists of what users saw are too long to have an index."""
    n = k
    while True:
        check_time()
        hits = search(n)
        unseen = [hit for hit in hits if item_id not in (hit.payload.get(_SEEN) or ())]
        if len(unseen) >= k or len(hits) < n:
            return unseen[:k]
        n *= _GROWTH
