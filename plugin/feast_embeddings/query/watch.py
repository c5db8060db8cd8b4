"""Track which version of a model is live, by reading the aliases with each query."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

from feast import FeatureStore

from feast_embeddings.artifact import LATEST, PREVIOUS, Entity
from feast_embeddings.engines.dropped import ask_live
from feast_embeddings.engines.engine import CollectionSpec
from feast_embeddings.errors import (
    CursorError,
    EngineError,
    FoldInError,
    InputError,
    NotPublishedError,
    OptionError,
    TextSearchError,
)
from feast_embeddings.events import added_attributes_of, event_log_of, hidden_of
from feast_embeddings.model.sides import Side, qdrant_store, sides_of
from feast_embeddings.model.versions import versions_of
from feast_embeddings.query.collection import LiveCollection
from feast_embeddings.query.live import LiveModel
from feast_embeddings.query.searching.hidden import HiddenPoints
from feast_embeddings.query.text import VersionText
from feast_embeddings.query.visitors import Visitors

__all__ = ["LiveWatch"]

_log = logging.getLogger(__name__)

Answer = TypeVar("Answer")

# How long to wait before feature views are read again after a failure.
_LOOK_SECONDS = 1.0
# The number of versions asked for by name whose files, once read, are kept.
_VERSIONS = 4


class LiveWatch:
    """The live version of one model at each moment; safe to use from many threads.

    Attributes:
        sides: the users and the items as registered; looked up again for a new version.
        versions: on this disk, and in the artifact store.
        events: what users did since the training.
        hidden: the users and items that answers leave out.

    Raises:
        InputError: the model's feature views are not registered, or the online store is a different one.
    """

    def __init__(self, feature_store: FeatureStore, model: str) -> None:
        self._feature_store = feature_store
        self._model = model
        self._engine = qdrant_store(feature_store).engine(feature_store.config)
        self._guard = threading.Lock()
        self.versions = versions_of(feature_store, model)
        self.events = event_log_of(self.versions.data, model)
        self.hidden = hidden_of(self.versions.data, model)
        self._added = added_attributes_of(self.versions.data, model)
        self._types = self._added.now()
        self.sides = sides_of(self._feature_store, self._model)
        self._live: LiveModel | None = None
        self._kept: tuple[Visitors, VersionText] | None = None
        self._versions: dict[str, LiveModel] = {}
        self._next_look = 0.0

    def answer(self, ask: Callable[[LiveModel], Answer], version: str | None = None) -> Answer:
        """Query the live version; again if it is replaced and dropped, or deleted, meanwhile. Or query another one.

        Args:
            version: its name, or ``latest`` or ``previous`` as of `load_artifact`; None or ``live`` for the live one.

        Raises:
            OptionError: the version is not loaded.
        """
        self._learn_added()
        failures = EngineError, FoldInError, TextSearchError
        if version not in (None, "live"):
            version = self._name_of(version) if version in (LATEST, PREVIOUS) else version
            return ask_live(lambda: self._names_of(version), lambda named: ask(self._version(version, named)), failures)
        return ask_live(self._engine.aliases, lambda aliases: ask(self._live_at(aliases)), failures)

    def _learn_added(self) -> None:
        """Make the sides again if attributes were added to the model."""
        if (types := self._added.now()) is self._types:
            return
        with self._guard:
            if self._look_again():
                self._types, self._live, self._versions = types, None, {}

    def _name_of(self, word: str) -> str:
        """Return the name of the version that a word stands for."""
        try:
            return self.versions.load(word).manifest.version
        except InputError as error:
            text = f"model {self._model!r} has no {word} version on this disk; name one that is loaded, or leave it out"
            raise OptionError("version", text) from error

    def _names_of(self, version: str) -> dict[Entity, str]:
        """Return the collections of a loaded version, live or kept for a rollback."""
        live, loaded = set(self._engine.aliases().values()), dict[str, bool]()
        found: dict[Entity, str] = {}
        for entity, side in self.sides.items():
            for name, spec in self._engine.collections(side.alias).items():
                if spec.verified and spec.version and side.fits(spec):
                    loaded[spec.version] = name in live
                    # The same version may be there twice while it is published again.
                    if spec.version == version and (entity not in found or name in live):
                        found[entity] = name
        if not found:
            there = ", ".join(f"{name}{' (live)' * loaded[name]}" for name in sorted(loaded, reverse=True))
            raise OptionError(
                "version",
                f"version {version!r:.80} of model {self._model!r} is not loaded; loaded are: {there or 'none'}",
            )
        return found

    def _version(self, version: str, named: dict[Entity, str]) -> LiveModel:
        """Return the queries of these collections; the same objects for the next query of the version."""
        known = self._versions.get(version)
        if known is None or known.collections != named:
            sides = {
                entity: self._collection(self.sides[entity], name, self._engine.describe(name))
                for entity, name in named.items()
            }
            files = Visitors(self.versions, version), VersionText(self.versions, version)
            known = LiveModel(self._model, sides, *files, self.events, self.sides)
            with self._guard:
                self._versions[version] = known
                for old in list(self._versions)[:-_VERSIONS]:
                    del self._versions[old]
        return known

    def event_weights(self) -> dict[str, float]:
        """Return the weights of types of events in the training of the live version, or of the newest on this disk."""
        try:
            version = self.live().spec.version
        except NotPublishedError:
            version = LATEST
        try:
            return self.versions.load(version).manifest.event_weights
        except InputError:  # not on this disk
            return {}

    def live(self) -> LiveModel:
        """Return the live version as of now; all queries on it answer from that version."""
        return self.answer(lambda live: live)

    def _live_at(self, aliases: dict[str, str]) -> LiveModel:
        """Return the version that was live when the engine had these aliases."""
        known = self._live
        if known is not None and known.collections == self._named(aliases):
            return known
        with self._guard:
            known = self._live
            if known is not None and known.collections == self._named(aliases):
                return known
            # A new version may have new attributes, and so new feature views.
            is_current = known is None or self._look_again()
            sides = {
                entity: self._collection(self.sides[entity], name, self._engine.describe(name))
                for entity, name in self._named(aliases).items()
            }
            if other := [live.side for live in sides.values() if not live.side.fits(live.spec)]:
                raise NotPublishedError(
                    f"the live {other[0].entity}s of model {self._model!r} were loaded under another join key than "
                    f"{other[0].id_name!r}; run feast-embeddings publish --model {self._model}"
                )
            live = LiveModel(self._model, sides, *self._of_version(sides), self.events, self.sides)
            if is_current:
                self._live = live
            return live

    def loaded(self, side: Side, version: str) -> LiveCollection:
        """Return a version that is loaded, even if it is not live.

        Raises:
            CursorError: it is not loaded.
        """
        for name, spec in self._engine.collections(side.alias).items():
            if spec.version == version:
                return self._collection(side, name, spec)
        raise CursorError(
            f"the cursor is of version {version[:40]}, which is no longer loaded; begin at the first page"
        )

    def _collection(self, side: Side, name: str, spec: CollectionSpec) -> LiveCollection:
        return LiveCollection(self._engine, side, name, spec, HiddenPoints(self.hidden, side))

    def _named(self, aliases: dict[str, str]) -> dict[Entity, str]:
        sides = self.sides
        return {entity: aliases[side.alias] for entity, side in sides.items() if side.alias in aliases}

    def _of_version(self, sides: Mapping[Entity, LiveCollection]) -> tuple[Visitors, VersionText]:
        """Return what reads the files of the items' version: the same objects while it is live, as they keep them."""
        version = sides["item"].spec.version if "item" in sides else ""
        if self._kept is None or self._kept[0].version != version:
            self._kept = Visitors(self.versions, version), VersionText(self.versions, version)
        return self._kept

    def _look_again(self) -> bool:
        """Read the registered feature views again. If they cannot be read, keep the known ones.

        Feast writes a registry file in place, after each publish, so a reader may see half of it.
        """
        if time.monotonic() < self._next_look:
            return False
        try:
            self.sides = sides_of(self._feature_store, self._model)
        except Exception as error:  # anything that Feast and its registries raise
            _log.warning("the feature views of model %r cannot be read, using the known ones: %s", self._model, error)
            self._next_look = time.monotonic() + _LOOK_SECONDS
            return False
        return True
