"""What is made of one version's files once, for the first request that needs it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from feast_embeddings.artifact import Artifact
from feast_embeddings.artifact_store import Versions
from feast_embeddings.errors import ArtifactError, EmbeddingsError, InputError, OptionError

__all__ = ["LoadedOnce"]

T = TypeVar("T")

_DAMAGED = "its files are damaged; restore them, or publish another version"


class LoadedOnce(ABC, Generic[T]):
    """What is made of one version's files for the first request, and then kept; safe to use from many threads.

    Args:
        versions: where the version is.
    """

    def __init__(self, versions: Versions, version: str) -> None:
        self.version = version
        self._versions = versions
        self._guard = threading.Lock()
        self._loaded: T | None = None

    @abstractmethod
    def _make(self, artifact: Artifact) -> T:
        """Make it; an `OptionError` is for the client, of other errors only the reason."""

    @abstractmethod
    def _cannot(self, reason: str) -> EmbeddingsError:
        """Return the error for a version of which it cannot be made."""

    def _load(self) -> T:
        with self._guard:
            if self._loaded is None:
                self._loaded = self._read()
            return self._loaded

    def _read(self) -> T:
        # The reasons may name files, which clients over HTTP must not see; they are kept as causes.
        try:
            artifact = self._versions.load(self.version)
        except (InputError, OSError) as error:
            raise self._cannot("it is not in this repo's data folder; copy it there, or publish one that is") from error
        except ArtifactError as error:
            raise self._cannot(_DAMAGED) from error
        except EmbeddingsError as error:
            raise self._cannot("the artifact store does not give it") from error
        try:
            return self._make(artifact)
        except OptionError:
            raise
        except (ArtifactError, OSError) as error:
            raise self._cannot(_DAMAGED) from error
        except EmbeddingsError as error:
            raise self._cannot(str(error)) from error
