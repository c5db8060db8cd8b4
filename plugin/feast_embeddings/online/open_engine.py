"""Open the engine that the settings of a repo name."""

from __future__ import annotations

import dataclasses
import ssl
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from qdrant_client import AsyncQdrantClient, QdrantClient

from feast_embeddings.engines.embedded.engine import EmbeddedEngine
from feast_embeddings.engines.engine import Engine, Hnsw
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.engines.server.failover import any_of, any_of_on_loop
from feast_embeddings.engines.server.storage import Storage
from feast_embeddings.errors import EngineError, InputError
from feast_embeddings.online.settings import OnlineStoreSettings

__all__ = ["embedded_folder", "open_engine"]

C = TypeVar("C", QdrantClient, AsyncQdrantClient)

# By default gRPC waits up to two minutes before it reconnects, so a server would stay unreachable after it is back.
# The pings end a connection whose other end has silently gone.
_GRPC_OPTIONS = {
    "grpc.initial_reconnect_backoff_ms": 250,
    "grpc.min_reconnect_backoff_ms": 5_000,
    "grpc.max_reconnect_backoff_ms": 2_000,
    "grpc.keepalive_time_ms": 30_000,
    "grpc.keepalive_timeout_ms": 10_000,
}


def embedded_folder(settings: OnlineStoreSettings, repo: Path) -> Path:
    """Return the folder of the embedded engine of a repo."""
    return repo / (settings.path or "qdrant_storage")


def open_engine(settings: OnlineStoreSettings, repo: Path) -> Engine:
    """Open the embedded engine in the repo's folder, or the clients of a server, without sending anything yet.

    Raises:
        InputError: the file of the API key or of CA certificates cannot be read, or holds none.
        EngineError: the address of the server is invalid.
    """
    hnsw = Hnsw(settings.hnsw_m, settings.hnsw_ef_construct, settings.search_ef)
    if settings.url is None:
        return EmbeddedEngine(embedded_folder(settings, repo), lock_timeout=settings.lock_timeout, hnsw=hnsw)

    options: dict[str, Any] = {"api_key": _api_key(settings, repo)}
    certificates = None
    if settings.ca_certificate is not None:
        path = repo / settings.ca_certificate
        options["verify"] = _authorities(path)
        certificates = path.read_bytes()

    def connect(kind: Callable[..., C], url: str, grpc_port: int) -> C:
        # The client warns of an API key on a connection without TLS, which is harmless within one machine, and one
        # warning is enough. It also warns if its minor version is ahead of the server's; all calls here are in 1.16.
        is_local = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
        with warnings.catch_warnings():
            if is_local or kind is AsyncQdrantClient:
                warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
            return kind(
                url=url,
                prefer_grpc=settings.prefer_grpc,
                grpc_port=grpc_port,
                timeout=settings.timeout,
                # A copy for each client, because it changes them.
                grpc_options=_GRPC_OPTIONS | ({} if certificates is None else {"root_certificates": certificates}),
                check_compatibility=False,
                **options,
            )

    clients = []
    for url, grpc_port in settings.servers:
        try:
            clients.append(connect(QdrantClient, url, grpc_port))
        except ValueError as error:
            raise EngineError(f"online_store.url {url!r} cannot be used: {error}") from None
    return ServerEngine(
        any_of(clients),
        retries=settings.retries,
        hnsw=hnsw,
        storage=Storage(**{field.name: getattr(settings, field.name) for field in dataclasses.fields(Storage)}),
        connect=lambda: any_of_on_loop([connect(AsyncQdrantClient, *server) for server in settings.servers]),
    )


def _api_key(settings: OnlineStoreSettings, repo: Path) -> str | None:
    if settings.api_key_file is None:
        return None if settings.api_key is None else settings.api_key.get_secret_value()
    path = repo / settings.api_key_file
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = (error.strerror or error) if isinstance(error, OSError) else "it is not ASCII text"
        raise InputError(f"online_store: api_key_file {path} cannot be read: {reason}") from None
    if len(key.split()) != 1:
        raise InputError(f"online_store: api_key_file {path} must hold one key and nothing else")
    return key


def _authorities(path: Path) -> ssl.SSLContext:
    """Trust the certificates of a PEM file. Read here, because gRPC would only report that it cannot connect."""
    try:
        return ssl.create_default_context(cafile=path)
    except OSError as error:  # an SSLError is one
        raise InputError(
            f"online_store: ca_certificate {path} cannot be used: {error.strerror or error}; expected a file of "
            "certificates in PEM format"
        ) from None
