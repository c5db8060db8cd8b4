"""How fast and how exact reads are: by id next to Feast's sqlite store, neighbours next to the engine alone.

    python -m tests.benchmarks.read

One process measures both sides in turn. The vectors of the neighbours are trained on a generated shop.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from feast import FeatureStore
from tests.benchmarks.materialize import NOW, make_repo, make_table

from embedding_trainers.train import train_model
from embedding_trainers.trainer import RunOptions
from feast_embeddings import embedding_views
from feast_embeddings.demo import generate_shop, write_shop
from feast_embeddings.model.sides import model_view, qdrant_store
from feast_embeddings.online.table_names import table_id
from feast_embeddings.publish.run import publish_artifact
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo

_FEATURES = ["items:vector", "items:stock", "items:price", "items:title"]


def medians(sides: dict[str, list[Callable[[], object]]]) -> dict[str, float]:
    """Median seconds per call of each side; the sides take turns, so that a busy moment hits all of them."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for calls in zip(*sides.values(), strict=True):
        for name, call in zip(sides, calls, strict=True):
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(times)) for name, times in seconds.items()}


def report(what: str, times: dict[str, float], bar: float) -> None:
    ours, theirs = times.values()
    sides = ", ".join(f"{name} {1000 * seconds:.2f} ms" for name, seconds in times.items())
    print(f"{what}: {sides}; ratio {ours / theirs:.2f}   (bar: at most {bar})", flush=True)


def measure_by_id(folder: Path, rows: int, keys: int, calls: int) -> None:
    """`get_online_features` of random keys: vector and three scalars."""
    source = folder / "items.parquet"
    pq.write_table(make_table(0, rows, 64), source)
    online = {
        "ours": ({"type": "feast_embeddings.QdrantEmbeddingOnlineStore"}, "feast_embeddings.ArrowComputeEngine"),
        "sqlite": ({"type": "sqlite", "path": "online.db"}, "local"),
    }
    stores: dict[str, FeatureStore] = {}
    for name, (settings, engine) in online.items():
        stores[name] = make_repo(folder / name, source, 64, settings, engine)
        stores[name].materialize(NOW - timedelta(days=1), NOW + timedelta(days=1))
    rng = np.random.default_rng(0)
    asked = [[{"item_id": int(id)} for id in rng.choice(rows, keys, replace=False)] for _ in range(calls)]
    answers = [
        store.get_online_features(features=_FEATURES, entity_rows=asked[0]).to_dict() for store in stores.values()
    ]
    if answers[0] != answers[1]:
        raise SystemExit("the two stores answered differently")

    def call(store: FeatureStore, rows: list[dict[str, int]]) -> Callable[[], object]:
        return lambda: store.get_online_features(features=_FEATURES, entity_rows=rows)

    times = medians({name: [call(store, rows) for rows in asked] for name, store in stores.items()})
    report(f"get_online_features, {keys} keys of {rows:,}, p50", times, 1.0)


def measure_neighbours(folder: Path, n_items: int, n_interactions: int, calls: int) -> None:
    """Id -> 10 similar items, next to the engine's query with a ready vector; and recall@10 against numpy."""
    repo = init_repo(folder / "repo")
    shop = generate_shop(n_users=n_interactions // 20, n_items=n_items, n_interactions=n_interactions)
    files = write_shop(shop, folder / "shop")
    training = train_model(
        repo.path, "shop", files["interactions"], evaluation=False, options=RunOptions(progress=False)
    )
    feature_store = repo.feature_store()
    feature_store.apply(list(embedding_views("shop", repo.data).by_name().values()))
    publish_artifact(feature_store, training.artifact)
    store = EmbeddingStore(feature_store, "shop")

    table = training.artifact.table("item")
    ids = table["item_id"].to_pylist()
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(len(ids), -1)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    sample = np.random.default_rng(0).choice(len(ids), calls, replace=False)
    scores = unit[sample] @ unit.T
    scores[np.arange(calls), sample] = -np.inf
    tenth = np.partition(scores, -10, axis=1)[:, -10]
    position = {id: row for row, id in enumerate(ids)}
    found = 0
    for row, one in enumerate(sample):
        answer = [position[id] for id in store.similar_items(ids[one], 10).ids]
        # Against the tenth score, not the ids: items of equal score are equally right.
        found += int((scores[row, answer] >= tenth[row] - 1e-6).sum())
    recall = found / (10 * calls)

    view = model_view(feature_store, "shop", "item")
    online, config = qdrant_store(feature_store), feature_store.config
    engine, codec = online.engine(config), online.codec(config, view)
    live = engine.aliases()[table_id(config, view)]
    (field,) = codec.fields.values()
    times = medians(
        {
            "EmbeddingStore.similar_items": [lambda id=ids[one]: store.similar_items(id, 10) for one in sample],  # type: ignore[misc]
            "engine.query": [
                lambda vector=unit[one]: engine.query(live, field.search_name, vector, limit=10)  # type: ignore[misc]
                for one in sample
            ],
        }
    )
    report(f"id -> 10 of {len(ids):,} items, p50", times, 1.5)
    print(f"recall@10 of similar_items against numpy, {calls} items: {recall:.4f}   (bar: at least 0.99)", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--keys", type=int, default=100)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--interactions", type=int, default=1_000_000)
    parser.add_argument("--calls", type=int, default=300)
    options = parser.parse_args()
    print(f"load average {os.getloadavg()}")
    with tempfile.TemporaryDirectory() as name:
        measure_by_id(Path(name), options.rows, options.keys, options.calls)
    with tempfile.TemporaryDirectory() as name:
        measure_neighbours(Path(name), options.items, options.interactions, options.calls)
    print(f"load average {os.getloadavg()}")


if __name__ == "__main__":
    main()
