"""Feast online store on Qdrant, embedded or server. Selected in feature_store.yaml::

    online_store:
      type: feast_embeddings.QdrantEmbeddingOnlineStore
      path: qdrant_storage              # embedded engine, relative to the repo; or
      # url: https://localhost:6333      # Qdrant server or cluster
      # api_key: ${QDRANT_API_KEY}

Feast finds the configuration class by the name of the store class, in the same module.
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from feast import Entity, FeatureView, RepoConfig
from feast.filter_models import ComparisonFilter, CompoundFilter
from feast.infra.supported_async_methods import SupportedAsyncMethods

from feast_embeddings._feast.online_store import RequestStore
from feast_embeddings._feast.private import EntityKeyProto
from feast_embeddings.codec.collection import value_types, vector_fields
from feast_embeddings.codec.columns import encode_batch, encode_rows
from feast_embeddings.codec.numbers import EXACT
from feast_embeddings.codec.rows import FeastRow, PointCodec
from feast_embeddings.engines.dropped import ask_live, ask_live_on_loop
from feast_embeddings.engines.engine import TIMESTAMP_KEY, Engine, PointBatch
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.engines.server.on_loop import AsyncServer
from feast_embeddings.errors import InputError
from feast_embeddings.online.documents import DocumentV1, DocumentV2, DocumentView, search_v1, search_v2
from feast_embeddings.online.interactions import INTERACTIONS_TAG, PushedInteractions, refuse_read
from feast_embeddings.online.open_engine import open_engine
from feast_embeddings.online.reads import KeyRead, ReadRow, read_live, read_live_on_loop, reading_live
from feast_embeddings.online.settings import OnlineStoreSettings
from feast_embeddings.online.table_names import rename_tables, table_id
from feast_embeddings.online.view_tables import added_attributes, drop_tables, refuse_one_name_for_two, valid_from
from feast_embeddings.online.writes import write_live, write_live_on_loop

__all__ = ["Progress", "QdrantEmbeddingOnlineStore", "QdrantEmbeddingOnlineStoreConfig"]

Progress = Callable[[int], Any] | None


class QdrantEmbeddingOnlineStoreConfig(OnlineStoreSettings):
    """The `online_store` section of feature_store.yaml; Feast looks for the store in the module of this class.

    Stability: stable, see docs/compatibility.md.
    """

    type: str = "feast_embeddings.QdrantEmbeddingOnlineStore"


class QdrantEmbeddingOnlineStore(RequestStore):
    """One Qdrant collection per feature view, one point per entity, reached through an alias.

    Any feature view works, with vectors or without. For the views of `feast_embeddings.embedding_views` the
    store keeps the versions of a model apart: see `online_write_batch`.

    Stability: stable, see docs/compatibility.md.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._engine: Engine | None = None
        self._interactions = PushedInteractions(self)

    def engine(self, config: RepoConfig) -> Engine:
        """Return the engine that the repo's configuration names; opened on first use."""
        with self._guard:
            if self._engine is None:
                settings = config.online_store
                if not isinstance(settings, QdrantEmbeddingOnlineStoreConfig):
                    raise InputError(
                        f"the online store of this repo is {settings.type!r}; set online_store.type to "
                        "feast_embeddings.QdrantEmbeddingOnlineStore in feature_store.yaml"
                    )
                engine = open_engine(settings, Path(config.repo_path or "."))
                rename_tables(engine, config.project)
                self._engine = engine
            return self._engine

    def holds(self, view: FeatureView) -> bool:
        """Return whether this store has the rows of a view."""
        return True

    def codec(self, config: RepoConfig, view: FeatureView) -> PointCodec:
        """Return the codec of a view's rows under the repo's configuration."""
        metric = config.online_store.similarity or "cosine"
        return PointCodec(view, vector_fields(view, metric), added_attributes(config, view))

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Progress,
    ) -> None:
        """Write rows into the live collection of the view; an older row never overwrites a newer one.

        A view whose rows carry a model version serves one version at a time. Rows of older versions are left out:
        the live version has superseded them. If nothing is live yet, the newest version in the rows goes live.

        Rows of a view of `feast_embeddings.interactions_view` are recorded as interactions instead.

        Raises:
            VersionMismatchError: a row is of a newer version than the live one; publish that version instead.
            InputError: a vector has the wrong length, or NaN or infinity in it, or an interaction cannot be used.
                Nothing was written.
        """
        if not data:
            return
        if INTERACTIONS_TAG in table.tags:
            self._interactions.record(config, table, data)
        else:
            self._write(config, table, data)
        if progress:
            progress(len(data))

    def _write(self, config: RepoConfig, table: FeatureView, data: list[FeastRow]) -> None:
        codec = self.codec(config, table)
        batch, versions = _encoded(codec, data)
        write_live(self.engine(config), codec, table_id(config, table), [batch], versions)

    def online_write_table(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: Iterable[pa.RecordBatch],
        progress: Progress,
        *,
        versions: Mapping[str, int],
        timestamp_field: str = "event_timestamp",
    ) -> None:
        """Write Arrow batches as `online_write_batch` does: all in one write, in bounded memory.

        Args:
            data: the rows, at most one per entity over all batches, with every join key and feature of the view and
                the event timestamps. Consumed once, during the write.
            progress: called with the number of rows of each batch, once it is written.
            versions: number of rows by the value of their feature ``version``, over all batches; empty for a view
                without that feature.
            timestamp_field: the column of event timestamps, an Arrow timestamp; without a zone it is UTC.

        Raises:
            VersionMismatchError: a row is of a newer version than the live one; publish that version instead.
            InputError: a column is missing, a join key is null, or a vector has the wrong length, or NaN or
                infinity in it. The embedded engine then wrote nothing, a server the batches before.
        """
        codec = self.codec(config, table)

        def batches() -> Iterator[PointBatch]:
            for batch in data:
                yield encode_batch(codec, batch, timestamp_field=timestamp_field)
                if progress:
                    progress(batch.num_rows)

        write_live(self.engine(config), codec, table_id(config, table), batches(), versions)

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[ReadRow]:
        """Read features by entity key, in the order of the keys; (None, None) for a key not stored, or expired."""
        read = self._key_read(config, table, entity_keys, requested_features)
        return read_live(self.engine(config), table_id(config, table), read)

    def _key_read(
        self, config: RepoConfig, view: FeatureView, keys: list[EntityKeyProto], names: list[str] | None
    ) -> KeyRead:
        refuse_read(view)
        return KeyRead(self.codec(config, view), keys, names, valid_from(config, view))

    def answer(self, config: RepoConfig, read: Callable[[], None]) -> None:
        """Run all reads of a request; all again if one of their live collections is dropped."""

        def read_all(live: Mapping[str, str]) -> None:
            with reading_live(live):
                read()

        ask_live(self.engine(config).aliases, read_all)

    async def answer_on_loop(self, config: RepoConfig, read: Callable[[], Awaitable[None]]) -> None:
        """Run all reads of a request, without blocking the event loop."""
        engine, server = await self._open(config)

        async def read_all(live: Mapping[str, str]) -> None:
            with reading_live(live):
                await read()

        aliases = functools.partial(asyncio.to_thread, engine.aliases) if server is None else server.aliases
        await ask_live_on_loop(aliases, read_all)

    @property
    def async_supported(self) -> SupportedAsyncMethods:
        """Support both reads and writes: a server by its async client, the embedded engine in a thread."""
        return SupportedAsyncMethods(read=True, write=True)

    async def online_read_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[ReadRow]:
        """`online_read`, without blocking the event loop."""
        _, server = await self._open(config)
        if server is None:
            return await asyncio.to_thread(self.online_read, config, table, entity_keys, requested_features)
        read = self._key_read(config, table, entity_keys, requested_features)
        return await read_live_on_loop(server, table_id(config, table), read)

    async def online_write_batch_async(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Progress,
    ) -> None:
        """`online_write_batch`, without blocking the event loop; `progress` may be called from another thread."""
        engine, server = await self._open(config)
        if server is None or INTERACTIONS_TAG in table.tags:
            await asyncio.to_thread(self.online_write_batch, config, table, data, progress)
        elif data:
            codec = self.codec(config, table)
            batch, versions = await asyncio.to_thread(_encoded, codec, data)  # CPU-bound, and long for many rows
            await write_live_on_loop(engine, server, codec, table_id(config, table), batch, versions)
            if progress:
                progress(len(data))

    async def _open(self, config: RepoConfig) -> tuple[Engine, AsyncServer | None]:
        """Return the engine, and its async client if it is a server."""
        engine = self._engine
        if engine is None:  # Opening the embedded engine waits for its lock.
            engine = await asyncio.to_thread(self.engine, config)
        return engine, engine.on_loop if isinstance(engine, ServerEngine) else None

    def retrieve_online_documents(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested_features: list[str],
        embedding: list[float],
        top_k: int,
        distance_metric: str | None = None,
    ) -> list[DocumentV1]:
        """Find the rows nearest to a vector; see `feast_embeddings.online.documents.search_v1`."""
        return search_v1(self._documents(config, table), requested_features, embedding, top_k, distance_metric)

    def retrieve_online_documents_v2(
        self,
        config: RepoConfig,
        table: FeatureView,
        requested_features: list[str],
        embedding: list[float] | None,
        top_k: int,
        distance_metric: str | None = None,
        query_string: str | None = None,
        filters: ComparisonFilter | CompoundFilter | None = None,
        include_feature_view_version_metadata: bool = False,
        **_later: Any,
    ) -> list[DocumentV2]:
        """Find the rows nearest to a vector, best for a text, or both; see `documents.search_v2`."""
        # Feast adds the version metadata.
        view = self._documents(config, table)
        return search_v2(view, requested_features, embedding, top_k, distance_metric, query_string, filters)

    def _documents(self, config: RepoConfig, view: FeatureView) -> DocumentView:
        codec, oldest = self.codec(config, view), valid_from(config, view)
        return DocumentView(self.engine(config), codec, table_id(config, view), oldest)

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Check the views to keep, and drop the collections of deleted ones. Collections are made on first write.

        Raises:
            InputError: a view needs a feature that Qdrant does not have, or two entities have one name.
        """
        refuse_one_name_for_two(entities_to_keep)
        for view in tables_to_keep:
            for name in value_types(view):
                if name == TIMESTAMP_KEY or name.startswith(EXACT):
                    raise InputError(f"feature view {view.name!r}: the name {name!r} is reserved; rename it")
            vector_fields(view, config.online_store.similarity or "cosine")
        for view in tables_to_delete:
            drop_tables(self.engine(config), config, view)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Drop every collection of these views, live or kept."""
        for view in tables:
            drop_tables(self.engine(config), config, view)

    async def initialize(self, config: RepoConfig) -> None:
        """Open the engine, so that the first request does not wait for it."""
        _, server = await self._open(config)
        if server is not None:
            await server.client()

    async def close(self) -> None:
        """Release files and connections; the next call opens them again."""
        self._interactions.close()
        with self._guard:
            engine, self._engine = self._engine, None
        if isinstance(engine, ServerEngine) and engine.on_loop is not None:
            await engine.on_loop.close()
        if engine is not None:
            await asyncio.to_thread(engine.close)


def _encoded(codec: PointCodec, rows: list[FeastRow]) -> tuple[PointBatch, Counter[str]]:
    """Encode rows as points, and count them by version."""
    batch = encode_rows(codec, rows)
    return batch, Counter(str(payload.get("version", "")) for payload in batch.payloads)
