"""The versions of one model: on this disk, or pulled onto it when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from feast_embeddings.artifact import LATEST, PREVIOUS, Artifact, load_artifact, version_folders
from feast_embeddings.artifact.model_folder import is_version_name
from feast_embeddings.artifact_store.store import ArtifactStore
from feast_embeddings.errors import InputError

__all__ = ["Versions"]


@dataclass(frozen=True)
class Versions:
    """The versions of a model.

    Attributes:
        data: the folder of trained versions.
        store: where those are that this disk lacks; None if nowhere.
    """

    data: Path
    model: str
    store: ArtifactStore | None = None

    def load(self, version: str) -> Artifact:
        """Load a version, or what ``latest`` or ``previous`` stands for among those on this disk.

        Raises:
            InputError: it is neither on this disk nor in the store.
            ArtifactError: it is damaged.
            EmbeddingsError: the store failed.
        """
        if self.store is not None and is_version_name(version) and not self.is_here(version):
            return self.store.pull(self.data, self.model, version)
        return load_artifact(self.data, self.model, version)

    def pull(self, version: str) -> Artifact:
        """Pull a version, or what ``latest`` or ``previous`` stands for in the store.

        Raises:
            InputError: there is no store, or no such version in it.
            ArtifactError: it is damaged.
            EmbeddingsError: the store failed.
        """
        if self.store is None:
            raise InputError("there is no artifact store; name one in feature_store.yaml: online_store.artifact_store")
        if version in (LATEST, PREVIOUS):
            there, age = self.store.versions(self.model), 1 if version == LATEST else 2
            if len(there) < age:
                raise InputError(f"model {self.model!r} has no {version} version in {self.store}")
            version = there[-age]
        return self.store.pull(self.data, self.model, version)

    def pull_all(self) -> None:
        """Pull every version that this disk lacks, or of which it has a copy from before a `forget` elsewhere."""
        if self.store is not None:
            for version in self.store.versions(self.model):
                self.store.pull(self.data, self.model, version)

    def push_all(self) -> None:
        """Copy the changes of versions on this disk to the store, if it has these versions."""
        if self.store is not None:
            for version in self.store.versions(self.model):
                self.store.push(load_artifact(self.data, self.model, version))

    def is_here(self, version: str) -> bool:
        """Return whether a version is on this disk."""
        return any(path.name == version for path in version_folders(self.data, self.model))
