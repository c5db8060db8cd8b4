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

__all__ = ["Storage", "add_indexes", "create_collection", "search_parameters"]

# Late rows are found by these: a server in strict mode filters only on indexed keys.
_ALWAYS_INDEXED: dict[str, IndexType] = {TIMESTAMP_KEY: "unlinked"}

_QUANTIZATIONS: dict[str, Any] = {
    "scalar": models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
    ),
    "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
}
# Candidates per hit that a search on quantized vectors rescores with the original vectors.
_OVERSAMPLING = 3.0


@dataclass(frozen=True)
class Storage:
    """How the server stores a new collection; see the settings of the same names."""

    on_disk: bool = False
    quantization: Literal["scalar", "binary"] | None = None
    shard_number: int | None = None
    replication_factor: int | None = None


def create_collection(
    caller: Caller, client: QdrantClient, collection: str, spec: CollectionSpec, hnsw: Hnsw, storage: Storage
) -> None:
    """Make a collection without points; its name must be unused."""
    creating = f"create {collection!r}"
    with engine_errors(creating):
        # Not retried: a retry would fail on the collection of a first request whose answer was lost.
        client.create_collection(collection, metadata=metadata_of(spec), **_creation_parameters(spec, hnsw, storage))
    mark = models.CreateAlias(collection_name=collection, alias_name=birth_mark())
    caller.ask(creating, client.update_collection_aliases, [models.CreateAliasOperation(create_alias=mark)])
    # Before the points, so that the graph is built for these filters.
    _create_indexes(caller, client, collection, _ALWAYS_INDEXED | spec.payload_indexes)


def _create_indexes(caller: Caller, client: QdrantClient, collection: str, indexes: Mapping[str, IndexType]) -> None:
    for name, index in indexes.items():
        schema = _index_schema(index)
        caller.ask(f"index {collection!r}", client.create_payload_index, collection, payload_key(name), schema)


def add_indexes(caller: Caller, client: QdrantClient, collection: str, info: models.CollectionInfo) -> bool:
    """Make the indexes that a collection of an older release lacks; False if it lacks none."""
    missing = {name: index for name, index in _ALWAYS_INDEXED.items() if name not in info.payload_schema}
    _create_indexes(caller, client, collection, missing)
    return bool(missing)


def _creation_parameters(spec: CollectionSpec, hnsw: Hnsw, storage: Storage) -> dict[str, Any]:
    """Return the arguments of `QdrantClient.create_collection` for this collection, except its name and metadata."""
    return {
        "vectors_config": {
            name: models.VectorParams(
                size=vector.size,
                distance=models.Distance(vector.distance),
                on_disk=storage.on_disk,
                hnsw_config=models.HnswConfigDiff(
                    m=hnsw.m if vector.indexed else 0,
                    ef_construct=hnsw.ef_construct,
                    on_disk=storage.on_disk,
                ),
                quantization_config=_QUANTIZATIONS[storage.quantization]
                if vector.indexed and storage.quantization
                else None,
            )
            for name, vector in spec.vectors.items()
        },
        "on_disk_payload": storage.on_disk or None,
        # Counts must be exact, and a search among few given points is a scan, even if the server's strict mode forbids
        # exact requests.
        "strict_mode_config": models.StrictModeConfig(search_allow_exact=True),
        "shard_number": storage.shard_number,
        "replication_factor": storage.replication_factor,
    }


def search_parameters(storage: Storage, candidates: int, *, exact: bool, filtered: bool) -> models.SearchParams:
    """Return the parameters of every search."""
    return models.SearchParams(
        hnsw_ef=candidates,
        exact=exact,
        quantization=models.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING)
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
