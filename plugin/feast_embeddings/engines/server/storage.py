"""How a Qdrant server stores collections and searches them, from the settings of the online store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from qdrant_client import models

from feast_embeddings.engines.engine import ACORN_SELECTIVITY, CollectionSpec, Hnsw, IndexType

__all__ = ["Storage", "creation_parameters", "index_schema", "search_parameters"]

_QUANTIZATIONS: dict[str, Any] = {
    "scalar": models.ScalarQuantization(
        scalar=models.ScalarQuantizationConfig(type=models.ScalarType.INT8, always_ram=True)
    ),
    "binary": models.BinaryQuantization(binary=models.BinaryQuantizationConfig(always_ram=True)),
}
# How many more candidates than hits a search on quantized vectors rescores with the vectors themselves.
_OVERSAMPLING = 3.0


@dataclass(frozen=True)
class Storage:
    """How the server stores a new collection; see the settings of the same names."""

    on_disk: bool = False
    quantization: Literal["scalar", "binary"] | None = None
    shard_number: int | None = None
    replication_factor: int | None = None


def creation_parameters(spec: CollectionSpec, hnsw: Hnsw, storage: Storage) -> dict[str, Any]:
    """The arguments of `QdrantClient.create_collection` for this collection, but for its name and metadata."""
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
        # Counts must be right, and a search among few given points is a scan, also where the server's strict mode
        # forbids exact requests.
        "strict_mode_config": models.StrictModeConfig(search_allow_exact=True),
        "shard_number": storage.shard_number,
        "replication_factor": storage.replication_factor,
    }


def search_parameters(storage: Storage, *, exact: bool, candidates: int, filtered: bool) -> models.SearchParams:
    """Of every search."""
    return models.SearchParams(
        hnsw_ef=candidates,
        exact=exact,
        quantization=models.QuantizationSearchParams(rescore=True, oversampling=_OVERSAMPLING)
        if storage.quantization
        else None,
        acorn=models.AcornSearchParams(enable=True, max_selectivity=ACORN_SELECTIVITY) if filtered else None,
    )


def index_schema(index: IndexType) -> models.PayloadFieldSchema:
    """Qdrant's words for a kind of payload index."""
    if index in ("lookup", "unlinked"):
        linked, integer = index == "lookup", models.IntegerIndexType.INTEGER
        return models.IntegerIndexParams(type=integer, lookup=True, range=not linked, enable_hnsw=linked)
    return models.PayloadSchemaType(index)
