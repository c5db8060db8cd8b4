"""Feast's permissions, where a repo's `auth` asks for them: enforced as by Feast's own servers."""

from __future__ import annotations

from fastapi import Depends
from fastapi.params import Depends as Dependency
from feast import FeatureStore
from feast.errors import FeastPermissionError
from feast.permissions.action import AuthzedAction
from feast.permissions.security_manager import assert_permissions, get_security_manager
from feast.permissions.server.rest import inject_user_details
from feast.permissions.server.utils import (
    AuthManagerType,
    ServerType,
    init_auth_manager,
    init_security_manager,
    str_to_auth_manager_type,
)

from feast_embeddings.embedding_store import EmbeddingStore

__all__ = ["assert_may", "feast_auth", "has_feast_auth", "may_read"]


def has_feast_auth(feature_store: FeatureStore) -> bool:
    """Whether the repo asks who somebody is."""
    kind = str_to_auth_manager_type(feature_store.config.auth_config.type)
    return bool(kind != AuthManagerType.NONE)


def feast_auth(feature_store: FeatureStore) -> list[Dependency]:
    """What each route needs so that Feast knows its user; nothing in a repo without `auth`."""
    if not has_feast_auth(feature_store):
        return []
    if get_security_manager() is None:  # inside Feast's own server it is there already
        config = feature_store.config.auth_config
        kind = str_to_auth_manager_type(config.type)
        init_security_manager(auth_type=kind, fs=feature_store)
        init_auth_manager(auth_type=kind, server_type=ServerType.REST, auth_config=config)
    return [Depends(inject_user_details)]


def may_read(store: EmbeddingStore) -> bool:
    """Whether the user of this request may know of the model."""
    try:
        assert_may(store, AuthzedAction.READ_ONLINE)
    except FeastPermissionError:
        return False
    return True


def assert_may(store: EmbeddingStore, action: AuthzedAction) -> None:
    """Raise Feast's own error unless the user of this request may do this with both views of the model."""
    if get_security_manager() is not None:
        for view in store.views:
            assert_permissions(resource=view, actions=[action])
