"""The models of a repo, each opened once; requests do not wait for the registry."""

from __future__ import annotations

import logging
import threading
import time

import tenacity
from feast import FeatureStore

from feast_embeddings.errors import EngineError
from feast_embeddings.model.sides import qdrant_store
from feast_embeddings.model.views import MODEL_TAG
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.service.problems import ProblemError

__all__ = ["Models"]

# Seconds that a list of models is used: a new model is served after this time at most.
_LIST_SECONDS = 5.0
_LOOKS, _LOOK_SECONDS = 3, 0.05

_log = logging.getLogger("feast_embeddings.service")


class Models:
    """The models that `GET /v1/models` lists.

    Attributes:
        listed: whether the last read of the registry succeeded.

    Raises:
        InputError: the repo's online store is not ours.
    """

    def __init__(self, feature_store: FeatureStore) -> None:
        self.feature_store = feature_store
        self.engine = qdrant_store(feature_store).engine(feature_store.config)
        # With the embedded engine, a query uses the processor instead of waiting for an answer.
        self.embedded = feature_store.config.online_store.url is None
        self._guard = threading.Lock()
        self._stores: dict[str, EmbeddingStore] = {}
        self._names: list[str] = []
        self._looked: float | None = None
        self.listed = False

    def known(self, name: str) -> EmbeddingStore | None:
        """Return the queries of a model that was opened before, without a look-up."""
        return self._stores.get(name)

    def get(self, name: str) -> EmbeddingStore:
        """Return the queries of a model.

        Raises:
            ProblemError: 404, there is no such model.
        """
        store = self._stores.get(name)
        if store is None:
            if name not in self.names():
                raise ProblemError(404, f"there is no model {name[:60]!r}")
            opened = self._open(name)
            with self._guard:
                store = self._stores.setdefault(name, opened)
        return store

    def _open(self, name: str) -> EmbeddingStore:
        attempts = tenacity.stop_after_attempt(_LOOKS)
        looking = tenacity.Retrying(stop=attempts, wait=tenacity.wait_fixed(_LOOK_SECONDS), reraise=True)
        try:
            return looking(EmbeddingStore, self.feature_store, name)
        except Exception as error:  # as in `names`
            raise EngineError(f"the feature views of model {name!r} cannot be read: {error}") from error

    def names(self) -> list[str]:
        """List the models with feature views in the registry, sorted; if it cannot be read, the known ones."""
        with self._guard:
            if self._looked is None or time.monotonic() - self._looked > _LIST_SECONDS:
                # Feast writes a registry file in place, so a reader may see half of it: drop a model only if it is
                # missing twice.
                for _ in range(_LOOKS):
                    try:
                        names = self._registered()
                    except Exception as error:  # anything that Feast and its registries raise
                        _log.warning("registry", extra={"reason": str(error)})
                        names, self.listed = self._names, False
                    else:
                        self.listed = True
                        if names and set(self._names) <= set(names):
                            break
                    time.sleep(_LOOK_SECONDS)
                self._names = names
                self._looked = time.monotonic()
            return self._names

    def _registered(self) -> list[str]:
        views = self.feature_store.list_feature_views()
        return sorted({view.tags[MODEL_TAG] for view in views if MODEL_TAG in view.tags})
