"""From the settings of a repo to the engine that they name."""

from __future__ import annotations

import warnings
from pathlib import Path
from urllib.parse import urlsplit

from qdrant_client import QdrantClient

from feast_embeddings.embedded import EmbeddedEngine
from feast_embeddings.engine import Engine, Hnsw
from feast_embeddings.errors import EngineError
from feast_embeddings.retry import with_retries
from feast_embeddings.server import ServerEngine, Storage
from feast_embeddings.settings import OnlineStoreSettings

__all__ = ["open_engine"]


def open_engine(settings: OnlineStoreSettings, repo: Path) -> Engine:
    """The embedded engine under the repo's folder, or the client of a server, to which nothing is sent yet.

    Raises:
        EngineError: the address of the server is not one.
    """
    hnsw = Hnsw(settings.hnsw_m, settings.hnsw_ef_construct, settings.search_ef)
    if settings.url is None:
        folder = repo / (settings.path or "qdrant_storage")
        return EmbeddedEngine(folder, lock_timeout=settings.lock_timeout, hnsw=hnsw)

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
    storage = Storage(settings.on_disk, settings.quantization, settings.shard_number, settings.replication_factor)
    return ServerEngine(with_retries(client, settings.retries), hnsw=hnsw, storage=storage)
