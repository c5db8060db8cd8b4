"""Publish of random versions: each step's time and memory, next to the embedded engine fed ready-made points.

Prints both sides from one process, the share of the checks, and the memory over what the engine alone takes. Both
build the graphs, which takes most of the time; --no-graphs leaves them out on both sides, to look at the load alone.

    python -m tests.benchmarks.publish --rows 250000
    python -m tests.benchmarks.publish --rows 1000000 --no-graphs
"""

from __future__ import annotations

import argparse
import gc
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
from tests.benchmarks.peak_memory import PeakMemory

from feast_embeddings import embedding_views
from feast_embeddings.artifact import EmbeddingTable, TrainerInfo, load_artifact, write_artifact
from feast_embeddings.codec.columns import encode_batches
from feast_embeddings.engines.embedded import shards as edge_shards
from feast_embeddings.engines.embedded.engine import EmbeddedEngine
from feast_embeddings.engines.engine import PointBatch
from feast_embeddings.publish.plan import plan_publish
from feast_embeddings.publish.run import publish_artifact
from feast_embeddings.repo import Repo, init_repo

_ITEM_SHARE = 0.75


def write_random(data: Path, rows: int, dim: int) -> None:
    """A version of that many users and items together, clustered as trained vectors are."""
    rng = np.random.default_rng(0)
    n_items = int(rows * _ITEM_SHARE)
    centres = rng.standard_normal((256, dim)).astype(np.float32)

    def table(n: int, bias: bool) -> EmbeddingTable:
        vectors = centres[rng.integers(0, len(centres), n)] + rng.standard_normal((n, dim), dtype=np.float32)
        return EmbeddingTable(
            ids=pa.array(np.arange(n)),
            embedding=vectors,
            n_interactions=rng.integers(1, 500, n),
            bias=rng.standard_normal(n).astype(np.float32) if bias else None,
        )

    write_artifact(
        data,
        "big",
        users=table(rows - n_items, bias=False),
        items=table(n_items, bias=True),
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        trainer=TrainerInfo(name="random", config={}),
        seed=0,
        metrics={},
        fingerprint="0" * 64,
        n_interactions=rows,
    )


def raw(folder: Path, graphs: bool, answer: Any) -> None:
    """Send seconds until the engine has taken the same points, ready in memory, and the GiB it takes next to them."""
    if not graphs:
        without_graphs()
    repo = Repo.open(folder / "repo")
    store, artifact = repo.feature_store(), load_artifact(repo.data, "big")
    _, targets = plan_publish(store, artifact)
    engine, seconds, gib = EmbeddedEngine(folder / "raw"), 0.0, 0.0
    for target in targets:
        ready = list(encode_batches(target.side.codec, target.rows.batches()))
        ended: list[float] = []

        def batches(ready: list[PointBatch] = ready, ended: list[float] = ended) -> Iterator[PointBatch]:
            yield from ready
            ended.append(time.perf_counter())  # as the step "load" of publish

        gc.collect()
        with PeakMemory() as before:
            pass
        with PeakMemory() as memory:
            start = time.perf_counter()
            engine.create(target.collection, target.spec, batches())
        seconds += ended[0] - start
        gib = max(gib, memory.gib - before.gib)
        del ready
    engine.close()
    answer.put((seconds, gib))


def without_graphs() -> None:
    """No collection of this process is large enough for one."""
    edge_shards._GRAPH_KB = 2**40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--no-graphs", action="store_true")
    options = parser.parse_args()
    if options.no_graphs:
        without_graphs()
    print(f"{options.rows:,} x {options.dim} float32, a quarter users; load average {os.getloadavg()}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        repo = init_repo(Path(name) / "repo")
        spawn = multiprocessing.get_context("spawn")
        # Each in a process of its own: the memory of this one is that of publish.
        writer = spawn.Process(target=write_random, args=(repo.data, options.rows, options.dim))
        writer.start()
        writer.join()
        artifact = load_artifact(repo.data, "big")
        store = repo.feature_store()
        store.apply(list(embedding_views("big", repo.data).by_name().values()))
        answer = spawn.Queue()
        process = spawn.Process(target=raw, args=(Path(name), not options.no_graphs, answer))
        process.start()
        seconds, engine_gib = answer.get()
        process.join()
        rate = options.rows / seconds
        print(f"the engine, fed ready points: {seconds:.1f} s, {rate:,.0f} rows/s, {engine_gib:.2f} GiB", flush=True)
        with PeakMemory() as memory:
            result = publish_artifact(store, artifact, on_step=memory.begin)
        for step, of_step in result.step_seconds.items():
            share, gib = of_step / result.seconds, memory.of_step[step]
            print(f"  {step:9s} {of_step:8.2f} s  {share:6.1%}  {gib:6.2f} GiB")
        print(
            f"publish: {result.seconds:.1f} s, peak {memory.gib:.2f} GiB; recall {result.recall}, ef {result.search_ef}"
        )
        load, checks = result.step_seconds["load"], result.step_seconds["check"] + result.step_seconds["verify"]
        print(f"load, rows/s / the engine's:   {seconds / load:6.2f}   (bar: at least 0.8)")
        print(f"checks / the whole:            {checks / result.seconds:6.1%}   (bar: at most 10 %)")
        print(f"memory over the engine's:      {memory.gib - engine_gib:6.2f} GiB (bar: at most 1.5 GB)")
        print(f"load average {os.getloadavg()}")


if __name__ == "__main__":
    main()
