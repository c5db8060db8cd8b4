"""Which version of a model is live, and how a change of that is noticed: by a look at the aliases with each query."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar

from feast import FeatureStore

from feast_embeddings.artifact import Entity
from feast_embeddings.engines.dropped import ask_live
from feast_embeddings.errors import CursorError, EngineError, FoldInError
from feast_embeddings.model.sides import Side, qdrant_store, sides_of
from feast_embeddings.query.collection import LiveCollection
from feast_embeddings.query.live import LiveModel
from feast_embeddings.query.visitors import Visitors

__all__ = ["LiveWatch"]

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

# How long to wait after feature views could not be read.
_LOOK_SECONDS = 1.0


class LiveWatch:
    """What is live of one model, at each moment; safe to use from many threads.

    Attributes:
        sides: the users and the items as registered; with a new version they are looked up again.

    Raises:
        InputError: the model's feature views are not registered, or the online store is another one.
    """

    def __init__(self, feature_store: FeatureStore, model: str) -> None:
        self._feature_store = feature_store
        self._model = model
        self._engine = qdrant_store(feature_store).engine(feature_store.config)
        self._guard = threading.Lock()
        self.sides = sides_of(self._feature_store, self._model)
        self._live: LiveModel | None = None
        self._visitors: Visitors | None = None
        self._next_look = 0.0

    def answer(self, ask: Callable[[LiveModel], Answer]) -> Answer:
        """Ask what is live now; again, should it be replaced and dropped, or deleted, meanwhile."""
        return ask_live(self._engine.aliases, lambda aliases: ask(self._live_at(aliases)), (EngineError, FoldInError))

    def live(self) -> LiveModel:
        """What is live now; all queries on it answer from that."""
        return self.answer(lambda live: live)

    def _live_at(self, aliases: dict[str, str]) -> LiveModel:
        """What was live when the engine had these aliases."""
        known = self._live
        if known is not None and known.collections == self._named(aliases):
            return known
        with self._guard:
            known = self._live
            if known is not None and known.collections == self._named(aliases):
                return known
            # A new version may have come with new attributes, so with new feature views.
            is_current = known is None or self._look_again()
            sides = {
                entity: LiveCollection(self._engine, self.sides[entity], name, self._engine.describe(name))
                for entity, name in self._named(aliases).items()
            }
            live = LiveModel(self._model, sides, self._visitors_of(sides))
            if is_current:
                self._live = live
            return live

    def loaded(self, side: Side, version: str) -> LiveCollection:
        """A version that is loaded, though not live.

        Raises:
            CursorError: it is not.
        """
        for name, spec in self._engine.collections(side.alias).items():
            if spec.version == version:
                return LiveCollection(self._engine, side, name, spec)
        raise CursorError(
            f"the cursor is of version {version[:40]}, which is not loaded any more; begin at the first page"
        )

    def _named(self, aliases: dict[str, str]) -> dict[Entity, str]:
        sides = self.sides
        return {entity: aliases[side.alias] for entity, side in sides.items() if side.alias in aliases}

    def _visitors_of(self, sides: Mapping[Entity, LiveCollection]) -> Visitors:
        """Those of the version of the items: the same object as long as that is live, as it keeps what it read."""
        version = sides["item"].spec.version if "item" in sides else ""
        if self._visitors is None or self._visitors.version != version:
            data = Path(self._feature_store.config.repo_path or ".") / "data"
            self._visitors = Visitors(data, self._model, version)
        return self._visitors

    def _look_again(self) -> bool:
        """Take over the registered feature views. Where they cannot be read, those that are known go on serving.

        Feast writes the file of a registry in place, after each publish, so a reader may meet half of it.
        """
        if time.monotonic() < self._next_look:
            return False
        try:
            self.sides = sides_of(self._feature_store, self._model)
        except Exception as error:  # whatever Feast and its registries raise
            _log.warning("the feature views of model %r cannot be read, those known serve: %s", self._model, error)
            self._next_look = time.monotonic() + _LOOK_SECONDS
            return False
        return True
