"""What pushing the vectors that events changed costs on the embedded engine, which copies its collection for a write.

    python -m tests.benchmarks.event_push [--users 100000] [--changed 1000]

Random vectors, said to be of a trainer; each changed user has one event with a known item.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from feast_embeddings import embedding_views
from feast_embeddings.artifact import EmbeddingTable, TrainerInfo, write_artifact
from feast_embeddings.publish.run import publish_artifact
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo

_DIM, _ITEMS, _HISTORY, _TIMES = 64, 10_000, 20, 5


def measure(folder: Path, n_users: int, n_changed: int) -> None:
    """Publish, record events and push them, some times."""
    rng = np.random.default_rng(0)
    items = [f"sku-{i}" for i in range(_ITEMS)]
    seen = pa.array(rng.integers(0, _ITEMS, (n_users, _HISTORY)).tolist()).flatten()
    lists = pa.ListArray.from_arrays(np.arange(0, len(seen) + 1, _HISTORY, dtype=np.int32), pa.array(items).take(seen))

    def table(ids: list[str], seen_items: pa.Array | None = None) -> EmbeddingTable:
        vectors = (rng.standard_normal((len(ids), _DIM)) / 8).astype(np.float32)
        return EmbeddingTable(pa.array(ids), vectors, np.arange(1, len(ids) + 1), seen_items=seen_items)

    repo = init_repo(folder)
    artifact = write_artifact(
        repo.data,
        "shop",
        users=table([f"u-{i}" for i in range(n_users)], lists),
        items=table(items),
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        trainer=TrainerInfo(name="als", config={"factors": _DIM, "alpha": 1.0}),
        seed=None,
        metrics={},
        fingerprint="",
        n_interactions=n_users * _HISTORY,
    )
    feature_store = repo.feature_store()
    feature_store.apply(list(embedding_views("shop", repo.data).by_name().values()))
    publish_artifact(feature_store, artifact)
    store = EmbeddingStore(feature_store, "shop")
    store.rank_visitor(items[:2])  # reads the items of the version
    position, computed, pushed = 0, [], []
    for _ in range(_TIMES):
        users = rng.choice(n_users, n_changed, replace=False)
        store.add_interactions([{"user_id": f"u-{u}", "item_id": items[rng.integers(_ITEMS)]} for u in users])
        started = time.perf_counter()
        store._folded_in_events("user", position, False)
        between = time.perf_counter()
        found = store.push_events(position)
        computed.append(between - started)
        pushed.append(time.perf_counter() - between)
        assert found.users == n_changed
        position = found.position
    print(
        f"{n_changed:,} of {n_users:,} users of {_DIM} float32: computed in {statistics.median(computed):.2f} s, "
        f"pushed in {statistics.median(pushed):.2f} s with that (median of {_TIMES})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--changed", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        measure(Path(name) / "repo", options.users, options.changed)


if __name__ == "__main__":
    main()
