"""`users_for_item`: a scan of all users next to a graph of their dot products, and what the graph costs a publish.

python -m tests.benchmarks.audience --users 100000
python -m tests.benchmarks.audience --users 1000000 --no-graph
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feast_embeddings.engines.embedded.engine import EmbeddedEngine
from feast_embeddings.engines.engine import TIMESTAMP_KEY, CollectionSpec, PointBatch, VectorSpec

CLUSTERS, BATCH, QUERIES, K = 500, 10_000, 200, 100


def batches(vectors: npt.NDArray[np.float32]) -> Iterator[PointBatch]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    for start in range(0, len(vectors), BATCH):
        rows = slice(start, start + BATCH)
        ids = range(len(vectors))[rows]
        mask = np.ones(len(ids), np.bool_)
        yield PointBatch(
            ids=list(ids),
            vectors={"embedding": (vectors[rows], mask), "embedding__cosine": (unit[rows], mask)},
            payloads=[{TIMESTAMP_KEY: 0, "user_id": id} for id in ids],
            timestamps=np.zeros(len(ids), np.int64),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--no-graph", action="store_true", help="the scan only, over collections without any graph")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLUSTERS, options.dim), dtype=np.float32)
    # Users of trained models lie in clusters, and are longer the more they did.
    users = centres[rng.integers(CLUSTERS, size=options.users)]
    users += rng.standard_normal(users.shape, dtype=np.float32)
    users *= rng.lognormal(0, 0.5, (options.users, 1)).astype(np.float32)
    queries = centres[rng.integers(CLUSTERS, size=QUERIES)]
    queries = queries + rng.standard_normal(queries.shape, dtype=np.float32)
    best = [np.sort(users @ query)[-K:] for query in queries[:50]]
    for indexed in (False,) if options.no_graph else (False, True):
        spec = CollectionSpec(
            alias="users",
            vectors={
                "embedding": VectorSpec(size=options.dim, distance="Dot", indexed=indexed),
                "embedding__cosine": VectorSpec(size=options.dim, distance="Cosine", indexed=True),
            },
            payload_indexes={},
        )
        with tempfile.TemporaryDirectory() as folder:
            engine = EmbeddedEngine(Path(folder))
            started = time.perf_counter()
            engine.create("users", spec, batches(users), wait_for_indexes=not options.no_graph)
            seconds = time.perf_counter() - started
            size = sum(file.stat().st_blocks * 512 for file in Path(folder).rglob("*") if file.is_file()) / 2**20
            print(f"{options.users:,} users, dot products {'in a graph' if indexed else 'scanned'}: "
                  f"created in {seconds:.1f} s, {size:.0f} MiB on disk", flush=True)  # fmt: skip
            for k, ef in [(10, 512), (100, 512), (100, 1024)] if indexed else [(10, 0), (100, 0)]:
                times, found, asked = [], 0, 0
                for number, query in enumerate(queries):
                    started = time.perf_counter()
                    hits = engine.query(
                        "users", "embedding", query, limit=k, payload=["user_id"], exact=not indexed, search_ef=ef
                    )
                    times.append(time.perf_counter() - started)
                    if number < len(best):
                        found += sum(hit.score >= best[number][-k] * (1 - 1e-5) for hit in hits)
                        asked += k
                print(f"  {k} best{f', {ef} candidates' if ef else ''}: p50 {1000 * float(np.median(times)):.2f} ms, "
                      f"recall {found / asked:.4f}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
