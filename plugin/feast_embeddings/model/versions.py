"""Where the versions of a repo's models are: its data folder, and its artifact store."""

from __future__ import annotations

from pathlib import Path

from feast import FeatureStore

from feast_embeddings.artifact_store import ArtifactStore, Versions
from feast_embeddings.errors import InputError
from feast_embeddings.model.sides import qdrant_store

__all__ = ["artifact_store_of", "versions_of"]


def artifact_store_of(feature_store: FeatureStore) -> ArtifactStore | None:
    """Return the repo's artifact store; None without the setting `artifact_store`.

    Raises:
        InputError: the repo's online store is not ours, or the artifact store is in the folder of trained versions.
    """
    qdrant_store(feature_store)
    url: str | None = feature_store.config.online_store.artifact_store
    if url is None:
        return None
    repo = Path(feature_store.config.repo_path or ".").resolve()
    if "://" in url and not url.startswith("file://"):
        return ArtifactStore(url)
    folder, data = (repo / url.removeprefix("file://")).resolve(), (repo / "data").resolve()
    if folder.is_relative_to(data):
        # What a push tidies up there would be files of the versions themselves.
        raise InputError(
            f"artifact_store {url} is in {data}, where this machine has its versions: name a folder next to it, or "
            "leave the setting out if all machines have this one"
        )
    return ArtifactStore(str(folder))


def versions_of(feature_store: FeatureStore, model: str) -> Versions:
    """Return the versions of a model, on this disk and in the artifact store.

    Raises:
        InputError: the repo's online store is not ours.
    """
    data = Path(feature_store.config.repo_path or ".") / "data"
    return Versions(data, model, artifact_store_of(feature_store))
