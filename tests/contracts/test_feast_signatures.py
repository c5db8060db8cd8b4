"""Every public method of our store can be called as Feast calls the one that it overrides."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
from feast.infra.online_stores.online_store import OnlineStore

from feast_embeddings.online.store import QdrantEmbeddingOnlineStore

OVERRIDDEN = sorted(
    name for name in vars(QdrantEmbeddingOnlineStore) if not name.startswith("_") and hasattr(OnlineStore, name)
)
# What Feast needs of a store in addition to reads and writes by key.
EXPECTED = {
    "async_supported",
    "close",
    "initialize",
    "online_read",
    "online_read_async",
    "online_write_batch",
    "online_write_batch_async",
    "retrieve_online_documents",
    "retrieve_online_documents_v2",
    "teardown",
    "update",
}


def test_the_whole_contract_is_there() -> None:
    """No abstract method is left, and all that can be overridden to some purpose is."""
    assert set(OVERRIDDEN) == EXPECTED
    assert not inspect.isabstract(QdrantEmbeddingOnlineStore)


@pytest.mark.parametrize("name", OVERRIDDEN)
def test_the_signature_is_feasts(name: str) -> None:
    """Same parameters in the same order, of the same kind and with the same defaults; more only as keywords."""
    theirs: Any = inspect.getattr_static(OnlineStore, name)
    ours: Any = inspect.getattr_static(QdrantEmbeddingOnlineStore, name)
    assert type(ours) is type(theirs)
    if isinstance(theirs, property):
        return
    assert inspect.iscoroutinefunction(ours) == inspect.iscoroutinefunction(theirs)
    expected = list(inspect.signature(theirs).parameters.values())
    actual = list(inspect.signature(ours).parameters.values())
    shared = actual[: len(expected)]
    assert [(p.name, p.kind, p.default) for p in shared] == [(p.name, p.kind, p.default) for p in expected]
    assert all(p.kind == inspect.Parameter.VAR_KEYWORD for p in actual[len(expected) :])
