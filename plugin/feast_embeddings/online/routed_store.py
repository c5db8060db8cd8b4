"""Embeddings in Qdrant, and all other views where they were. Selected in feature_store.yaml::

online_store:
  type: feast_embeddings.RoutedOnlineStore
  path: qdrant_storage             # and the other settings of QdrantEmbeddingOnlineStore
  default:                         # the section online_store as it was
    type: sqlite
    path: data/online_store.db
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.online_store import OnlineStore
from pydantic import model_validator

from feast_embeddings._feast.other_store import open_store, settings_of, with_settings
from feast_embeddings._feast.private import EntityKeyProto
from feast_embeddings.codec.rows import FeastRow
from feast_embeddings.errors import InputError
from feast_embeddings.online.interactions import INTERACTIONS_TAG
from feast_embeddings.online.reads import ReadRow, live_of_request, reading_live
from feast_embeddings.online.store import Progress, QdrantEmbeddingOnlineStore, QdrantEmbeddingOnlineStoreConfig
from feast_embeddings.online.view_tables import MODEL_TAG

__all__ = ["RoutedOnlineStore", "RoutedOnlineStoreConfig"]


class RoutedOnlineStoreConfig(QdrantEmbeddingOnlineStoreConfig):
    """The `online_store` section of feature_store.yaml.

    Stability: provisional, see docs/compatibility.md.
    """

    type: str = "feast_embeddings.RoutedOnlineStore"
    default: dict[str, Any]
    """The section of the store of all other views, with its `type`."""

    @model_validator(mode="after")
    def _check_default(self) -> RoutedOnlineStoreConfig:
        kind = self.default.get("type")
        if not isinstance(kind, str):
            raise InputError("online_store.default needs the type of the store of all other views, e.g. type: sqlite")
        if kind == self.type:
            raise InputError(f"online_store.default: {kind} would route to itself; name the store of the other views")
        try:
            settings_of(self.default)
        except Exception as error:  # Feast's, or the other store's, whose text may hold its password
            raise InputError(
                f"online_store.default: these settings of {kind!r} cannot be used ({type(error).__name__}); check them "
                "in a separate repo"
            ) from None
        return self

    def __repr_args__(self) -> Iterator[tuple[str | None, Any]]:
        """Leave out the other store's settings, which may hold a password."""
        for name, value in super().__repr_args__():
            yield name, {"type": value.get("type")} if name == "default" else value


class RoutedOnlineStore(QdrantEmbeddingOnlineStore):
    """The views of models in Qdrant, every other view in the store that the repo had before.

    Stability: provisional, see docs/compatibility.md.
    """

    def __init__(self) -> None:
        super().__init__()
        self._opening = threading.Lock()
        self._other: tuple[RepoConfig, OnlineStore, RepoConfig] | None = None

    def holds(self, view: FeatureView) -> bool:
        return MODEL_TAG in view.tags or INTERACTIONS_TAG in view.tags

    def _default(self, config: RepoConfig) -> tuple[OnlineStore, RepoConfig]:
        """Return the other store, and the configuration that it would have alone."""
        with self._opening:
            if self._other is None or self._other[0] is not config:
                settings = settings_of(config.online_store.default)
                store = open_store(settings) if self._other is None else self._other[1]
                self._other = config, store, with_settings(config, settings)
            _, store, alone = self._other
            return store, alone

    def online_write_batch(
        self, config: RepoConfig, table: FeatureView, data: list[FeastRow], progress: Progress
    ) -> None:
        if self.holds(table):
            return super().online_write_batch(config, table, data, progress)
        store, alone = self._default(config)
        return store.online_write_batch(alone, table, data, progress)

    async def online_write_batch_async(
        self, config: RepoConfig, table: FeatureView, data: list[FeastRow], progress: Progress
    ) -> None:
        if self.holds(table):
            return await super().online_write_batch_async(config, table, data, progress)
        store, alone = self._default(config)
        if store.async_supported.write:
            return await store.online_write_batch_async(alone, table, data, progress)
        return await asyncio.to_thread(store.online_write_batch, alone, table, data, progress)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[ReadRow]:
        if self.holds(table):
            return super().online_read(config, table, entity_keys, requested_features)
        store, alone = self._default(config)
        return store.online_read(alone, table, entity_keys, requested_features)

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[ReadRow]:
        if self.holds(table):
            if isinstance(live := live_of_request(), _LiveWhenAsked):
                await asyncio.to_thread(len, live)  # look them up without blocking the event loop
            return await super().online_read_async(config, table, entity_keys, requested_features)
        store, alone = self._default(config)
        if store.async_supported.read:
            return await store.online_read_async(alone, table, entity_keys, requested_features)
        return await asyncio.to_thread(store.online_read, alone, table, entity_keys, requested_features)

    def answer(self, config: RepoConfig, read: Callable[[], None]) -> None:
        """Run all reads of a request; one without views of a model never asks Qdrant, which may be down."""
        live = _LiveWhenAsked(lambda: self.engine(config).aliases())
        with reading_live(live):
            try:
                read()
            except Exception:
                if not live.asked:
                    raise
            else:
                return
        super().answer(config, read)

    async def answer_on_loop(self, config: RepoConfig, read: Callable[[], Awaitable[None]]) -> None:
        live = _LiveWhenAsked(lambda: self.engine(config).aliases())
        with reading_live(live):
            try:
                await read()
            except Exception:
                if not live.asked:
                    raise
            else:
                return
        await super().answer_on_loop(config, read)

    def retrieve_online_documents(self, config: RepoConfig, table: FeatureView, *args: Any, **more: Any) -> Any:
        if self.holds(table):
            return super().retrieve_online_documents(config, table, *args, **more)
        store, alone = self._default(config)
        return store.retrieve_online_documents(alone, table, *args, **more)

    def retrieve_online_documents_v2(self, config: RepoConfig, table: FeatureView, *args: Any, **more: Any) -> Any:
        if self.holds(table):
            return super().retrieve_online_documents_v2(config, table, *args, **more)
        store, alone = self._default(config)
        return store.retrieve_online_documents_v2(alone, table, *args, **more)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        (gone, other_gone), (kept, other_kept) = self._sorted(tables_to_delete), self._sorted(tables_to_keep)
        super().update(config, gone, kept, entities_to_delete, entities_to_keep, partial)
        store, alone = self._default(config)
        store.update(alone, other_gone, other_kept, entities_to_delete, entities_to_keep, partial)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        ours, others = self._sorted(tables)
        super().teardown(config, ours, entities)
        store, alone = self._default(config)
        store.teardown(alone, others, entities)

    def _sorted(self, views: Sequence[FeatureView]) -> tuple[list[FeatureView], list[FeatureView]]:
        """Return those in Qdrant, and the others."""
        return [v for v in views if self.holds(v)], [v for v in views if not self.holds(v)]

    async def initialize(self, config: RepoConfig) -> None:
        await super().initialize(config)
        store, alone = self._default(config)
        await store.initialize(alone)

    async def close(self) -> None:
        await super().close()
        with self._opening:
            other, self._other = self._other, None
        if other is not None:
            await other[1].close()


class _LiveWhenAsked(Mapping[str, str]):
    """The live collections, looked up when the first is asked for."""

    def __init__(self, look: Callable[[], Mapping[str, str]]) -> None:
        self._look = look
        self._guard = threading.Lock()
        self._found: Mapping[str, str] | None = None

    @property
    def asked(self) -> bool:
        return self._found is not None

    def _live(self) -> Mapping[str, str]:
        with self._guard:
            if self._found is None:
                self._found = self._look()
            return self._found

    def __getitem__(self, alias: str) -> str:
        return self._live()[alias]

    def __iter__(self) -> Iterator[str]:
        return iter(self._live())

    def __len__(self) -> int:
        return len(self._live())
