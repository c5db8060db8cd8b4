"""The users and items of a model, as the registry and the online store have them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import pyarrow as pa
from feast import FeatureStore, FeatureView, ValueType
from feast.errors import FeatureViewNotFoundException
from feast.filter_models import ComparisonFilter, CompoundFilter
from qdrant_client import models

from feast_embeddings._feast.private import online_store_of
from feast_embeddings.arguments import Id
from feast_embeddings.artifact import ENTITIES, Entity
from feast_embeddings.artifact.attributes import RESERVED_COLUMNS
from feast_embeddings.codec.collection import same_join_keys
from feast_embeddings.codec.filter_text import parse_filter
from feast_embeddings.codec.filters import QdrantFilterTranslator
from feast_embeddings.codec.rows import PointCodec
from feast_embeddings.engines.engine import CollectionSpec, PointId
from feast_embeddings.errors import IdTypeError, InputError, MissingSideError
from feast_embeddings.model.views import id_name, view_name
from feast_embeddings.online.store import QdrantEmbeddingOnlineStore
from feast_embeddings.online.table_names import table_id

__all__ = [
    "Filter",
    "Side",
    "join_keys",
    "missing_side",
    "model_view",
    "model_views",
    "qdrant_store",
    "side_of",
    "sides_of",
]

Filter = str | ComparisonFilter | CompoundFilter

Rows = TypeVar("Rows", pa.Table, pa.RecordBatch)


class Side:
    """The users or the items of a registered model, whatever version is live.

    Args:
        codec: encodes the rows of its feature view.
        alias: the alias of its live collection.
    """

    def __init__(self, entity: Entity, codec: PointCodec, alias: str) -> None:
        self.entity = entity
        self.codec = codec
        self.view = codec.view
        self.alias = alias
        self.id_name = id_name(self.view)
        self.field = codec.fields["embedding"]
        self._is_text = codec.types[self.id_name] == ValueType.STRING
        self._attributes = {
            name: value_type
            for name, value_type in codec.types.items()
            if name != self.id_name and name not in RESERVED_COLUMNS
        }

    @property
    def attribute_names(self) -> list[str]:
        """The attributes given at training, in the order of the view."""
        return list(self._attributes)

    def names(self, columns: Sequence[str]) -> list[str]:
        """Return the names in the view of the columns of a version's table."""
        return [self.id_name if name == f"{self.entity}_id" else name for name in columns]

    def renamed(self, rows: Rows) -> Rows:
        """Return rows of a version's table with the names of the view, which `codec` encodes."""
        return rows.rename_columns(self.names(rows.schema.names))

    def fits(self, spec: CollectionSpec) -> bool:
        """Return whether a collection was loaded for the join key of this view."""
        return same_join_keys(self.view, spec)

    def point_ids(self, ids: Iterable[Id]) -> list[PointId]:
        """Return the point ids of these users or items; `IdTypeError` for an id that this model cannot have."""
        plain = list(ids)
        for id in plain:
            if isinstance(id, bool) or not isinstance(id, str if self._is_text else int):
                kind = "text" if self._is_text else "a whole number"
                raise IdTypeError(
                    f"{self.entity} ids of this model are {kind}, got {id!r} ({type(id).__name__})", self.entity, id
                )
        try:
            return self.codec.point_ids_of(plain)
        except ValueError:
            if len(plain) > 1:
                return [self.point_ids([id])[0] for id in plain]  # to name the invalid one
            expected = "valid Unicode" if self._is_text else "64-bit whole numbers"
            raise IdTypeError(
                f"{self.entity} ids of this model are {expected}, got {plain[0]!r}", self.entity, plain[0]
            ) from None

    def possible(self, ids: Iterable[Id]) -> list[Id]:
        """Return the ids that have the type of this model's ids; ids on disk may have an earlier type."""
        kind = str if self._is_text else int
        return [id for id in ids if isinstance(id, kind)]

    def parse_id(self, text: str) -> Id:
        """Convert an id from text; `IdTypeError` if this model cannot have it."""
        if self._is_text:
            return text
        # Python also reads 007, 1_0 and digits of all scripts as numbers, which would be different ids.
        with contextlib.suppress(ValueError):
            if str(number := int(text)) == text:
                return number
        raise IdTypeError(
            f"{self.entity} ids of this model are whole numbers, got {text!r:.80}; they are written as 7 or -7",
            self.entity,
            text,
        )

    def translate(self, filter: Filter | None) -> models.Filter | None:
        """Translate a filter to Qdrant's. ``user_id`` and ``item_id`` are the ids, whatever the join key's name."""
        tree = parse_filter(filter) if isinstance(filter, str) else filter
        names = {f"{self.entity}_id": self.id_name}
        return QdrantFilterTranslator(self.codec.types, names, self.codec.whole).translate(tree)

    def attributes(self, payload: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
        """Return these attributes of a payload, None for a missing one."""
        return {
            name: datetime.fromtimestamp(payload[name], UTC)
            if self._attributes[name] == ValueType.UNIX_TIMESTAMP and name in payload
            else self.codec.native(name, payload)
            for name in names
        }


def qdrant_store(feature_store: FeatureStore) -> QdrantEmbeddingOnlineStore:
    """Return the repo's online store, if it is ours.

    Raises:
        InputError: the repo uses a different online store.
    """
    store = online_store_of(feature_store)
    if not isinstance(store, QdrantEmbeddingOnlineStore):
        configured = feature_store.config.online_store.type
        raise InputError(
            f"this needs the Qdrant store itself, but online_store.type is {configured!r}: "
            + (
                "the vectors are behind a Feast server; use that server's repo, or run feast-embeddings serve there"
                if configured == "remote"
                else "set it to feast_embeddings.QdrantEmbeddingOnlineStore in feature_store.yaml and run feast apply"
            )
        )
    return store


def missing_side(model: str, entity: Entity) -> MissingSideError:
    """Return the error for a question about a side that a model does not have."""
    other = "items" if entity == "user" else "users"
    return MissingSideError(f"model {model!r} has no {entity}s: its versions have vectors of {other} only")


def model_views(feature_store: FeatureStore, model: str) -> dict[Entity, FeatureView]:
    """Return the registered feature views of a model: of its users and items, or of one of them.

    Raises:
        InputError: none is registered.
    """
    views: dict[Entity, FeatureView] = {}
    for entity in ENTITIES:
        with contextlib.suppress(FeatureViewNotFoundException):
            views[entity] = feature_store.get_feature_view(view_name(model, entity))
    if not views:
        raise InputError(
            f"the feature views of model {model!r} are not in the registry of project {feature_store.project!r}; "
            "run feast apply in the repo"
        )
    return views


def join_keys(views: Mapping[Entity, FeatureView]) -> dict[Entity, str]:
    """Return the names of the id columns of users and items: the join keys of a model's registered views."""
    return {entity: id_name(views[entity]) if entity in views else f"{entity}_id" for entity in ENTITIES}


def model_view(feature_store: FeatureStore, model: str, entity: Entity) -> FeatureView:
    """Return the registered feature view of a model's users or items.

    Raises:
        InputError: it is not registered.
        MissingSideError: only the other side's is.
    """
    views = model_views(feature_store, model)
    if entity not in views:
        raise missing_side(model, entity)
    return views[entity]


def sides_of(feature_store: FeatureStore, model: str) -> dict[Entity, Side]:
    """Return the users and items of a model, or the one of them that it has.

    Raises:
        InputError: they are not registered, or the repo uses a different online store.
    """
    store, config = qdrant_store(feature_store), feature_store.config
    views = model_views(feature_store, model)
    return {entity: Side(entity, store.codec(config, view), table_id(config, view)) for entity, view in views.items()}


def side_of(feature_store: FeatureStore, model: str, entity: Entity) -> Side:
    """Return the users or the items of a model.

    Raises:
        InputError: they are not registered, or the repo uses a different online store.
        MissingSideError: only the other side's are.
    """
    sides = sides_of(feature_store, model)
    if entity not in sides:
        raise missing_side(model, entity)
    return sides[entity]
