"""What a visitor costs next to a user: ranking from ten interactions, and from a vector that is stored.

And what `explain` adds to the ranking of a visitor, for the trainers that can say why.

    python -m tests.benchmarks.visitors [--items 100000] [--trainer svd]

One process measures both sides in turn, over random vectors, after the version has been loaded.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from tests.benchmarks.read import medians

from embedding_trainers.trainer import LogShape, find_trainer, known_trainers
from feast_embeddings import embedding_views
from feast_embeddings.artifact import EmbeddingTable, TrainerInfo, write_artifact
from feast_embeddings.publish.run import publish_artifact
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo

_DIM, _USERS, _HISTORY = 64, 1000, 10


def measure(folder: Path, trainer: str, n_items: int, calls: int) -> None:
    """Publish random vectors as those of a trainer, and ask."""
    rng = np.random.default_rng(0)

    def table(kind: str, n: int) -> EmbeddingTable:
        vectors = (rng.standard_normal((n, _DIM)) / 8).astype(np.float32)
        bias = rng.standard_normal(n).astype(np.float32) if kind == "sku" else None
        return EmbeddingTable(pa.array([f"{kind}-{i}" for i in range(n)]), vectors, np.arange(1, n + 1), bias)

    found = find_trainer(trainer)
    shape = LogShape(n_users=_USERS, n_items=n_items, n_pairs=n_items, weight=n_items)
    config = found.complete(found.configure({"factors": _DIM}), shape)
    repo = init_repo(folder)
    artifact = write_artifact(
        repo.data,
        "shop",
        users=table("u", _USERS),
        items=table("sku", n_items),
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        trainer=TrainerInfo(name=trainer, config=config.model_dump(mode="json")),
        seed=None,
        metrics={},
        fingerprint="",
        n_interactions=n_items,
    )
    feature_store = repo.feature_store()
    feature_store.apply(list(embedding_views("shop", repo.data).by_name().values()))
    publish_artifact(feature_store, artifact)
    store = EmbeddingStore(feature_store, "shop")
    histories = [[f"sku-{i}" for i in rng.choice(n_items, _HISTORY, replace=False)] for _ in range(calls)]
    started = time.perf_counter()
    store.rank_visitor(histories[0])
    first = time.perf_counter() - started
    calls_of: dict[str, list[Callable[[], object]]] = {
        "visitor": [partial(store.rank_visitor, history) for history in histories],
        "user": [partial(store.rank, f"u-{i}") for i in range(calls)],
    }
    if found.parts is not None:
        calls_of["visitor with reasons"] = [partial(store.rank_visitor, each, explain=True) for each in histories]
    times = medians(calls_of)
    sides = ", ".join(f"{name} {1000 * seconds:.2f} ms" for name, seconds in times.items())
    print(f"{trainer}, {n_items:,} items: {sides}; the first visitor {1000 * first:.0f} ms", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--calls", type=int, default=100)
    parser.add_argument("--trainer", choices=known_trainers(), action="append")
    options = parser.parse_args()
    for trainer in options.trainer or known_trainers():
        with tempfile.TemporaryDirectory() as name:
            measure(Path(name) / "repo", trainer, options.items, options.calls)


if __name__ == "__main__":
    main()
