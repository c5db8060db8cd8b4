"""`EmbeddingStore.search`: the time of the first search of a version, and of the next ones, over random titles.

python -m tests.benchmarks.text_search --items 100000
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import yaml

from embedding_trainers.content.features import Features
from embedding_trainers.content.model import ContentModel
from embedding_trainers.content.prior import Prior
from embedding_trainers.content.ridge import Ridge
from embedding_trainers.content.spec import ContentColumn
from feast_embeddings import EmbeddingStore, embedding_views, publish_artifact
from feast_embeddings.artifact import Artifact, ContentFile, EmbeddingTable, TrainerInfo, write_artifact
from feast_embeddings.repo import init_repo

WORDS, TITLE, USERS, QUERIES, DIM, RANK = 20_000, 12, 1_000, 300, 64, 8


def write(data: Path, n: int, rng: np.random.Generator) -> Artifact:
    """Vectors are what the content says, with noise; words are drawn by Zipf's law."""
    drawn = np.minimum(rng.zipf(1.3, size=(n, TITLE)), WORDS)
    table = pa.table({
        "title": [" ".join(f"w{word}" for word in row) for row in drawn.tolist()],
        "price": rng.uniform(1, 100, n).round(2),
    })  # fmt: skip
    features = Features.fitted(table, [ContentColumn("title", "text"), ContentColumn("price", "number")])
    encoded = features.of(table)
    # Trained vectors lie near a few directions.
    weights = rng.standard_normal((encoded.shape[1], RANK), dtype=np.float32)
    weights = weights @ rng.standard_normal((RANK, DIM + 1), dtype=np.float32)
    model = ContentModel(features, Prior(Ridge(weights, np.zeros(DIM + 1, np.float32)), 1.0, 1.0))
    vectors = model.prior.of(encoded).factors + 0.1 * rng.standard_normal((n, DIM), dtype=np.float32)
    items = EmbeddingTable(
        ids=pa.array([f"sku-{i}" for i in range(n)]),
        embedding=vectors,
        n_interactions=np.ones(n, np.int64),
        bias=rng.standard_normal(n, dtype=np.float32),
        attributes=table,
    )
    users = EmbeddingTable(
        ids=pa.array([f"u-{i}" for i in range(USERS)]),
        embedding=rng.standard_normal((USERS, DIM), dtype=np.float32),
        n_interactions=np.ones(USERS, np.int64),
    )
    return write_artifact(
        data,
        "shop",
        users=users,
        items=items,
        as_of=datetime(2026, 5, 1, tzinfo=UTC),
        trainer=TrainerInfo(name="als", config={}),
        seed=0,
        metrics={},
        fingerprint="0" * 64,
        n_interactions=n,
        content={"item": ContentFile({"asked": "auto", "items": 0, **model.to_json()}, model.save)},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        repo = init_repo(Path(folder) / "repo")
        file = repo.path / "feature_store.yaml"
        config = yaml.safe_load(file.read_text())
        config["online_store"]["min_recall"] = 0.5  # random vectors are hard to search, and times are measured here
        file.write_text(yaml.safe_dump(config))
        artifact = write(repo.data, options.items, rng)
        feature_store = repo.feature_store()
        feature_store.apply(list(embedding_views("shop", repo.data).by_name().values()))
        publish_artifact(feature_store, artifact)
        store = EmbeddingStore(feature_store, "shop")
        store.rank("u-1")
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        started = time.perf_counter()
        store.search("w1 w2")
        seconds = time.perf_counter() - started
        grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        print(f"{options.items:,} items of {TITLE} words: the first search takes {seconds:.1f} s, "
              f"and {grown:.0f} MiB more at its peak", flush=True)  # fmt: skip
        texts = [
            " ".join(f"w{word}" for word in row) for row in np.minimum(rng.zipf(1.3, size=(QUERIES, 3)), WORDS).tolist()
        ]
        for name, user, condition in (
            ("a text", None, None),
            ("for a user", "u-1", None),
            ("a filter that keeps half", None, "price < 50"),
            ("a filter that keeps 1 %", "u-1", "price < 2"),
        ):
            times = []
            for text in texts:
                started = time.perf_counter()
                store.search(text, user, filter=condition)
                times.append(1000 * (time.perf_counter() - started))
            low, high = np.quantile(times, [0.5, 0.99])
            print(f"  {name}: p50 {low:.1f} ms, p99 {high:.1f} ms", flush=True)


if __name__ == "__main__":
    main()
