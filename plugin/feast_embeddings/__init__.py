"""Train user and item embeddings, serve them as Feast feature views, and query them in Qdrant."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from feast_embeddings.artifact import trained_models
    from feast_embeddings.errors import EmbeddingsError
    from feast_embeddings.features.embedding_columns import EmbeddingColumns
    from feast_embeddings.features.embedding_features import EmbeddingFeatures
    from feast_embeddings.model.interactions import interactions_view
    from feast_embeddings.model.views import embedding_views
    from feast_embeddings.online.compute_engine import ArrowComputeEngine, ArrowComputeEngineConfig
    from feast_embeddings.online.registry_store import AtomicFileRegistryStore
    from feast_embeddings.online.routed_store import RoutedOnlineStore, RoutedOnlineStoreConfig
    from feast_embeddings.online.store import QdrantEmbeddingOnlineStore, QdrantEmbeddingOnlineStoreConfig
    from feast_embeddings.publish.gates import Gates
    from feast_embeddings.publish.run import publish_artifact
    from feast_embeddings.query.store import EmbeddingStore

__all__ = [
    "ArrowComputeEngine",
    "ArrowComputeEngineConfig",
    "AtomicFileRegistryStore",
    "EmbeddingColumns",
    "EmbeddingFeatures",
    "EmbeddingStore",
    "EmbeddingsError",
    "Gates",
    "QdrantEmbeddingOnlineStore",
    "QdrantEmbeddingOnlineStoreConfig",
    "RoutedOnlineStore",
    "RoutedOnlineStoreConfig",
    "embedding_views",
    "interactions_view",
    "publish_artifact",
    "trained_models",
]

# Loaded on first use: importing Feast takes seconds, and a trainer that only writes artifacts does not need it.
_HOME = {
    "ArrowComputeEngine": "online.compute_engine",
    "ArrowComputeEngineConfig": "online.compute_engine",
    "AtomicFileRegistryStore": "online.registry_store",
    "EmbeddingColumns": "features.embedding_columns",
    "EmbeddingFeatures": "features.embedding_features",
    "EmbeddingStore": "query.store",
    "EmbeddingsError": "errors",
    "Gates": "publish.gates",
    "QdrantEmbeddingOnlineStore": "online.store",
    "QdrantEmbeddingOnlineStoreConfig": "online.store",
    "RoutedOnlineStore": "online.routed_store",
    "RoutedOnlineStoreConfig": "online.routed_store",
    "embedding_views": "model.views",
    "interactions_view": "model.interactions",
    "publish_artifact": "publish.run",
    "trained_models": "artifact",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"feast_embeddings.{_HOME[name]}"), name)
