"""How fast `feast materialize` is with this package, next to Feast's own engine and next to the engine's own limit.

    python -m tests.benchmarks.materialize --rows 100000

One process starts everything, one after the other, on a table made here: an int64 id, a float32 vector, and three
scalars (int64, float64, text). Only ratios of one run mean something on another machine.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import qdrant_edge as edge
import yaml
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.types import Array, Float32, Float64, Int64, String
from tests.benchmarks.peak_memory import PeakMemory

from feast_embeddings.codec.collection import collection_spec
from feast_embeddings.codec.columns import encode_table
from feast_embeddings.engines.embedded.engine import EmbeddedEngine
from feast_embeddings.engines.engine import PointBatch
from feast_embeddings.model.sides import qdrant_store
from feast_embeddings.online.table_names import table_id

NOW = datetime(2026, 6, 1, tzinfo=UTC)
_PART = 50_000


def make_table(first: int, n: int, dim: int) -> pa.Table:
    """Rows `first` to `first + n`, in the schema of the benchmark."""
    rng = np.random.default_rng(first)
    ids = np.arange(first, first + n)
    values = pa.array(rng.standard_normal(n * dim).astype(np.float32))
    return pa.table(
        {
            "item_id": ids,
            "vector": pa.FixedSizeListArray.from_arrays(values, dim).cast(pa.list_(pa.float32())),
            "stock": ids % 1000,
            "price": rng.uniform(1, 100, n),
            "title": [f"title {i}" for i in ids],
            "event_timestamp": pa.array([NOW] * n, pa.timestamp("us", tz="UTC")),
        }
    )


def make_repo(folder: Path, source: Path, dim: int, online: dict[str, Any], engine: str) -> FeatureStore:
    """A Feast repo over the source, applied."""
    folder.mkdir()
    config = {
        "project": "bench",
        "provider": "local",
        "registry": "registry.db",
        "offline_store": {"type": "duckdb"},
        "online_store": online,
        "batch_engine": {"type": engine},
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(config))
    store = FeatureStore(repo_path=str(folder))
    entity = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
    view = FeatureView(
        name="items",
        entities=[entity],
        schema=[
            Field(name="item_id", dtype=Int64),
            Field(
                name="vector",
                dtype=Array(Float32),
                vector_index=True,
                vector_length=dim,
                vector_search_metric="cosine",
            ),
            Field(name="stock", dtype=Int64),
            Field(name="price", dtype=Float64),
            Field(name="title", dtype=String),
        ],
        source=FileSource(path=str(source), file_format=ParquetFormat(), timestamp_field="event_timestamp"),
        ttl=timedelta(0),
    )
    store.apply([entity, view])
    return store


def timed(action: Callable[[], object]) -> tuple[float, float]:
    """Wall and CPU seconds of one call, those of the processes that it starts included."""
    wall, cpu = time.perf_counter(), sum(os.times()[:4])
    action()
    return time.perf_counter() - wall, sum(os.times()[:4]) - cpu


def report(what: str, rows: int, seconds: tuple[float, float], memory: PeakMemory) -> float:
    rate = rows / seconds[0]
    print(
        f"{what:68s} {rows:>9,} rows {seconds[0]:8.2f} s ({seconds[1]:7.2f} CPU) {rate:>9,.0f} rows/s, "
        f"peak {memory.gib:.2f} GiB",
        flush=True,
    )
    return rate


def measure(rows: int, dim: int, compare: bool) -> dict[str, float]:
    """Rows per second of each way, for one size."""
    rates: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = folder / "items.parquet"
        with pq.ParquetWriter(source, make_table(0, 1, dim).schema) as writer:
            for first in range(0, rows, _PART):
                writer.write_table(make_table(first, min(_PART, rows - first), dim))
        ours = make_repo(
            folder / "ours",
            source,
            dim,
            {"type": "feast_embeddings.QdrantEmbeddingOnlineStore"},
            "feast_embeddings.ArrowComputeEngine",
        )
        window = (NOW - timedelta(days=1), NOW + timedelta(days=1))
        with PeakMemory() as memory:
            seconds = timed(lambda: ours.materialize(*window))
        rates["ours"] = report("ours: FeatureStore.materialize, Parquet -> embedded engine", rows, seconds, memory)
        with PeakMemory() as memory:
            seconds = timed(lambda: ours.materialize(*window))
        rates["again"] = report("ours, the same rows again (copy, compare, overwrite)", rows, seconds, memory)
        if compare:
            rates["engine"] = measure_engine(ours, folder / "raw", rows, dim)
            rates["edge"] = measure_edge(ours, folder / "edge", rows, dim)
            theirs = make_repo(folder / "theirs", source, dim, {"type": "sqlite", "path": "online.db"}, "local")
            with PeakMemory() as memory:
                seconds = timed(lambda: theirs.materialize(*window))
            rates["stock"] = report("stock: LocalComputeEngine + DuckDB -> sqlite", rows, seconds, memory)
    return rates


def ready_batches(store: FeatureStore, rows: int, dim: int) -> Iterator[PointBatch]:
    codec = qdrant_store(store).codec(store.config, store.get_feature_view("items"))
    for first in range(0, rows, _PART):
        yield from encode_table(codec, make_table(first, min(_PART, rows - first), dim))


def measure_engine(store: FeatureStore, folder: Path, rows: int, dim: int) -> float:
    """Ready `PointBatch`es -> a collection: what the embedded engine alone takes, Python's part of it included."""
    view = store.get_feature_view("items")
    codec = qdrant_store(store).codec(store.config, view)
    spec = collection_spec(view, table_id(store.config, view), codec.fields, {"vector": dim})
    ready = list(ready_batches(store, rows, dim))
    engine = EmbeddedEngine(folder)
    with PeakMemory() as memory:
        seconds = timed(lambda: engine.create("raw", spec, ready, wait_for_indexes=False))
    engine.close()
    return report("raw A: EmbeddedEngine.create, fed ready PointBatches", rows, seconds, memory)


def measure_edge(store: FeatureStore, folder: Path, rows: int, dim: int) -> float:
    """Ready `qdrant_edge.Point` objects -> a shard of the same configuration, in this one process.

    What Qdrant's Rust code alone takes.
    """
    view = store.get_feature_view("items")
    codec = qdrant_store(store).codec(store.config, view)
    spec = collection_spec(view, table_id(store.config, view), codec.fields, {"vector": dim})
    engine = EmbeddedEngine(folder)
    engine.create("empty", spec, [])
    engine.close()
    (path,) = (folder / "shards").iterdir()
    shard = edge.EdgeShard.load(str(path))
    wall = cpu = 0.0
    with PeakMemory() as memory:
        for batch in ready_batches(store, rows, dim):
            points = list(map(edge.Point, batch.ids, batch.named_vectors(), batch.payloads))
            for start in range(0, len(points), 1000):
                part = timed(
                    lambda: shard.update(edge.UpdateOperation.upsert_points(points[start : start + 1000]))  # noqa: B023
                )
                wall, cpu = wall + part[0], cpu + part[1]
        part = timed(shard.flush)
    shard.close()
    seconds = (wall + part[0], cpu + part[1])
    return report("raw B: EdgeShard.update + flush, fed ready qdrant_edge.Point objects", rows, seconds, memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--large-rows", type=int, default=0, help="a second size, for the ratio of the rates; 0: none")
    options = parser.parse_args()
    print(f"vectors: {options.dim} x float32; payload: id, two numbers, a text; load average {os.getloadavg()}")
    large = measure(options.large_rows, options.dim, compare=False) if options.large_rows else {}
    rates = measure(options.rows, options.dim, compare=True)
    print(f"ours / stock                                    {rates['ours'] / rates['stock']:6.2f}   (bar: at least 4)")
    print(
        f"ours / raw A, the engine fed ready PointBatches {rates['ours'] / rates['engine']:6.2f}   (bar: at least 0.7)"
    )
    print(f"ours / raw B, the Rust code alone               {rates['ours'] / rates['edge']:6.2f}")
    if large:
        name = f"ours at {options.large_rows:,} / at {options.rows:,}"
        print(f"{name:47s} {large['ours'] / rates['ours']:6.2f}   (bar: at least 0.7)")
    print(f"highest memory of all processes {PeakMemory.highest:.2f} GiB; load average {os.getloadavg()}")


if __name__ == "__main__":
    main()
