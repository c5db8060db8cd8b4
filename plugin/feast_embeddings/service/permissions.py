"""Check Feast's permissions if a repo has `auth`: from the repo's own project; without any, access is denied."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from feast import FeatureStore
from feast.errors import FeastPermissionError
from feast.permissions.action import AuthzedAction
from feast.permissions.enforcer import enforce_policy
from feast.permissions.security_manager import get_security_manager
from feast.permissions.server.rest import inject_user_details
from feast.permissions.server.utils import (
    AuthManagerType,
    ServerType,
    init_auth_manager,
    init_security_manager,
    str_to_auth_manager_type,
)
from starlette.requests import Request

from feast_embeddings.errors import EngineError
from feast_embeddings.query.store import EmbeddingStore

__all__ = ["FeastUser", "assert_may", "feast_user", "has_feast_auth", "may_read"]

FeastUser = Callable[[Request], AbstractAsyncContextManager[None]]


def has_feast_auth(feature_store: FeatureStore) -> bool:
    """Return whether the repo has `auth`."""
    kind = str_to_auth_manager_type(feature_store.config.auth_config.type)
    return bool(kind != AuthManagerType.NONE)


def feast_user(feature_store: FeatureStore) -> FeastUser | None:
    """Return what gives Feast the user of a request while it runs; None in a repo without `auth`."""
    if not has_feast_auth(feature_store):
        return None
    if get_security_manager() is None:  # Feast's own server has set it already
        config = feature_store.config.auth_config
        kind = str_to_auth_manager_type(config.type)
        init_security_manager(auth_type=kind, fs=feature_store)
        init_auth_manager(auth_type=kind, server_type=ServerType.REST, auth_config=config)

    @asynccontextmanager
    async def user(request: Request) -> AsyncIterator[None]:
        # Without the query string, which Feast would let choose the project.
        bare = Request({**request.scope, "query_string": b""})
        async with asynccontextmanager(inject_user_details)(bare):
            yield

    return user


def may_read(store: EmbeddingStore) -> bool:
    """Return whether the user of this request may see the model."""
    try:
        assert_may(store, AuthzedAction.READ_ONLINE)
    except FeastPermissionError:
        return False
    return True


def assert_may(store: EmbeddingStore, action: AuthzedAction) -> None:
    """Raise Feast's own error unless the user of this request may do the action on both views of the model."""
    feature_store = store.feature_store
    if not has_feast_auth(feature_store):
        return
    manager = get_security_manager()
    user = None if manager is None else manager.current_user
    if user is None:
        raise FeastPermissionError("the user of the request is unknown")
    try:
        permissions = feature_store.registry.list_permissions(project=feature_store.project)
    except Exception as error:  # anything that Feast and its registries raise
        raise EngineError(f"the permissions cannot be read: {error}") from error
    if not permissions:  # Feast would allow everyone
        raise FeastPermissionError(f"project {feature_store.project} has no permission")
    enforce_policy(permissions, user, list(store.views), [action])
