"""From a model's name to what Feast's registry and the repo's online store say about it."""

from __future__ import annotations

from feast import FeatureStore, FeatureView
from feast.errors import FeatureViewNotFoundException

from feast_embeddings._feast.private import online_store_of
from feast_embeddings.artifact import Entity
from feast_embeddings.errors import InputError
from feast_embeddings.model.views import view_name
from feast_embeddings.online.store import QdrantEmbeddingOnlineStore

__all__ = ["model_view", "qdrant_store"]


def qdrant_store(feature_store: FeatureStore) -> QdrantEmbeddingOnlineStore:
    """The repo's online store, if it is ours.

    Raises:
        InputError: the repo uses another online store.
    """
    store = online_store_of(feature_store)
    if not isinstance(store, QdrantEmbeddingOnlineStore):
        configured = feature_store.config.online_store.type
        raise InputError(
            f"this needs the Qdrant store itself, and online_store.type is {configured!r}: "
            + (
                "the vectors are behind a Feast server; use that server's repo, or ask feast-embeddings serve there"
                if configured == "remote"
                else "set it to feast_embeddings.QdrantEmbeddingOnlineStore in feature_store.yaml and run feast apply"
            )
        )
    return store


def model_view(feature_store: FeatureStore, model: str, entity: Entity) -> FeatureView:
    """The registered feature view of a model's users or items.

    Raises:
        InputError: it is not registered.
    """
    name = view_name(model, entity)
    try:
        return feature_store.get_feature_view(name)
    except FeatureViewNotFoundException:
        raise InputError(
            f"feature view {name!r} is not in the registry of project {feature_store.project!r}; "
            "run feast apply in the repo"
        ) from None
