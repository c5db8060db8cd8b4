"""similar_items with filters on a large model: recall@10 against numpy, time, and what the indexes cost to build.

    python -m tests.benchmarks.filtered --items 250000

Items are in clusters. `category` and `price` follow the clusters, so that what passes a filter may be far from the item
that is asked with; `n_interactions` and `stock` do not. Filters that few items pass are answered by a scan; the others
go through the graph, which has edges of its own for every attribute, and none for n_interactions.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feast_embeddings import embedding_views
from feast_embeddings.artifact import EmbeddingTable, TrainerInfo, load_artifact, write_artifact
from feast_embeddings.publish.run import publish_artifact
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo

DIM, CLUSTERS, CATEGORIES = 64, 256, 5
_Columns = dict[str, npt.NDArray[Any]]


def make_items(n: int) -> tuple[npt.NDArray[np.float32], _Columns]:
    """Vectors of n items, and what filters read."""
    rng = np.random.default_rng(0)
    cluster = rng.integers(0, CLUSTERS, n)
    centres = 1.5 * rng.standard_normal((CLUSTERS, DIM), dtype=np.float32)
    columns: _Columns = {
        "category": np.array([f"c{number}" for number in range(CATEGORIES)])[cluster * CATEGORIES // CLUSTERS],
        "price": cluster + rng.random(n),
        "stock": rng.random(n),
        "n_interactions": rng.integers(1, 500, n),
    }
    return centres[cluster] + rng.standard_normal((n, DIM), dtype=np.float32), columns


def filters(columns: _Columns) -> dict[str, npt.NDArray[np.bool_]]:
    """Conditions, and the items that pass them."""
    category, price, stock, count = (columns[name] for name in ("category", "price", "stock", "n_interactions"))
    return {
        "category = 'c1'": category == "c1",
        "category IN ('c1', 'c2')": np.isin(category, ["c1", "c2"]),
        "category <> 'c1'": category != "c1",
        "price < 45": price < 45,
        "price < 128": price < 128,
        "stock < 0.2": stock < 0.2,
        "stock < 0.5 AND category = 'c1'": (stock < 0.5) & (category == "c1"),
        "stock < 0.5 AND price < 128": (stock < 0.5) & (price < 128),
        "n_interactions < 100": count < 100,
        "n_interactions < 250": count < 250,
        "n_interactions < 400 AND price < 128": (count < 400) & (price < 128),
    }


def measure(folder: Path, n: int, n_queries: int) -> None:
    repo = init_repo(folder / "repo")
    vectors, columns = make_items(n)
    counts = columns["n_interactions"].astype(np.int64)
    attributes = pa.table({name: column for name, column in columns.items() if name != "n_interactions"})
    write_artifact(
        repo.data,
        "big",
        users=EmbeddingTable(pa.array([0]), vectors[:1], np.ones(1, np.int64)),
        items=EmbeddingTable(pa.array(range(n)), vectors, counts, attributes=attributes),
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        trainer=TrainerInfo(name="random", config={}),
        seed=0,
        metrics={},
        fingerprint="0" * 64,
        n_interactions=n,
    )
    feature_store = repo.feature_store()
    feature_store.apply(list(embedding_views("big", repo.data).by_name().values()))
    published = publish_artifact(feature_store, load_artifact(repo.data, "big"))
    steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in published.step_seconds.items())
    print(f"{n:,} x {DIM}, load average {os.getloadavg()}; publish, seconds: {steps}", flush=True)

    store = EmbeddingStore(feature_store, "big")
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    sample = np.random.default_rng(1).choice(n, n_queries, replace=False).tolist()
    print("| filter | passes | recall@10 | of the worst query | p50, ms |\n|---|---|---|---|---|")
    for condition, passes in filters(columns).items():
        store.similar_items(sample[0], filter=condition)  # what is read for the first time
        recalls, times = [], []
        for item in sample:
            started = time.perf_counter()
            given = store.similar_items(item, filter=condition, attributes=False).scores
            times.append(time.perf_counter() - started)
            scores = np.where(passes, unit @ unit[item], -np.inf)
            scores[item] = -np.inf
            recalls.append(float((given >= np.partition(scores, -10)[-10] - 1e-6).mean()))
        print(
            f"| `{condition}` | {passes.mean():.0%} | {np.mean(recalls):.4f} | {min(recalls):.1f} | "
            f"{1000 * np.median(times):.1f} |",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=250_000)
    parser.add_argument("--queries", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), options.items, options.queries)


if __name__ == "__main__":
    main()
