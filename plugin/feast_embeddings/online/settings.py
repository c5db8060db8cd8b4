"""Check the `online_store` section of feature_store.yaml: a setting without effect is an error."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Literal, Self

from feast.infra.online_stores.vector_store import VectorStoreConfig
from feast.repo_config import FeastConfigBaseModel
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    model_validator,
)

from feast_embeddings.engines.engine import Hnsw
from feast_embeddings.engines.server.storage import Storage
from feast_embeddings.errors import InputError

__all__ = ["OnlineStoreSettings"]

_EMBEDDED_ONLY = {"lock_timeout"}
_SERVER_ONLY = {
    *("addresses", "api_key", "api_key_file", "ca_certificate", "prefer_grpc", "grpc_port", "timeout", "retries"),
    *(field.name for field in dataclasses.fields(Storage)),
}
_QUANTIZED_ONLY = {"quantization_always_ram", "product_compression", "oversampling", "rescore"}


class ServerAddress(BaseModel):
    """The address of a node, or its URL alone."""

    model_config = ConfigDict(extra="forbid")

    url: str
    grpc_port: int | None = None
    """By default as in the settings."""

    @model_validator(mode="before")
    @classmethod
    def _of_url(cls, data: Any) -> Any:
        return {"url": data} if isinstance(data, str) else data


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
    min_recall: Annotated[float, Field(gt=0, le=1)] = 0.99
    """Least share of the ten nearest that searches must find for a publish to make a version live."""
    artifact_store: Annotated[str | None, Field(min_length=1, repr=False)] = None
    """Where `publish` copies versions to, and services and `pull` find those that their disk lacks: ``s3://…``,
    ``gs://…``, or a folder, relative to the repo."""
    lock_timeout: PositiveFloat = 30.0
    """Embedded: seconds to wait for another writer."""
    url: str | None = None
    """Address of a Qdrant server, e.g. http://localhost:6333; selects the server engine."""
    addresses: Annotated[list[ServerAddress], Field(min_length=1)] | None = None
    """Server: several nodes of one cluster, instead of `url`: what one does not answer goes to the next."""
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
    on_disk_payload: bool | None = None
    """Server: the payload on disk; by default as `on_disk`, for new collections."""
    hnsw_on_disk: bool | None = None
    """Server: the graph on disk; by default as `on_disk`, for new collections."""
    datatype: Literal["float32", "float16"] = "float32"
    """Server: numbers of stored vectors; float16 halves them, and reads return them rounded; for new collections."""
    quantization: Literal["scalar", "product", "binary"] | None = None
    """Server: search on int8, product-quantized or binary vectors; for new collections."""
    quantization_always_ram: bool = Storage.quantization_always_ram
    """Server: keep quantized vectors in memory, though `on_disk` is true; for new collections."""
    product_compression: Literal["x4", "x8", "x16", "x32", "x64"] = Storage.product_compression
    """Server: how much smaller product quantization makes vectors, for new collections."""
    oversampling: Annotated[float, Field(ge=1, allow_inf_nan=False)] = Storage.oversampling
    """Server: candidates per result that a search on quantized vectors rescores with the vectors."""
    rescore: bool = Storage.rescore
    """Server: false skips that; scores then come from quantized vectors."""
    shard_number: PositiveInt | None = None
    """Server: shards per new collection; by default as in the cluster's settings."""
    replication_factor: PositiveInt | None = None
    """Server: copies of each shard of new collections; by default as in the cluster's settings."""
    write_consistency_factor: PositiveInt | None = None
    """Server: replicas that must have written before a write is done, for new collections."""
    read_fan_out_factor: NonNegativeInt | None = None
    """Server: more replicas that a read asks at once, to take the first answer; for new collections."""
    read_consistency: PositiveInt | Literal["majority", "quorum", "all"] | None = None
    """Server: replicas that a read asks, and that must agree; by default one."""
    indexing_threshold: NonNegativeInt | None = None
    """Server: kilobytes of vectors from which a segment gets a graph; 0: none gets one. For new collections."""
    default_segment_number: NonNegativeInt | None = None
    """Server: segments of a shard that the optimizer aims at; 0: one for each core. For new collections."""
    max_segment_size: PositiveInt | None = None
    """Server: largest segment that the optimizer makes, in kilobytes; for new collections."""
    max_optimization_threads: NonNegativeInt | None = None
    """Server: threads of the optimizer per shard; for new collections."""

    @property
    def servers(self) -> list[tuple[str, int]]:
        """The URL and gRPC port of each address of the server; none for the embedded engine."""
        if self.addresses is not None:
            return [(at.url, self.grpc_port if at.grpc_port is None else at.grpc_port) for at in self.addresses]
        return [] if self.url is None else [(self.url, self.grpc_port)]

    @model_validator(mode="wrap")
    @classmethod
    def _check(cls, data: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            settings = handler(data)
        except ValidationError as error:
            # Not re-raised: Feast would print all settings with it, including the API key.
            wrong = error.errors(include_input=False)[0]
            raise InputError(f"online_store.{'.'.join(map(str, wrong['loc']))}: {wrong['msg']}") from None
        if settings.addresses is not None:
            first = settings.addresses[0].url
            if settings.url not in (None, first):
                raise InputError("online_store: set url or addresses, not both")
            settings.url = first
        if settings.url is not None and settings.path is not None:
            raise InputError("online_store: set url (a Qdrant server) or path (the embedded engine), not both")
        idle = settings.model_fields_set & (_SERVER_ONLY if settings.url is None else _EMBEDDED_ONLY)
        if idle:
            needs = (
                "needs url, a Qdrant server" if settings.url is None else "is only for the embedded engine, without url"
            )
            raise InputError(f"online_store: {min(idle)} {needs}; it would have no effect")
        _check_storage(settings)
        if settings.api_key is not None and settings.api_key_file is not None:
            raise InputError("online_store: set api_key or api_key_file, not both")
        if settings.ca_certificate is not None and not all(
            url.lower().startswith("https://") for url, _ in settings.servers
        ):
            raise InputError("online_store: ca_certificate needs an https url; it would have no effect")
        key = "" if settings.api_key is None else settings.api_key.get_secret_value()
        if key.startswith("$"):
            raise InputError(f"online_store: api_key is {key}, but that environment variable is not set")
        return settings


def _check_storage(settings: OnlineStoreSettings) -> None:
    """Check the settings that depend on each other."""
    given = settings.model_fields_set
    if settings.quantization is None and (idle := given & _QUANTIZED_ONLY):
        raise InputError(f"online_store: {min(idle)} needs quantization; it would have no effect")
    if "product_compression" in given and settings.quantization != "product":
        raise InputError("online_store: product_compression needs quantization: product; it would have no effect")
    if "oversampling" in given and not settings.rescore:
        raise InputError("online_store: oversampling needs rescore: true; it would have no effect")
    written, copies = settings.write_consistency_factor, settings.replication_factor
    if written is not None and copies is not None and written > copies:
        raise InputError(
            f"online_store: write_consistency_factor is {written}, expected at most replication_factor, {copies}: "
            "no write could succeed"
        )
