"""The only module that touches what Feast keeps private, so that an upgrade of Feast has one place to check."""

from __future__ import annotations

from typing import Any

from feast import FeatureStore, FeatureView, RepoConfig
from feast.infra.key_encoding_utils import deserialize_entity_key, serialize_entity_key
from feast.infra.online_stores.helpers import compute_table_id
from feast.infra.online_stores.online_store import OnlineStore
from feast.protos.feast.types.EntityKey_pb2 import EntityKey as EntityKeyProto
from feast.protos.feast.types.Value_pb2 import Value as ValueProto

__all__ = [
    "EntityKeyProto",
    "ValueProto",
    "decode_entity_key",
    "encode_entity_key",
    "online_store_of",
    "table_id",
]

# Feast's version 3 is the only encoding that can be decoded again; older ones are deprecated there.
_KEY_VERSION = 3


def encode_entity_key(key: EntityKeyProto) -> bytes:
    """Feast's stable byte encoding of an entity key."""
    return serialize_entity_key(key, entity_key_serialization_version=_KEY_VERSION)


def decode_entity_key(raw: bytes) -> EntityKeyProto:
    """The entity key that `encode_entity_key` was given."""
    return deserialize_entity_key(raw, entity_key_serialization_version=_KEY_VERSION)


def table_id(config: RepoConfig, view: FeatureView) -> str:
    """Feast's name for the online table of a view: project, view and, where enabled, the view's version."""
    versioned = bool(config.registry.enable_online_feature_view_versioning)
    return str(compute_table_id(config.project, view, versioned))


def online_store_of(feature_store: FeatureStore) -> OnlineStore:
    """The online store that a feature store reads from and writes to."""
    provider: Any = feature_store._get_provider()
    store: OnlineStore = provider.online_store
    return store
