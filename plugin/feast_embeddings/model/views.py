"""Factories of the feature views for a model's embeddings.

A `FeatureView` subclass does not survive Feast's registry, so these are plain feature views, marked as embedding
views by their schema and tags.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from feast import Entity, FeatureService, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Bool, FeastType, Float32, Float64, Int64, String, UnixTimestamp

from feast_embeddings.artifact import ENTITIES, load_artifact
from feast_embeddings.artifact.attributes import feast_type_name
from feast_embeddings.artifact.history import history_source
from feast_embeddings.codec.collection import BIAS_TAG, UNINDEXED_TAG, UNLINKED_TAG
from feast_embeddings.online.view_tables import MODEL_TAG

__all__ = ["ENTITY_TAG", "MODEL_TAG", "EmbeddingViews", "embedding_views", "view_name"]

ENTITY_TAG = "feast_embeddings.entity"

_FEAST_TYPES: dict[str, FeastType] = {
    "String": String,
    "Int64": Int64,
    "Float64": Float64,
    "Bool": Bool,
    "UnixTimestamp": UnixTimestamp,
    "Array(String)": Array(String),
    "Array(Int64)": Array(Int64),
}
_NOT_FEATURES = {"user_id", "item_id", "embedding", "event_timestamp", "created_timestamp"}
_SIDE_FIELDS = [f"{entity}{part}" for entity in ENTITIES for part in ("", "_source", "_embeddings")]


@dataclass(frozen=True)
class EmbeddingViews:
    """Everything Feast needs to know about one model; None for a side that it does not have."""

    user: Entity | None
    item: Entity | None
    user_source: FileSource | None
    item_source: FileSource | None
    user_embeddings: FeatureView | None
    item_embeddings: FeatureView | None
    service: FeatureService

    def by_name(self) -> dict[str, Entity | FileSource | FeatureView | FeatureService]:
        """Return Feast name -> object, to add to a module's globals, where `feast apply` looks for them."""
        return {f"{kind}_{named.name}": named for kind, named in vars(self).items() if named is not None}


def view_name(model: str, entity: str) -> str:
    """Return the name of the feature view of a model's user or item embeddings."""
    return f"{model}_{entity}_embeddings"


def embedding_views(model: str, data: Path | str) -> EmbeddingViews:
    """Make entities, sources, feature views and a feature service for a trained model.

    Dimensions, id types and attributes are those of the newest version under the data folder, so run `feast apply`
    after a training that changes one of them. A model of only users, or only items, has one view. Views hold
    ``embedding`` (float32, searched by cosine), ``n_interactions``, ``version``, ``space`` and the attributes given at
    training; that of items also ``bias``.
    A user's score for an item is ``user embedding · item embedding + item bias``.

    Raises:
        InputError: no version of the model is under the data folder.

    Stability: stable, see docs/compatibility.md.
    """
    artifact = load_artifact(Path(data), model)
    folder = artifact.path.parent
    made: dict[str, Any] = {}
    for entity in artifact.manifest.sides:
        subject, source, view = _view(model, entity, artifact.schema(entity), artifact.manifest.dim, folder)
        made |= {entity: subject, f"{entity}_source": source, f"{entity}_embeddings": view}
    served = ("embedding", "bias", "version", "space")
    views = [made.get("user_embeddings"), made.get("item_embeddings")]
    sides = " and ".join(artifact.manifest.sides).capitalize()
    service = FeatureService(
        name=f"{model}_embeddings",
        features=[
            view[[name for name in served if any(field.name == name for field in view.features)]]
            for view in views
            if isinstance(view, FeatureView)
        ],
        description=f"{sides} embeddings of model {model}; ask for full feature names",
        tags={MODEL_TAG: model},
    )
    return EmbeddingViews(**dict.fromkeys(_SIDE_FIELDS) | made, service=service)


def _view(model: str, entity: str, schema: pa.Schema, dim: int, folder: Path) -> tuple[Entity, FileSource, FeatureView]:
    join_key = f"{entity}_id"
    is_text = pa.types.is_string(schema.field(join_key).type)
    tags = {MODEL_TAG: model, ENTITY_TAG: entity}
    subject = Entity(
        name=f"{model}_{entity}",
        join_keys=[join_key],
        value_type=ValueType.STRING if is_text else ValueType.INT64,
        tags=tags,
    )
    source = FileSource(
        name=f"{model}_{entity}_history",
        path=history_source(folder, entity),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        tags=tags,
    )
    has_bias = "bias" in schema.names
    fields = [
        Field(name=join_key, dtype=String if is_text else Int64),
        Field(
            name="embedding",
            dtype=Array(Float32),
            vector_index=True,
            vector_length=dim,
            vector_search_metric="cosine",
            tags={BIAS_TAG: "bias"} if has_bias else {},
        ),
    ]
    fields += [_field(column) for column in schema if column.name not in _NOT_FEATURES]
    view = FeatureView(
        name=view_name(model, entity),
        entities=[subject],
        schema=fields,
        source=source,
        # An embedding stays valid until the next version replaces it.
        ttl=timedelta(0),
        online=True,
        description=f"{entity.capitalize()} embeddings of model {model}, one row per {entity} and version",
        tags=tags,
    )
    return subject, source, view


def _field(column: pa.Field) -> Field:
    # Seen items are long lists, version and space are the same for all, and a bias is only for the score.
    tags = {UNINDEXED_TAG: "true"} if column.name in ("bias", "seen_items", "space", "version") else {}
    if column.name == "n_interactions":
        tags = {UNLINKED_TAG: "true"}
    if column.name == "bias":
        return Field(name="bias", dtype=Float32, tags=tags)
    return Field(name=column.name, dtype=_FEAST_TYPES[feast_type_name(column.type)], tags=tags)
