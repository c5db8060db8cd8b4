"""Functions and classes that Feast keeps private."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Any

import pyarrow as pa
from feast import Entity, FeatureStore, FeatureView, RepoConfig, ValueType
from feast.data_source import DataSource
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.infra.online_stores.helpers import compute_versioned_name
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import Value as ValueProto
from feast.type_map import python_values_to_proto_values
from feast.utils import _get_column_names

__all__ = [
    "EntityKeyProto",
    "ValueProto",
    "encode_entity_key",
    "feature_store_with",
    "offline_rows",
    "online_store_of",
    "source_columns",
    "to_value_protos",
    "view_version",
]

# Feast warns that a setting of our template has no effect with a registry in a file. It has: without it, a view is not
# served while it is materialized, whatever the registry.
_WRONG_ADVICE = "`serve_features_while_materializing` is enabled but `registry_type` is"
logging.getLogger("feast.repo_config").addFilter(lambda record: not record.getMessage().startswith(_WRONG_ADVICE))

# Feast's version 3 is the only encoding that can be decoded; older ones are deprecated in Feast.
_KEY_VERSION = 3


def encode_entity_key(key: EntityKeyProto) -> bytes:
    """Return Feast's stable byte encoding of an entity key."""
    return serialize_entity_key(key, entity_key_serialization_version=_KEY_VERSION)


def view_version(config: RepoConfig, view: FeatureView) -> int:
    """Return the version of a view that selects its online table; 0 if Feast's versioning is off."""
    versioned = bool(config.registry.enable_online_feature_view_versioning)
    suffix = str(compute_versioned_name(view, versioned)).removeprefix(view.name)
    return int(suffix.removeprefix("_v") or 0)


def online_store_of(feature_store: FeatureStore) -> OnlineStore:
    """Return the online store that a feature store reads from and writes to."""
    provider: Any = feature_store._get_provider()
    store: OnlineStore = provider.online_store
    return store


def feature_store_with(config: RepoConfig, online: OnlineStore) -> FeatureStore:
    """Return a feature store of a repo's configuration that shares an online store that is open."""
    feature_store = FeatureStore(repo_path=str(config.repo_path or "."), config=config)
    provider: Any = feature_store._get_provider()
    provider._online_store = online
    return feature_store


def source_columns(view: FeatureView, entities: list[Entity]) -> tuple[list[str], list[str], str, str | None]:
    """Return the columns in the view's batch source of the join keys, features, event and created timestamps."""
    join_keys, features, timestamp, created = _get_column_names(view, entities)
    return join_keys, features, timestamp, created or None


def offline_rows(feature_store: FeatureStore, source: DataSource, start: datetime, end: datetime) -> pa.Table:
    """Read all columns of a data source through the repo's offline store, with its timestamp between the two."""
    provider: Any = feature_store._get_provider()
    created = source.created_timestamp_column or None
    others = [name for name, _ in source.get_table_column_names_and_types(feature_store.config)]
    job = provider.offline_store.pull_all_from_table_or_query(
        config=feature_store.config,
        data_source=source,
        join_key_columns=[],
        feature_name_columns=[name for name in others if name not in (source.timestamp_field, created)],
        timestamp_field=source.timestamp_field,
        created_timestamp_column=created,
        start_date=start,
        end_date=end,
    )
    table: pa.Table = job.to_arrow()
    return table


def to_value_protos(column: pa.Array, value_type: ValueType) -> list[ValueProto]:
    """Convert a column by Feast's own conversion; raises Feast's errors for values of a wrong type."""
    if _has_mappings(column.type):
        return list(python_values_to_proto_values(column.to_pylist(maps_as_pydicts="strict"), value_type))
    return list(python_values_to_proto_values(column.to_numpy(zero_copy_only=False), value_type))


def _has_mappings(dtype: pa.DataType) -> bool:
    if pa.types.is_map(dtype) or pa.types.is_struct(dtype):
        return True
    return pa.types.is_nested(dtype) and _has_mappings(dtype.value_type)
