"""The Python interface: similar users, similar items, ranking, vectors by id, training frames."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from feast import FeatureStore, ValueType
from feast.filter_models import ComparisonFilter, CompoundFilter
from qdrant_client import models

from feast_embeddings._feast import table_id
from feast_embeddings.answers import Embeddings, Id, Neighbours
from feast_embeddings.artifact import Entity
from feast_embeddings.attributes import RESERVED_COLUMNS
from feast_embeddings.engine import TIMESTAMP_KEY, CollectionSpec, PointId, StoredPoint
from feast_embeddings.errors import InputError, NotPublishedError, UnknownIdError, VersionMismatchError
from feast_embeddings.filters import QdrantFilterTranslator, parse_filter
from feast_embeddings.points import PointCodec, from_microseconds, native_value
from feast_embeddings.publish import model_view, qdrant_store
from feast_embeddings.training_frame import training_frame

__all__ = ["EmbeddingStore", "Filter"]

Filter = str | ComparisonFilter | CompoundFilter


class EmbeddingStore:
    """Queries over the live version of one model.

    Each call answers from one version, whatever is published meanwhile.

    Args:
        feature_store: a repo whose online store is `QdrantEmbeddingOnlineStore`.
        model: name of a trained and applied model.

    Raises:
        InputError: the model's feature views are not registered, or the online store is another one.
    """

    def __init__(self, feature_store: FeatureStore, model: str) -> None:
        self.feature_store = feature_store
        self.model = model
        config, store = feature_store.config, qdrant_store(feature_store)
        self._engine = store.engine(config)
        self._sides = {
            entity: _Side(entity, store.codec(config, view), table_id(config, view))
            for entity in ("user", "item")
            if (view := model_view(feature_store, model, entity))
        }

    def similar_items(self, item_id: Id, k: int = 10, *, filter: Filter | None = None) -> Neighbours:
        """The k items nearest to an item by cosine, without the item itself.

        Args:
            filter: condition on attributes, e.g. ``"category = 'Books' AND price < 20"``, or a Feast filter.

        Raises:
            UnknownIdError: the live version has no such item.
            FilterError: the filter cannot be understood or applied.
            NotPublishedError: no version is live.
        """
        return self._similar("item", item_id, k, filter)

    def similar_users(self, user_id: Id, k: int = 10, *, filter: Filter | None = None) -> Neighbours:
        """The k users nearest to a user by cosine, without the user; see `similar_items`."""
        return self._similar("user", user_id, k, filter)

    def rank(self, user_id: Id, k: int = 10, *, filter: Filter | None = None, include_seen: bool = False) -> Neighbours:
        """The k items with the highest score for a user: ``user · item + item bias``.

        Args:
            filter: condition on item attributes.
            include_seen: whether items that the user interacted with in training may be among them.

        Raises:
            UnknownIdError: the live version has no such user.
            VersionMismatchError: users and items are of different spaces; no score would mean anything.
            FilterError, NotPublishedError: as in `similar_items`.
        """
        live = self._live("user", "item")
        (users, user_spec), (items, item_spec) = live["user"], live["item"]
        if user_spec.space != item_spec.space:
            raise VersionMismatchError(
                f"{users} is of space {user_spec.space!r} but {items} is of space {item_spec.space!r}; "
                "publish one version of the model to get both from one space"
            )
        user_side, item_side = self._sides["user"], self._sides["item"]
        field = item_side.field
        user = self._one(users, user_side, user_id, user_side.field.name, user_spec)
        query = user.vectors[user_side.field.name]
        if field.bias is not None:
            query = np.append(query, np.float32(1))
        seen = [] if include_seen else user.payload.get("seen_items", [])
        excluded = [item_side.point_id(id) for id in seen]
        return self._search("item", items, item_spec, field.name, query, k, filter, excluded)

    def user_embeddings(self, user_ids: Sequence[Id]) -> Embeddings:
        """The vectors of these users, float32, bit for bit as trained."""
        return self._embeddings("user", user_ids)

    def item_embeddings(self, item_ids: Sequence[Id]) -> Embeddings:
        """The vectors of these items without the bias, float32, bit for bit as trained."""
        return self._embeddings("item", item_ids)

    def training_frame(self, entity_df: pd.DataFrame) -> pd.DataFrame:
        """Join to each row the embeddings that existed at its time; see `feast_embeddings.training_frame`."""
        return training_frame(self.feature_store, self.model, entity_df)

    def parse_id(self, entity: Entity, text: str) -> Id:
        """An id given as text, in the type that the model's ids have.

        Raises:
            InputError: the ids are whole numbers and this is not one.
        """
        return self._sides[entity].parse_id(text)

    def live_version(self) -> str | None:
        """The version that queries answer from, or None when none is live."""
        try:
            return self._live("item")["item"][1].version
        except NotPublishedError:
            return None

    def _similar(self, entity: Entity, id: Id, k: int, filter: Filter | None) -> Neighbours:
        side, (collection, spec) = self._sides[entity], self._live(entity)[entity]
        name = side.field.search_name
        point = self._one(collection, side, id, name, spec)
        return self._search(entity, collection, spec, name, point.vectors[name], k, filter, [point.id])

    def _search(
        self,
        entity: Entity,
        collection: str,
        spec: CollectionSpec,
        vector_name: str,
        vector: npt.NDArray[np.float32],
        k: int,
        filter: Filter | None,
        excluded: Sequence[PointId],
    ) -> Neighbours:
        if k < 1:
            raise InputError(f"k must be at least 1, got {k}")
        side = self._sides[entity]
        conditions = models.Filter(
            must=[condition] if (condition := side.translate(filter)) else None,
            must_not=[models.HasIdCondition(has_id=list(excluded))] if excluded else None,
        )
        hits = self._engine.query(collection, vector_name, vector, limit=k, filter=conditions)
        return Neighbours(
            id_name=side.id_name,
            ids=[hit.payload[side.id_name] for hit in hits],
            scores=np.array([hit.score for hit in hits], dtype=np.float32),
            attributes=[side.attributes(hit.payload) for hit in hits],
            version=spec.version,
        )

    def _embeddings(self, entity: Entity, ids: Sequence[Id]) -> Embeddings:
        side, (collection, spec) = self._sides[entity], self._live(entity)[entity]
        field = side.field
        points = self._engine.retrieve(collection, [side.point_id(id) for id in ids], vectors=[field.name])
        dim = spec.vectors[field.name].size - (field.bias is not None)
        vectors = np.full((len(ids), dim), np.nan, dtype=np.float32)
        for row, point in zip(vectors, points, strict=True):
            if point is not None:
                row[:] = point.vectors[field.name][:dim]
        return Embeddings(
            ids=list(ids),
            vectors=vectors,
            found=np.array([point is not None for point in points], dtype=np.bool_),
            event_timestamps=[
                None if point is None else from_microseconds(point.payload[TIMESTAMP_KEY]) for point in points
            ],
            version=spec.version,
            space=spec.space,
            as_of=spec.as_of,
        )

    def _live(self, *entities: Entity) -> dict[Entity, tuple[str, CollectionSpec]]:
        """Live collection and what it holds, for all these sides out of one look at the aliases."""
        aliases = self._engine.aliases()
        live: dict[Entity, tuple[str, CollectionSpec]] = {}
        for entity in entities:
            collection = aliases.get(self._sides[entity].alias)
            if collection is None:
                raise NotPublishedError(
                    f"no version of model {self.model!r} is live: run feast-embeddings publish --model {self.model}"
                )
            live[entity] = collection, self._engine.describe(collection)
        return live

    def _one(self, collection: str, side: _Side, id: Id, vector_name: str, spec: CollectionSpec) -> StoredPoint:
        (point,) = self._engine.retrieve(collection, [side.point_id(id)], vectors=[vector_name])
        if point is None or vector_name not in point.vectors:
            raise UnknownIdError(
                f"{side.entity} {id!r} has no embedding in version {spec.version} of model {self.model!r}"
            )
        return point


class _Side:
    """What the queries need to know about the users or the items of a model."""

    def __init__(self, entity: Entity, codec: PointCodec, alias: str) -> None:
        self.entity = entity
        self.codec = codec
        self.alias = alias
        self.id_name = f"{entity}_id"
        self.field = codec.fields["embedding"]
        self._is_text = codec.types[self.id_name] == ValueType.STRING

    def point_id(self, id: Id) -> PointId:
        if isinstance(id, np.generic):
            id = id.item()
        if isinstance(id, bool) or not isinstance(id, str if self._is_text else int):
            kind = "text" if self._is_text else "a whole number"
            raise InputError(f"{self.entity} ids of this model are {kind}, got {id!r} ({type(id).__name__})")
        try:
            return self.codec.point_id_of(id)
        except ValueError:
            expected = "valid Unicode" if self._is_text else "64-bit whole numbers"
            raise InputError(f"{self.entity} ids of this model are {expected}, got {id!r}") from None

    def parse_id(self, text: str) -> Id:
        if self._is_text:
            return text
        try:
            return int(text)
        except ValueError:
            raise InputError(f"{self.entity} ids of this model are whole numbers, got {text!r}") from None

    def translate(self, filter: Filter | None) -> models.Filter | None:
        tree = parse_filter(filter) if isinstance(filter, str) else filter
        return QdrantFilterTranslator(self.codec.types).translate(tree)

    def attributes(self, payload: dict[str, Any]) -> dict[str, Any]:
        return {
            name: datetime.fromtimestamp(payload[name], UTC)
            if value_type == ValueType.UNIX_TIMESTAMP and name in payload
            else native_value(name, payload)
            for name, value_type in self.codec.types.items()
            if name not in RESERVED_COLUMNS
        }
