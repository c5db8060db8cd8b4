"""Check the `online_store` section of feature_store.yaml: a setting without effect is an error."""

from __future__ import annotations

from typing import Any, Literal, Self

from feast.infra.online_stores.vector_store import VectorStoreConfig
from feast.repo_config import FeastConfigBaseModel
from pydantic import (
    ModelWrapValidatorHandler,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)

from feast_embeddings.engines.engine import Hnsw
from feast_embeddings.errors import InputError

__all__ = ["OnlineStoreSettings"]

_EMBEDDED_ONLY = {"lock_timeout"}
_SERVER_ONLY = {
    *("api_key", "api_key_file", "ca_certificate", "prefer_grpc", "grpc_port", "timeout", "retries"),
    *("on_disk", "quantization", "shard_number", "replication_factor"),
}


class OnlineStoreSettings(FeastConfigBaseModel, VectorStoreConfig):
    """The `online_store` section of feature_store.yaml."""

    path: str | None = None
    """Folder of the embedded engine, relative to the repo. The default engine is embedded, in qdrant_storage."""
    enforce_ttl: bool = True
    """Whether a row older than its feature view's ttl is missing from online reads and document searches."""
    hnsw_m: NonNegativeInt = Hnsw.m
    """Edges per node of the HNSW graph, for new collections; 0 builds no graph, and searches look at every vector."""
    hnsw_ef_construct: PositiveInt = Hnsw.ef_construct
    """Candidates for the edges of a new node, for new collections."""
    search_ef: PositiveInt | None = None
    """Candidates that a search keeps: more find more of the nearest, but take longer. By default 512, or fewer if a
    publish found that fewer are enough for the ten nearest."""
    lock_timeout: PositiveFloat = 30.0
    """Embedded: seconds to wait for another writer."""
    url: str | None = None
    """Address of a Qdrant server, e.g. http://localhost:6333; selects the server engine."""
    api_key: SecretStr | None = None
    """Server: API key; write ${QDRANT_API_KEY} and set the environment variable."""
    api_key_file: str | None = None
    """Server: file with the API key, relative to the repo, as Docker and Kubernetes mount secrets."""
    ca_certificate: str | None = None
    """Server: PEM file, relative to the repo, of the authority that signed the certificate of an https url."""
    prefer_grpc: bool = True
    """Server: gRPC for data; REST if false."""
    grpc_port: int = 6334
    """Server: gRPC port on the host of `url`."""
    timeout: PositiveInt = 30
    """Server: timeout of a request, in seconds."""
    retries: NonNegativeInt = 3
    """Server: retries of a request if Qdrant is busy or not reachable."""
    on_disk: bool = False
    """Server: keep vectors, graph and payload on disk, for new collections."""
    quantization: Literal["scalar", "binary"] | None = None
    """Server: search on int8 or binary vectors, and rescore with the vectors; for new collections."""
    shard_number: PositiveInt | None = None
    """Server: shards per new collection; by default as in the cluster's settings."""
    replication_factor: PositiveInt | None = None
    """Server: copies of each shard of new collections; by default as in the cluster's settings."""

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            settings = handler(data)
        except ValidationError as error:
            # Not re-raised: Feast would print all settings with it, including the API key.
            first = error.errors(include_input=False)[0]
            raise InputError(f"online_store.{'.'.join(map(str, first['loc']))}: {first['msg']}") from None
        if settings.url is not None and settings.path is not None:
            raise InputError("online_store: set url (a Qdrant server) or path (the embedded engine), not both")
        idle = settings.model_fields_set & (_SERVER_ONLY if settings.url is None else _EMBEDDED_ONLY)
        if idle:
            needs = (
                "needs url, a Qdrant server" if settings.url is None else "is only for the embedded engine, without url"
            )
            raise InputError(f"online_store: {min(idle)} {needs}; it would have no effect")
        if settings.api_key is not None and settings.api_key_file is not None:
            raise InputError("online_store: set api_key or api_key_file, not both")
        if settings.ca_certificate is not None and not (settings.url or "").lower().startswith("https://"):
            raise InputError("online_store: ca_certificate needs an https url; it would have no effect")
        key = "" if settings.api_key is None else settings.api_key.get_secret_value()
        if key.startswith("$"):
            raise InputError(f"online_store: api_key is {key}, but that environment variable is not set")
        return settings
