"""Where the versions of a repo's models are: its data folder, and its artifact store."""

from __future__ import annotations

from pathlib import Path

from feast import FeatureStore

from feast_embeddings.artifact_store import ArtifactStore, Versions
from feast_embeddings.model.sides import qdrant_store

__all__ = ["artifact_store_of", "versions_of"]


def artifact_store_of(feature_store: FeatureStore) -> ArtifactStore | None:
    """Return the repo's artifact store; None without the setting `artifact_store`.

    Raises:
        InputError: the repo's online store is not ours.
    """
    qdrant_store(feature_store)
    url: str | None = feature_store.config.online_store.artifact_store
    if url is None:
        return None
    folder = Path(feature_store.config.repo_path or ".").resolve()
    return ArtifactStore(url if "://" in url else str(folder / url))


def versions_of(feature_store: FeatureStore, model: str) -> Versions:
    """Return the versions of a model, on this disk and in the artifact store.

    Raises:
        InputError: the repo's online store is not ours.
    """
    data = Path(feature_store.config.repo_path or ".") / "data"
    return Versions(data, model, artifact_store_of(feature_store))
