"""How long a training frame takes, and the highest memory; with --feast, Feast's own join of the same rows next to it.

    python -m tests.benchmarks.training_frame
    python -m tests.benchmarks.training_frame --rows 100000 --feast

Each side runs in a process of its own, so that the highest memory is its own; what the process had before the join
(its imports and the labels) is printed too. Vectors are random: what they hold makes no difference to a join.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from feast_embeddings import EmbeddingStore, embedding_views
from feast_embeddings.artifact import EmbeddingTable, TrainerInfo, write_artifact
from feast_embeddings.repo import Repo, init_repo

_START = datetime(2026, 1, 1, tzinfo=UTC)
_FEATURES = ("embedding", "version")
_MONTH = timedelta(days=30)


def make_history(folder: Path, versions: int, n_users: int, n_items: int, dim: int) -> None:
    """A model of so many versions, a month apart."""
    repo = init_repo(folder)
    rng = np.random.default_rng(0)

    def table(prefix: str, n: int) -> EmbeddingTable:
        ids = pa.array(np.char.add(prefix, np.arange(n).astype(str)))
        vectors = rng.standard_normal((n, dim), dtype=np.float32)
        return EmbeddingTable(ids=ids, embedding=vectors, n_interactions=np.ones(n, dtype=np.int64))

    for version in range(versions):
        write_artifact(
            repo.data,
            "shop",
            users=table("u-", n_users),
            items=table("sku-", n_items),
            as_of=_START + version * _MONTH,
            trainer=TrainerInfo(name="random", config={}),
            seed=0,
            metrics={},
            fingerprint="",
            n_interactions=n_users,
        )
    repo.feature_store().apply(list(embedding_views("shop", repo.data).by_name().values()))


def make_labels(rows: int, versions: int, n_users: int, n_items: int) -> pd.DataFrame:
    """Rows of random users and items, a tenth of them unknown, at random times from before the first version on."""
    rng = np.random.default_rng(1)
    seconds = rng.integers(-10 * 86_400, int(versions * _MONTH.total_seconds()), rows)
    return pd.DataFrame(
        {
            "user_id": np.char.add("u-", rng.integers(0, n_users * 10 // 9, rows).astype(str)).astype(object),
            "item_id": np.char.add("sku-", rng.integers(0, n_items * 10 // 9, rows).astype(str)).astype(object),
            "event_timestamp": (pd.Timestamp(_START) + pd.to_timedelta(seconds, unit="s")).as_unit("us"),
            "label": rng.integers(0, 2, rows),
        }
    )


def peak_gib() -> float:
    """The highest memory of this process so far (Linux counts in KiB)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure(side: str, folder: Path, rows: int, versions: int, n_users: int, n_items: int) -> None:
    """Join once and print; runs in a process of its own."""
    feature_store = Repo.open(folder).feature_store()
    store = EmbeddingStore(feature_store, "shop")
    labels = make_labels(rows, versions, n_users, n_items)
    before, start = peak_gib(), time.perf_counter()
    if side == "feast":
        features = [
            f"shop_{entity}_embeddings:{name}" for entity in ("user", "item") for name in ("embedding", "version")
        ]
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        joined = feature_store.get_historical_features(labels, features, full_feature_names=True).to_df()
        found = int(joined["shop_user_embeddings__version"].notna().sum())
    elif side == "matrix":
        found = int(store.training_vectors(labels, allow_mixed_spaces=True).sides["user"].found.sum())
    else:
        vectors = "columns" if side == "columns" else "lists"
        joined = store.training_frame(labels, vectors=vectors, allow_mixed_spaces=True)  # type: ignore[arg-type]
        found = int(joined["user_version"].notna().sum())
    seconds = time.perf_counter() - start
    print(
        f"{side:8} {rows:,} rows: {seconds:.1f} s, highest memory {peak_gib():.2f} GiB ({before:.2f} before the join), "
        f"{found:,} rows with a user vector",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--versions", type=int, default=5)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--feast", action="store_true", help="also Feast's get_historical_features")
    options = parser.parse_args()
    sides = ["matrix", "columns", "lists", *(["feast"] if options.feast else [])]
    size = (options.versions, options.users, options.items)
    print(f"{options.versions} versions of {options.users:,} users and {options.items:,} items, {options.dim} factors")
    with tempfile.TemporaryDirectory() as name:
        make_history(Path(name) / "repo", *size, options.dim)
        for side in sides:
            process = multiprocessing.get_context("spawn").Process(
                target=measure, args=(side, Path(name) / "repo", options.rows, *size)
            )
            process.start()
            process.join()
            if process.exitcode:
                print(f"{side} failed with exit code {process.exitcode}", file=sys.stderr)


if __name__ == "__main__":
    main()
