"""Factories of the feature views for a model's embeddings.

A `FeatureView` subclass does not survive Feast's registry, so these are plain feature views, marked as embedding
views by their schema and tags.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
from feast import Entity, FeatureService, FeatureView, Field, FileSource
from feast.data_format import ParquetFormat
from feast.data_source import DataSource, KafkaSource, KinesisSource, PushSource, RequestSource
from feast.types import Array, Bool, FeastType, Float32, Float64, Int64, String, UnixTimestamp, from_value_type

from feast_embeddings.artifact import ENTITIES, Artifact, load_artifact
from feast_embeddings.artifact import Entity as Side
from feast_embeddings.artifact.attributes import CONTENT_EMBEDDING, feast_type_name
from feast_embeddings.artifact.history import history_source
from feast_embeddings.artifact.seen import NEXT_TO_SEEN
from feast_embeddings.codec.collection import BIAS_TAG, SCANNED_TAG, UNINDEXED_TAG, UNLINKED_TAG
from feast_embeddings.errors import InputError
from feast_embeddings.model.entities import entity_for
from feast_embeddings.online.view_tables import ENTITY_TAG, MODEL_TAG

__all__ = [
    "ENTITY_TAG",
    "HISTORY_TAG",
    "MODEL_TAG",
    "EmbeddingViews",
    "check_source",
    "embedding_views",
    "id_name",
    "reads_given_source",
    "view_name",
]

# Of views whose source the repo gave: publishing writes their history there. Its value is the source's name.
HISTORY_TAG = "feast_embeddings.history"

_FEAST_TYPES: dict[str, FeastType] = {
    "String": String,
    "Int64": Int64,
    "Float64": Float64,
    "Bool": Bool,
    "UnixTimestamp": UnixTimestamp,
    "Array(String)": Array(String),
    "Array(Int64)": Array(Int64),
}
# Weights and times of what was seen come and go with the log; views would have to change with them.
_NO_ATTRIBUTES = {"embedding", CONTENT_EMBEDDING, *NEXT_TO_SEEN, "event_timestamp", "created_timestamp"}
_SIDE_FIELDS = [f"{entity}{part}" for entity in ENTITIES for part in ("", "_source", "_embeddings")]


@dataclass(frozen=True)
class EmbeddingViews:
    """Everything Feast needs to know about one model; None for a side that it does not have."""

    user: Entity | None
    item: Entity | None
    user_source: DataSource | None
    item_source: DataSource | None
    user_embeddings: FeatureView | None
    item_embeddings: FeatureView | None
    service: FeatureService

    def by_name(self) -> dict[str, Entity | DataSource | FeatureView | FeatureService]:
        """Return Feast name -> object, to add to a module's globals, where `feast apply` looks for them."""
        return {f"{kind}_{named.name}": named for kind, named in vars(self).items() if named is not None}


def view_name(model: str, entity: str) -> str:
    """Return the name of the feature view of a model's user or item embeddings."""
    return f"{model}_{entity}_embeddings"


def id_name(view: FeatureView) -> str:
    """Return the name of the column of ids: the join key of the view's only entity."""
    (name,) = view.join_keys
    return name


def reads_given_source(view: FeatureView) -> bool:
    """Return whether a model's view reads a source that the repo gave, and not the files that training writes."""
    return HISTORY_TAG in view.tags


def embedding_views(
    model: str,
    data: Path | str,
    *,
    user_entity: Entity | None = None,
    item_entity: Entity | None = None,
    user_source: DataSource | None = None,
    item_source: DataSource | None = None,
    ttl: timedelta = timedelta(0),
    tags: Mapping[str, str] | None = None,
    owner: str = "",
    description: str = "",
) -> EmbeddingViews:
    """Make entities, sources, feature views and a feature service for a trained model.

    Dimensions, id types and attributes come from the newest version under the data folder, so run `feast apply`
    after a training that changes one of them. A model of only users, or only items, has one view. Views hold
    ``embedding`` (float32, searched by cosine), ``n_interactions``, ``version``, ``space`` and the attributes given at
    training; the items' view also ``bias``, and views with content ``content_embedding``.
    A user's score for an item is ``user embedding · item embedding + item bias``.

    Args:
        user_entity, item_entity: entities that the repo has already. The views then have their join keys, and the
            group returns them unchanged. One for a side that the model does not have is not used. Without one, the
            entity is ``<model>_user`` with the join key ``user_id``, and likewise for items.
        user_source, item_source: tables of the repo's offline store that the views read instead of the files that
            training writes, such as a ``PostgreSQLSource``. Publishing a version writes it there first. Their columns
            are the join key, the features of the view, the timestamp field and, if the source names one, the created
            timestamp column.
        ttl: how long after the time of its newest interaction a version is valid for Feast's reads and for training
            frames; 0 for ever.
        tags, owner: of everything made, in addition to this package's own tags.
        description: of the views and the service, instead of one made from the name of the model.

    Raises:
        InputError: no version of the model is under the data folder, or an entity does not fit its ids, or a
            source cannot be written, or both sides share it.

    Stability: stable, see docs/compatibility.md.
    """
    if not isinstance(ttl, timedelta) or ttl < timedelta(0):
        raise InputError(f"ttl={ttl!r}: expected a timedelta of 0 or more")
    if not isinstance(tags, Mapping | None) or not all(
        isinstance(text, str) for pair in (tags or {}).items() for text in pair
    ):
        raise InputError(f"tags={tags!r:.80}: expected names and values that are text")
    if taken := sorted(name for name in tags or {} if name in (MODEL_TAG, ENTITY_TAG, HISTORY_TAG)):
        raise InputError(f"the tag {taken[0]!r} is this package's own; leave it out")
    given = {"user": user_entity, "item": item_entity}
    sources = {"user": user_source, "item": item_source}
    if user_source is not None and item_source is not None and _table_of(user_source) == _table_of(item_source):
        raise InputError(
            f"user_source and item_source of model {model!r} are one table, {user_source.name!r}; users and items have "
            "other columns, so give each a separate table"
        )
    artifact = load_artifact(Path(data), model)
    ours = {**(tags or {}), MODEL_TAG: model}
    made: dict[str, Any] = {}
    for entity in artifact.manifest.sides:
        about: dict[str, Any] = {"tags": ours | {ENTITY_TAG: entity}, "owner": owner}
        subject, id_type = entity_for(artifact, entity, given[entity], **about)
        source = sources[entity]
        if source is None:
            source = _source(artifact, entity, subject.join_key, **about)
        else:
            check_source(f"{entity}_source of model {model!r}", source)
            about["tags"] |= {HISTORY_TAG: source.name}
        view = FeatureView(
            name=view_name(model, entity),
            entities=[subject],
            schema=[Field(name=subject.join_key, dtype=from_value_type(id_type)), *_features(artifact, entity)],
            source=source,
            ttl=ttl,
            online=True,
            description=description
            or f"{entity.capitalize()} embeddings of model {model}, one row per {entity} and version",
            **about,
        )
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
        description=description or f"{sides} embeddings of model {model}; ask for full feature names",
        tags=ours,
        owner=owner,
    )
    return EmbeddingViews(**dict.fromkeys(_SIDE_FIELDS) | made, service=service)


def _source(artifact: Artifact, entity: str, join_key: str, **about: Any) -> FileSource:
    """Make the source of the history, whose column of ids is renamed to the join key."""
    return FileSource(
        name=f"{artifact.manifest.model}_{entity}_history",
        path=history_source(artifact.path.parent, entity),
        file_format=ParquetFormat(),
        timestamp_field="event_timestamp",
        created_timestamp_column="created_timestamp",
        field_mapping={} if join_key == f"{entity}_id" else {f"{entity}_id": join_key},
        **about,
    )


def _table_of(source: DataSource) -> tuple[str, str]:
    """Return what two sources of one table have in common."""
    table = getattr(source, "path", "") or getattr(source, "table", "") or source.name
    return type(source).__name__, str(table).rstrip("/")


def check_source(where: str, source: DataSource) -> None:
    """Raise `InputError` unless a source is a table of the offline store with a timestamp field."""
    if not isinstance(source, DataSource) or isinstance(
        source, PushSource | KafkaSource | KinesisSource | RequestSource
    ):
        raise InputError(
            f"{where}: expected a table of the offline store, such as a PostgreSQLSource, got {type(source).__name__}"
        )
    if not source.timestamp_field:
        raise InputError(f"{where}, {source.name!r}: it has no timestamp_field; name the column for event_timestamp")


def _features(artifact: Artifact, entity: Side) -> Iterator[Field]:
    schema = artifact.schema(entity)
    yield Field(
        name="embedding",
        dtype=Array(Float32),
        vector_index=True,
        vector_length=artifact.manifest.dim,
        vector_search_metric="cosine",
        tags={BIAS_TAG: "bias"} if "bias" in schema.names else {},
    )
    if CONTENT_EMBEDDING in schema.names:
        # Feast allows a view one vector only that it searches itself.
        tags = {SCANNED_TAG: str(artifact.manifest.dim)}
        yield Field(name=CONTENT_EMBEDDING, dtype=Array(Float32), tags=tags)
    yield from (_field(column) for column in schema if column.name not in {f"{entity}_id", *_NO_ATTRIBUTES})


def _field(column: pa.Field) -> Field:
    # Seen items are long lists, version and space are the same for all, and a bias is only for the score.
    tags = {UNINDEXED_TAG: "true"} if column.name in ("bias", "seen_items", "space", "version") else {}
    if column.name == "n_interactions":
        tags = {UNLINKED_TAG: "true"}
    if column.name == "bias":
        return Field(name="bias", dtype=Float32, tags=tags)
    return Field(name=column.name, dtype=_FEAST_TYPES[feast_type_name(column.type)], tags=tags)
