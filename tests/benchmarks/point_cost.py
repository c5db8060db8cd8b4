"""What a published user or item costs in the embedded engine: bytes on disk and in memory, seconds to load and index.

    python -m tests.benchmarks.point_cost

At two sizes, so that what grows with the number of points can be told from what does not. docs/scale.md plans with
these numbers. Points are made as publish makes them; vectors are random with a spectrum that falls as that of
trained factors does, as the graph of white noise would be unlike any model's.
Memory is that of a fresh process after it has answered a thousand queries: its own, and pages of the files, which the
system can take back.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from feast_embeddings import embedding_views
from feast_embeddings.artifact import ENTITIES, Artifact, EmbeddingTable, Entity, TrainerInfo, write_artifact
from feast_embeddings.codec.collection import collection_spec, vector_fields
from feast_embeddings.codec.columns import encode_table
from feast_embeddings.codec.rows import PointCodec
from feast_embeddings.engines.embedded.engine import EmbeddedEngine
from feast_embeddings.engines.engine import PointBatch
from feast_embeddings.repo import init_repo

_SEEN = 20
_QUERIES = 1000


def make_artifact(data: Path, n: int, dim: int) -> Artifact:
    """A version with n users, who have seen 20 items each, and n items with four attributes."""
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, dim + 1, dtype=np.float32) ** -0.5

    def table(prefix: str, **columns: Any) -> EmbeddingTable:
        ids = pa.array(np.char.add(prefix, np.arange(n).astype(str)))
        vectors = rng.standard_normal((n, dim), dtype=np.float32) * spectrum
        return EmbeddingTable(ids=ids, embedding=vectors, n_interactions=np.ones(n, dtype=np.int64), **columns)

    seen = pa.chunked_array([pa.array(np.char.add("sku-", rng.integers(0, n, n * _SEEN).astype(str)))])
    offsets = np.arange(0, n * _SEEN + 1, _SEEN, dtype=np.int32)
    attributes = {
        "title": pa.array(np.char.add("A title of some words, number ", np.arange(n).astype(str))),
        "category": pa.array(np.char.add("category-", rng.integers(0, 50, n).astype(str))),
        "price": pa.array(rng.random(n)),
        "stock": pa.array(rng.integers(0, 1000, n)),
    }
    return write_artifact(
        data,
        "shop",
        users=table("u-", seen_items=pa.ListArray.from_arrays(offsets, seen.combine_chunks())),
        items=table("sku-", bias=rng.standard_normal(n, dtype=np.float32), attributes=pa.table(attributes)),
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        trainer=TrainerInfo(name="random", config={}),
        seed=0,
        metrics={},
        fingerprint="",
        n_interactions=n * _SEEN,
    )


def load(folder: Path, artifact: Artifact, entity: Entity) -> dict[str, float]:
    """Load one side into an engine in this folder; seconds by step, and bytes on disk."""
    views = embedding_views("shop", artifact.path.parents[1])
    view = views.user_embeddings if entity == "user" else views.item_embeddings
    assert view is not None
    codec = PointCodec(view, vector_fields(view))
    dims = dict.fromkeys(codec.fields, artifact.manifest.dim)
    spec = collection_spec(codec.view, "shop", codec.fields, dims, version=artifact.manifest.version)
    table, seconds = artifact.table(entity), {"encode": 0.0}

    def batches() -> Iterator[PointBatch]:
        source = encode_table(codec, table)
        while True:
            start = time.perf_counter()
            batch = next(source, None)
            seconds["encode"] += time.perf_counter() - start
            if batch is None:
                break
            yield batch
        seconds["loaded"] = time.perf_counter()

    start = time.perf_counter()
    EmbeddedEngine(folder).create("shop__1", spec, batches())
    end = time.perf_counter()
    return {
        "encode": seconds["encode"],
        "load": seconds["loaded"] - start - seconds["encode"],
        "index": end - seconds["loaded"],
        "disk": float(sum(path.stat().st_blocks * 512 for path in folder.rglob("*") if path.is_file())),
    }


def resident() -> tuple[int, int]:
    """Bytes of this process in memory now: its own, and pages of files (Linux)."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    own, files = (int(status[name].split()[0]) * 1024 for name in ("RssAnon", "RssFile"))
    return own, files


def serve(folder: Path, dim: int, answer: Any) -> None:
    """Answer queries, and send what memory that took; runs in a process of its own."""
    rng = np.random.default_rng(1)
    vector = "embedding__cosine"
    engine, before = EmbeddedEngine(folder), resident()
    for _ in range(_QUERIES):
        engine.query("shop__1", vector, rng.standard_normal(dim).astype(np.float32), limit=10)
    after = resident()
    answer.put((after[0] - before[0], after[1] - before[1]))


def measure(n: int, dim: int, entity: Entity) -> dict[str, float]:
    """All numbers for one side at one size."""
    with tempfile.TemporaryDirectory() as name:
        repo = init_repo(Path(name) / "repo")
        artifact = make_artifact(repo.data, n, dim)
        numbers = load(Path(name) / "engine", artifact, entity)
        spawn = multiprocessing.get_context("spawn")
        answer = spawn.Queue()
        process = spawn.Process(target=serve, args=(Path(name) / "engine", dim, answer))
        process.start()
        numbers["own"], numbers["files"] = answer.get(timeout=600)
        process.join()
    return numbers


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--points", type=int, nargs=2, default=[100_000, 300_000])
    parser.add_argument("--dim", type=int, default=64)
    options = parser.parse_args()
    print(f"{os.cpu_count()} cores, load average {os.getloadavg()}; {options.dim} factors")
    print("| side | points | disk, bytes each | own memory, bytes each | pages of files, bytes each |", end="")
    print(" encode, µs each | load, µs each | index, µs each |")
    print("|---|---|---|---|---|---|---|---|")
    for entity in ENTITIES:
        sizes = [measure(n, options.dim, entity) for n in options.points]
        for n, numbers in zip(options.points, sizes, strict=True):
            print(row(entity, f"{n:,}", numbers, n), flush=True)
        small, large = sizes
        growth = {name: large[name] - small[name] for name in large}
        print(row(entity, "each more", growth, options.points[1] - options.points[0]), flush=True)


def row(entity: str, label: str, numbers: dict[str, float], n: int) -> str:
    sizes = [f"{numbers[name] / n:,.0f}" for name in ("disk", "own", "files")]
    times = [f"{numbers[name] / n * 1e6:,.1f}" for name in ("encode", "load", "index")]
    return f"| {entity} | {label} | {' | '.join(sizes + times)} |"


if __name__ == "__main__":
    main()
