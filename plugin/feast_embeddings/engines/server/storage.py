"""How a Qdrant server stores new collections and searches all, according to the settings of the online store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from qdrant_client import QdrantClient, models

from feast_embeddings.engines.engine import ACORN_SELECTIVITY, TIMESTAMP_KEY, CollectionSpec, Hnsw, IndexType
from feast_embeddings.engines.payload import payload_key
from feast_embeddings.engines.server.catalog import birth_mark, metadata_of
from feast_embeddings.engines.server.failures import Caller, engine_errors

__all__ = ["Storage", "add_indexes", "create_collection", "create_indexes", "search_parameters"]

# Late rows are found by these: a server in strict mode filters only on indexed keys.
_ALWAYS_INDEXED: dict[str, IndexType] = {TIMESTAMP_KEY: "unlinked"}

Quantization = Literal["scalar", "product", "binary"]
Compression = Literal["x4", "x8", "x16", "x32", "x64"]


@dataclass(frozen=True)
class Storage:
    """How the server stores a new collection, and reads all; see the settings of the same names."""

    on_disk: bool = False
    on_disk_payload: bool | None = None
    hnsw_on_disk: bool | None = None
    datatype: Literal["float32", "float16"] = "float32"
    quantization: Quantization | None = None
    quantization_always_ram: bool = True
    product_compression: Compression = "x16"
    oversampling: float = 3.0
    rescore: bool = True
    shard_number: int | None = None
    replication_factor: int | None = None
    write_consistency_factor: int | None = None
    read_fan_out_factor: int | None = None
    read_consistency: int | Literal["majority", "quorum", "all"] | None = None
    indexing_threshold: int | None = None
    default_segment_number: int | None = None
    max_segment_size: int | None = None
    max_optimization_threads: int | None = None

    @property
    def consistency(self) -> models.ReadConsistency | None:
        """How many replicas a read asks, and must agree; None: one."""
        asked = self.read_consistency
        return models.ReadConsistencyType(asked) if isinstance(asked, str) else asked

    def quantizer(self) -> models.QuantizationConfig | None:
        """Return the quantization of searched vectors."""
        ram = self.quantization_always_ram
        if self.quantization == "scalar":
            scalar = models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=ram)
            return models.ScalarQuantization(scalar=scalar)
        if self.quantization == "product":
            ratio = models.CompressionRatio(self.product_compression)
            product = models.ProductQuantizationConfig(compression=ratio, always_ram=ram)
            return models.ProductQuantization(product=product)
        if self.quantization == "binary":
            return models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=ram))
        return None

    def optimizers(self) -> models.OptimizersConfigDiff | None:
        """Return the settings of the optimizers; None: all as the server has them."""
        names = ("indexing_threshold", "default_segment_number", "max_segment_size", "max_optimization_threads")
        given = {name: value for name in names if (value := getattr(self, name)) is not None}
        return models.OptimizersConfigDiff(**given) if given else None


def create_collection(
    caller: Caller, client: QdrantClient, collection: str, spec: CollectionSpec, hnsw: Hnsw, storage: Storage
) -> None:
    """Make a collection without points; its name must be unused."""
    creating = f"create {collection!r}"
    with engine_errors(creating):
        # Not retried: a retry would fail on the collection of a first request whose answer was lost.
        client.create_collection(collection, metadata=metadata_of(spec), **_creation_parameters(spec, hnsw, storage))
    if storage.read_fan_out_factor is not None:
        # A request to create a collection does not have it.
        fan_out = models.CollectionParamsDiff(read_fan_out_factor=storage.read_fan_out_factor)
        caller.ask(creating, client.update_collection, collection, collection_params=fan_out)
    mark = models.CreateAlias(collection_name=collection, alias_name=birth_mark())
    caller.ask(creating, client.update_collection_aliases, [models.CreateAliasOperation(create_alias=mark)])
    # Before the points, so that the graph is built for these filters.
    create_indexes(caller, client, collection, _ALWAYS_INDEXED | spec.payload_indexes)


def create_indexes(caller: Caller, client: QdrantClient, collection: str, indexes: Mapping[str, IndexType]) -> None:
    for name, index in indexes.items():
        schema = _index_schema(index)
        caller.ask(f"index {collection!r}", client.create_payload_index, collection, payload_key(name), schema)


def add_indexes(caller: Caller, client: QdrantClient, collection: str, info: models.CollectionInfo) -> bool:
    """Make the indexes that a collection of an older release lacks; False if it lacks none."""
    missing = {name: index for name, index in _ALWAYS_INDEXED.items() if name not in info.payload_schema}
    create_indexes(caller, client, collection, missing)
    return bool(missing)


def _creation_parameters(spec: CollectionSpec, hnsw: Hnsw, storage: Storage) -> dict[str, Any]:
    """Return the arguments of `QdrantClient.create_collection` for this collection, except its name and metadata."""
    hnsw_on_disk = storage.on_disk if storage.hnsw_on_disk is None else storage.hnsw_on_disk
    payload_on_disk = (storage.on_disk or None) if storage.on_disk_payload is None else storage.on_disk_payload
    return {
        "vectors_config": {
            name: models.VectorParams(
                size=vector.size,
                distance=models.Distance(vector.distance),
                on_disk=storage.on_disk,
                datatype=None if storage.datatype == "float32" else models.Datatype(storage.datatype),
                hnsw_config=models.HnswConfigDiff(
                    m=hnsw.m if vector.indexed else 0,
                    ef_construct=hnsw.ef_construct,
                    on_disk=hnsw_on_disk,
                ),
                quantization_config=storage.quantizer() if vector.indexed else None,
            )
            for name, vector in spec.vectors.items()
        },
        "on_disk_payload": payload_on_disk,
        # Counts must be exact, and a search among few given points is a scan, even if the server's strict mode forbids
        # exact requests.
        "strict_mode_config": models.StrictModeConfig(search_allow_exact=True),
        "shard_number": storage.shard_number,
        "replication_factor": storage.replication_factor,
        "write_consistency_factor": storage.write_consistency_factor,
        "optimizers_config": storage.optimizers(),
    }


def search_parameters(storage: Storage, candidates: int, *, exact: bool, filtered: bool) -> models.SearchParams:
    """Return the parameters of every search."""
    return models.SearchParams(
        hnsw_ef=candidates,
        exact=exact,
        quantization=models.QuantizationSearchParams(
            rescore=storage.rescore, oversampling=storage.oversampling if storage.rescore else None
        )
        if storage.quantization
        else None,
        acorn=models.AcornSearchParams(enable=True, max_selectivity=ACORN_SELECTIVITY) if filtered else None,
    )


def _index_schema(index: IndexType) -> models.PayloadFieldSchema:
    """Return Qdrant's schema for a kind of payload index."""
    if index in ("lookup", "unlinked"):
        linked, integer = index == "lookup", models.IntegerIndexType.INTEGER
        return models.IntegerIndexParams(type=integer, lookup=True, range=not linked, enable_hnsw=linked)
    return models.PayloadSchemaType(index)
