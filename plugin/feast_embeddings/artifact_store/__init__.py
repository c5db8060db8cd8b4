"""Versions where several machines reach them: an object store, or a folder that they share."""

from __future__ import annotations

from feast_embeddings.artifact_store.store import ArtifactStore
from feast_embeddings.artifact_store.versions import Versions

__all__ = ["ArtifactStore", "Versions"]
