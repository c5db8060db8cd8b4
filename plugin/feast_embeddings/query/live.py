"""Queries of a model at one moment: every answer is from the versions that were live then."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Unpack

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from qdrant_client import models

from feast_embeddings.arguments import Id, at_least_one
from feast_embeddings.artifact import ENTITIES, Entity
from feast_embeddings.artifact.seen import SEEN
from feast_embeddings.engines.engine import CollectionSpec, PointId, ScoredPoint, StoredPoint
from feast_embeddings.errors import NotPublishedError, OptionError, VersionMismatchError
from feast_embeddings.events import Backlog, EventLog
from feast_embeddings.model.sides import Filter, missing_side
from feast_embeddings.query.answers import Embeddings, Found, Neighbours, NeighboursBatch
from feast_embeddings.query.collection import LiveCollection
from feast_embeddings.query.deadline import check_time
from feast_embeddings.query.events.histories import history_now, seen_items, vectors_now
from feast_embeddings.query.export import export_side
from feast_embeddings.query.options import By, RankingOptions, ShapingOptions
from feast_embeddings.query.ranking import rank_vectors
from feast_embeddings.query.searching.examples import Examples, direction_of
from feast_embeddings.query.searching.likeness import Likeness
from feast_embeddings.query.searching.reasons import check_exact, with_reasons
from feast_embeddings.query.searching.returned import Returned
from feast_embeddings.query.shaping import Shaping, shape
from feast_embeddings.query.text import VersionText, search_items
from feast_embeddings.query.visitors import Visitors
from feast_embeddings.times import to_microseconds

__all__ = ["LiveModel"]

# If users who have seen an item are left out, each next try fetches this many times more.
_GROWTH = 4


class LiveModel:
    """The queries, for many ids at once; `feast_embeddings.EmbeddingStore` documents each.

    Args:
        sides: users and items, if they are live.
        registered: the sides that the model has.
        visitors: folds into the version of the items.
        text: of that version.
        events: what users did since.
    """

    def __init__(
        self,
        model: str,
        sides: Mapping[Entity, LiveCollection],
        visitors: Visitors,
        text: VersionText,
        events: EventLog,
        registered: Collection[Entity] = ENTITIES,
    ) -> None:
        self.model = model
        self._sides = sides
        self._registered = registered
        self.visitors = visitors
        self.events = events
        self._text = text
        self.collections = {entity: side.collection for entity, side in sides.items()}

    @property
    def spec(self) -> CollectionSpec:
        """The live items, or the users of a model that has no items; `NotPublishedError` if there are none."""
        return self.side("item" if "item" in self._registered else "user").spec

    def side(self, entity: Entity) -> LiveCollection:
        """Return the live users or items; `NotPublishedError` if there are none, `MissingSideError` if never."""
        if entity not in self._registered:
            raise missing_side(self.model, entity)
        if entity not in self._sides:
            raise NotPublishedError(
                f"no version of model {self.model!r} is live: run feast-embeddings publish --model {self.model}"
            )
        return self._sides[entity]

    def backlog(self) -> Backlog:
        """Return what was recorded after the newest interaction that the version was trained on."""
        as_of = self.spec.as_of
        return self.events.backlog(to_microseconds(datetime.fromisoformat(as_of)) if as_of else -1)

    def embeddings(self, entity: Entity, ids: Sequence[Id]) -> Embeddings:
        """Return the vectors of these users or items, without the bias."""
        return self.side(entity).embeddings(ids)

    def export(self, entity: Entity, filter: Filter | None) -> pa.RecordBatchReader:
        """Export all users or items with a vector that pass the filter."""
        return export_side(self.side(entity), filter)

    def similar(
        self,
        entity: Entity,
        ids: Sequence[Id],
        k: int,
        *,
        by: By = "blend",
        filter: Filter | None = None,
        attributes: bool | Sequence[str] = True,
        **options: Unpack[ShapingOptions],
    ) -> NeighboursBatch:
        """Find the k nearest of each id by cosine, without itself."""
        live = self.side(entity)
        likeness, shaping = Likeness.of(live, by), Shaping(live.side, at_least_one(k, "k"), filter, **options)
        returned = Returned.of(live.side, attributes)
        name, payload = likeness.searched, returned.reading(*shaping.payload)

        def nearest(point: StoredPoint) -> list[ScoredPoint]:
            def search(n: int, conditions: models.Filter | None) -> list[ScoredPoint]:
                among, left_out = likeness.among(conditions), [point.id, *shaping.left_out]
                return live.nearest(name, point.vectors[name], n, filter=among, excluded=left_out, payload=payload)

            return shape(search, shaping, live.directions)

        answers: list[Neighbours | None] = []
        for point in likeness.points(ids, name):
            check_time()
            answers.append(None if point is None else live.neighbours(nearest(point), returned=returned))
        return NeighboursBatch(list(ids), answers, live.spec.version, live.spec.space)

    def similar_to(
        self,
        entity: Entity,
        k: int,
        *,
        positive: Sequence[Id] = (),
        negative: Sequence[Id] = (),
        vector: npt.ArrayLike | None = None,
        by: By = "blend",
        filter: Filter | None = None,
        attributes: bool | Sequence[str] = True,
        **options: Unpack[ShapingOptions],
    ) -> Neighbours:
        """Find the k nearest by cosine to examples, without them, or to a vector."""
        live = self.side(entity)
        likeness, shaping = Likeness.of(live, by), Shaping(live.side, at_least_one(k, "k"), filter, **options)
        returned = Returned.of(live.side, attributes)
        payload = returned.reading(*shaping.payload)
        points: list[PointId] = []
        missing: list[Id] = []
        if vector is not None:
            direction = direction_of(vector, live)
        else:
            examples = Examples(likeness, positive, negative)
            points, missing = examples.points, examples.missing
            if examples.direction is None:
                return live.neighbours([], returned=returned, missing=missing)
            direction = examples.direction
        left_out = [*points, *shaping.left_out]

        def search(n: int, conditions: models.Filter | None) -> list[ScoredPoint]:
            return live.nearest_to(
                direction,
                n,
                vector_name=likeness.searched,
                filter=likeness.among(conditions),
                excluded=left_out,
                payload=payload,
            )

        return live.neighbours(shape(search, shaping, live.directions), returned=returned, missing=missing)

    def lookalike(
        self, user_ids: Sequence[Id], k: int, *, filter: Filter | None = None, attributes: bool | Sequence[str] = True
    ) -> Neighbours:
        """Find the k users nearest to the mean direction of these users, without them."""
        k = at_least_one(k, "k")
        live = self.side("user")
        name, conditions = live.side.field.search_name, live.side.translate(filter)
        returned = Returned.of(live.side, attributes)
        points = live.points(user_ids, name)
        seeds = [point for point in points if point is not None]
        missing = [id for id, point in zip(user_ids, points, strict=True) if point is None]
        if not seeds:
            return live.neighbours([], returned=returned, missing=missing)
        # Qdrant normalizes vectors with the distance Cosine.
        mean = np.stack([point.vectors[name] for point in seeds]).mean(axis=0)
        seen = [point.id for point in seeds]
        hits = live.nearest(name, mean, k, filter=conditions, excluded=seen, payload=returned.payload)
        return live.neighbours(hits, returned=returned, missing=missing)

    def rank(
        self,
        user_ids: Sequence[Id],
        k: int,
        *,
        exclude_seen: bool = True,
        explain: bool = False,
        **options: Unpack[RankingOptions],
    ) -> NeighboursBatch:
        """Find the k items with the highest score for each user."""
        k = at_least_one(k, "k")
        users, items = self.same_space()
        if explain:
            check_exact(self.visitors)
            if SEEN not in users.side.codec.types:
                raise OptionError(
                    "explain",
                    f"version {users.spec.version} does not say what its users have seen; leave explain out, or "
                    "publish one that has seen_items",
                )
        vectors, histories = vectors_now(users, self.visitors, self.events, user_ids, histories=exclude_seen)
        seen = [items.side.point_ids(history if exclude_seen else ()) for history in histories]
        found = rank_vectors(items, vectors, seen, k, newest=self.events.newest_items, **options)
        answers = [
            answer if vector is not None or answer is None else replace(answer, missing=[id, *answer.missing])
            for id, vector, answer in zip(user_ids, vectors, found, strict=True)
        ]
        if explain:
            answers = [
                None if answer is None else with_reasons(items, self.visitors, answer, self._kept_history(users, id))
                for id, answer in zip(user_ids, answers, strict=True)
            ]
        return NeighboursBatch(list(user_ids), answers, items.spec.version, items.spec.space)

    def _kept_history(self, users: LiveCollection, user_id: Id) -> Mapping[Id, float]:
        """Return what the version keeps of a user's history as of now, by which it folds them in."""
        return self.visitors.newest(history_now(users, self.events, user_id) or {})

    def search(
        self,
        text: str,
        user_id: Id | None,
        k: int,
        *,
        filter: Filter | None = None,
        attributes: bool | Sequence[str] = True,
    ) -> Found:
        """Find the k items that are best for a text, and for a user if one is given."""
        k = at_least_one(k, "k")
        items = self.side("item")
        vector = None
        if user_id is not None:
            users, items = self.same_space()
            ((vector,), _) = vectors_now(users, self.visitors, self.events, [user_id], histories=False)
        found = search_items(items, self._text, text, k, user=vector, filter=filter, attributes=attributes)
        return replace(found, missing=[user_id]) if user_id is not None and vector is None else found

    def rank_visitors(
        self,
        histories: Sequence[Mapping[Id, float]],
        k: int,
        *,
        exclude_seen: bool = True,
        explain: bool = False,
        **options: Unpack[RankingOptions],
    ) -> NeighboursBatch:
        """Find the k items with the highest score for each visitor, given as items with weights."""
        k = at_least_one(k, "k")
        _, items = self.same_space()
        if explain:
            check_exact(self.visitors)
        # Including items newer than the training, which fold-in does not know.
        seen = [items.side.point_ids(history) for history in histories]
        visitors = self.visitors.fold_in(histories)
        vectors = [visitor.vector for visitor in visitors]
        left_out = seen if exclude_seen else [[] for _ in visitors]
        found = rank_vectors(items, vectors, left_out, k, newest=self.events.newest_items, **options)
        answers = [
            # Not by its truth: an answer without results is false.
            None
            if answer is None
            else replace(answer, missing=list(dict.fromkeys([*visitor.unknown, *answer.missing])))
            for answer, visitor in zip(found, visitors, strict=True)
        ]
        if explain:
            answers = [
                None if answer is None else with_reasons(items, self.visitors, answer, history)
                for answer, history in zip(answers, histories, strict=True)
            ]
        unknown = dict.fromkeys(id for visitor in visitors for id in visitor.unknown)
        return NeighboursBatch(list(range(len(answers))), answers, items.spec.version, items.spec.space, list(unknown))

    def users_for_item(
        self,
        item_ids: Sequence[Id],
        k: int,
        *,
        filter: Filter | None = None,
        exclude_seen: bool = True,
        attributes: bool | Sequence[str] = True,
    ) -> NeighboursBatch:
        """Find the k users with the highest score for each item."""
        k = at_least_one(k, "k")
        users, items = self.same_space()
        conditions = users.side.translate(filter)
        codec = users.side.codec
        exclude_seen = exclude_seen and SEEN in codec.types
        returned = Returned.of(users.side, attributes)
        payload = returned.reading(*(codec.payload_keys(SEEN) if exclude_seen else []))
        name, field = users.side.field.name, items.side.field
        answers: list[Neighbours | None] = []
        for id, point in zip(item_ids, items.points(item_ids, field.name), strict=True):
            if point is None:
                answers.append(None)
                continue
            vector, bias = point.vectors[field.name], np.float32(0)
            if field.bias is not None:
                vector, bias = vector[:-1], vector[-1]
            hits: list[ScoredPoint] = []
            n = k
            while True:  # the lists of seen items are too long to index
                check_time()
                found = users.nearest(name, vector, n, filter=conditions, payload=payload)
                hits = [hit for hit in found if not (exclude_seen and id in seen_items(users, hit))][:k]
                if len(hits) == k or len(found) < n:
                    break
                n *= _GROWTH
            # Left out of the search, because it is the same for all users.
            hits = [hit._replace(score=float(np.float32(hit.score) + bias)) for hit in hits]
            answers.append(users.neighbours(hits, returned=returned))
        return NeighboursBatch(list(item_ids), answers, users.spec.version, users.spec.space)

    def same_space(self) -> tuple[LiveCollection, LiveCollection]:
        """Return the live users and items; `VersionMismatchError` if their vectors cannot be multiplied."""
        users, items = self.side("user"), self.side("item")
        if users.spec.space != items.spec.space:
            raise VersionMismatchError(
                f"{users.collection} is of space {users.spec.space!r} but {items.collection} is of space "
                f"{items.spec.space!r}; publish one version of the model to get both from one space"
            )
        return users, items
