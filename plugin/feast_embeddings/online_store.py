"""Feast online store on Qdrant, embedded or server. Selected in feature_store.yaml::

    online_store:
      type: feast_embeddings.QdrantEmbeddingOnlineStore
      path: qdrant_storage              # embedded engine, relative to the repo; or
      # url: https://localhost:6333      # Qdrant server or cluster
      # api_key: ${QDRANT_API_KEY}

Feast finds the configuration class by the name of the store class, in the same module.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import numpy as np
from feast import Entity, FeatureView, RepoConfig
from feast.infra.online_stores.online_store import OnlineStore
from feast.infra.online_stores.vector_store import VectorStoreConfig
from feast.repo_config import FeastConfigBaseModel
from pydantic import ModelWrapValidatorHandler, PositiveFloat, PositiveInt, SecretStr, ValidationError, model_validator
from qdrant_client import QdrantClient

from feast_embeddings._feast import EntityKeyProto, ValueProto, encode_entity_key, table_id
from feast_embeddings.collection import collection_spec, vector_fields
from feast_embeddings.embedded import EmbeddedEngine
from feast_embeddings.engine import TIMESTAMP_KEY, Engine, PointBatch
from feast_embeddings.errors import EngineError, InputError, VersionMismatchError
from feast_embeddings.points import ENTITY_KEY, VALUES_KEY, FeastRow, PointCodec, point_id
from feast_embeddings.server import ServerEngine

__all__ = ["QdrantEmbeddingOnlineStore", "QdrantEmbeddingOnlineStoreConfig"]

_RESERVED = {ENTITY_KEY, TIMESTAMP_KEY, VALUES_KEY}
Progress = Callable[[int], Any] | None


class QdrantEmbeddingOnlineStoreConfig(FeastConfigBaseModel, VectorStoreConfig):
    """The `online_store` section of feature_store.yaml."""

    type: str = "feast_embeddings.QdrantEmbeddingOnlineStore"
    path: str | None = None
    """Folder of the embedded engine, relative to the repo. The default engine is embedded, in qdrant_storage."""
    lock_timeout: PositiveFloat = 30.0
    """Embedded: seconds to wait for another writer."""
    url: str | None = None
    """Address of a Qdrant server, e.g. http://localhost:6333; selects the server engine."""
    api_key: SecretStr | None = None
    """Server: API key; write ${QDRANT_API_KEY} and set the environment variable."""
    prefer_grpc: bool = True
    """Server: gRPC for data, REST when false."""
    grpc_port: int = 6334
    """Server: port of gRPC on the host of `url`."""
    timeout: PositiveInt = 30
    """Server: seconds for one request."""

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            settings = handler(data)
        except ValidationError as error:
            # Not passed on: Feast would print all settings with it, the API key among them.
            first = error.errors(include_input=False)[0]
            raise InputError(f"online_store.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        if settings.url is not None and settings.path is not None:
            raise InputError("online_store: set url (a Qdrant server) or path (the embedded engine), not both")
        if settings.api_key is not None and settings.url is None:
            raise InputError("online_store: api_key needs url; the embedded engine has no access control")
        key = "" if settings.api_key is None else settings.api_key.get_secret_value()
        if key.startswith("$"):
            raise InputError(f"online_store: api_key is {key}, but that environment variable is not set")
        return settings


class QdrantEmbeddingOnlineStore(OnlineStore):
    """One Qdrant collection per feature view, one point per entity, reached through an alias.

    Any feature view works, with vectors or without. For the views of `feast_embeddings.embedding_views` the
    store keeps the versions of a model apart: see `online_write_batch`.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._engine: Engine | None = None

    def engine(self, config: RepoConfig) -> Engine:
        """The engine that the repo's configuration names; opened on first use."""
        with self._guard:
            if self._engine is None:
                self._engine = _open_engine(config)
            return self._engine

    def codec(self, config: RepoConfig, view: FeatureView) -> PointCodec:
        """The codec of a view's rows under the repo's configuration."""
        metric = config.online_store.similarity or "cosine"
        return PointCodec(view, vector_fields(view, metric))

    def online_write_batch(
        self,
        config: RepoConfig,
        table: FeatureView,
        data: list[FeastRow],
        progress: Progress,
    ) -> None:
        """Write rows into the live collection of the view; an older row never overwrites a newer one.

        A view whose rows carry a model version serves one version at a time. Rows of older versions are left out:
        the live version has superseded them. Where nothing is live yet, the newest version in the rows goes live.

        Raises:
            VersionMismatchError: a row is of a newer version than the live one; publish that version instead.
            InputError: a vector has the wrong length, or NaN or infinity in it. Nothing was written.
        """
        if not data:
            return
        engine, codec, alias = self.engine(config), self.codec(config, table), table_id(config, table)
        batch = codec.encode(data)
        live = engine.aliases().get(alias)
        spec = None if live is None else engine.describe(live)
        versions = [str(payload.get("version", "")) for payload in batch.payloads]
        versioned = "version" in codec.types and "space" in codec.types
        version = (max(versions) if spec is None else spec.version) if versioned else ""
        if versioned and (newer := sum(v > version for v in versions)):
            raise VersionMismatchError(
                f"feature view {table.name!r} serves version {version}, but {newer} of {len(batch)} rows are of "
                f"version {max(versions)}; publish that version (feast-embeddings publish). Nothing was written"
            )
        if versioned:
            batch = batch.take(np.flatnonzero([v == version for v in versions]))
        if live is None:
            self._create_live(engine, codec, alias, batch, version)
        elif len(batch):
            engine.upsert(live, batch)
        if progress:
            progress(len(data))

    def _create_live(self, engine: Engine, codec: PointCodec, alias: str, batch: PointBatch, version: str) -> None:
        dims = {
            field.name: batch.vectors[field.name][0].shape[1] - (field.bias is not None)
            for field in codec.fields.values()
            if field.name in batch.vectors
        }
        space = str(batch.payloads[0].get("space", "")) if version else ""
        spec = collection_spec(codec.view, alias, codec.fields, dims, version=version, space=space)
        collection = f"{alias}__{version or 'live'}"
        engine.create(collection, spec, [batch])
        engine.switch({alias: collection})

    def online_read(
        self,
        config: RepoConfig,
        table: FeatureView,
        entity_keys: list[EntityKeyProto],
        requested_features: list[str] | None = None,
    ) -> list[tuple[datetime | None, dict[str, ValueProto] | None]]:
        """Features by entity key, in the order of the keys; (None, None) for a key that is not stored."""
        engine, codec = self.engine(config), self.codec(config, table)
        live = engine.aliases().get(table_id(config, table))
        if live is None:
            return [(None, None)] * len(entity_keys)
        names = codec.features if requested_features is None else requested_features
        points = engine.retrieve(
            live,
            [point_id(encode_entity_key(key)) for key in entity_keys],
            vectors=[name for name in names if name in engine.describe(live).vectors],
        )
        return [(None, None) if point is None else codec.decode(point, names) for point in points]

    def update(
        self,
        config: RepoConfig,
        tables_to_delete: Sequence[FeatureView],
        tables_to_keep: Sequence[FeatureView],
        entities_to_delete: Sequence[Entity],
        entities_to_keep: Sequence[Entity],
        partial: bool,
    ) -> None:
        """Check the views that stay, and drop the collections of those that go. Collections are made on first write.

        Raises:
            InputError: a view asks for what Qdrant does not have.
        """
        for view in tables_to_keep:
            if reserved := _RESERVED & {field.name for field in view.features}:
                raise InputError(f"feature view {view.name!r}: the feature name {min(reserved)!r} is reserved")
            vector_fields(view, config.online_store.similarity or "cosine")
        self._drop(config, tables_to_delete)

    def teardown(self, config: RepoConfig, tables: Sequence[FeatureView], entities: Sequence[Entity]) -> None:
        """Drop every collection of these views, live or kept."""
        self._drop(config, tables)

    def _drop(self, config: RepoConfig, views: Sequence[FeatureView]) -> None:
        engine = self.engine(config)
        for view in views:
            alias = table_id(config, view)
            if alias in engine.aliases():
                engine.switch({alias: None})
            engine.drop(engine.collections(alias))


def _open_engine(config: RepoConfig) -> Engine:
    settings = config.online_store
    if not isinstance(settings, QdrantEmbeddingOnlineStoreConfig):
        raise InputError(
            f"the online store of this repo is {settings.type!r}; set online_store.type to "
            "feast_embeddings.QdrantEmbeddingOnlineStore in feature_store.yaml"
        )
    if settings.url is None:
        path = Path(config.repo_path or ".") / (settings.path or "qdrant_storage")
        return EmbeddedEngine(path, lock_timeout=settings.lock_timeout)

    try:
        # The client warns of an API key on a connection without TLS, which is no concern inside one machine.
        with warnings.catch_warnings():
            if urlsplit(settings.url).hostname in ("localhost", "127.0.0.1", "::1"):
                warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            client = QdrantClient(
                url=settings.url,
                api_key=None if settings.api_key is None else settings.api_key.get_secret_value(),
                prefer_grpc=settings.prefer_grpc,
                grpc_port=settings.grpc_port,
                timeout=settings.timeout,
                # It also warns when its minor version is ahead of the server's; what is used here is in 1.16.
                check_compatibility=False,
            )
    except ValueError as error:
        raise EngineError(f"online_store.url {settings.url!r} cannot be used: {error}") from None
    return ServerEngine(client)
