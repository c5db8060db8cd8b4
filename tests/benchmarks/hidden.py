"""What hidden items cost a search: similar items with some hidden, next to a filter on a flag of the same items.

    python -m tests.benchmarks.hidden

One process measures all in turn, over random vectors in clusters, on the embedded engine.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
from tests.benchmarks.read import medians
from tests.support.publishing import publish_any
from tests.support.shop import apply, write_tables

from feast_embeddings.artifact import EmbeddingTable
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo


def main() -> None:
    """Print the median milliseconds of a call, and recall@10 against numpy, for each share of hidden items."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--calls", type=int, default=400)
    given = parser.parse_args()
    n, rng = given.items, np.random.default_rng(0)
    centres = rng.standard_normal((n // 500, given.dim))
    vectors = (centres[rng.integers(len(centres), size=n)] + rng.standard_normal((n, given.dim))).astype(np.float32)
    shares, draw = (0.0, 0.01, 0.1, 0.5), rng.random(n)
    flags = {f"shown_{share:g}".replace(".", "_"): pa.array(draw >= share) for share in shares}
    items = EmbeddingTable(
        pa.array(range(n)), vectors, np.ones(n, np.int64), bias=np.zeros(n, np.float32), attributes=pa.table(flags)
    )
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    sample = rng.choice(n, given.calls, replace=False)
    with tempfile.TemporaryDirectory() as folder:
        repo = init_repo(Path(folder) / "repo")
        artifact = write_tables(repo.data, None, items)
        feature_store = apply(repo)
        publish_any(feature_store, artifact)
        store = EmbeddingStore(feature_store, "shop")
        for share, flag in zip(shares, flags, strict=True):
            if hidden := np.flatnonzero(draw < share).tolist():
                store.hide(items=hidden)

            def recall(filter: str | None, share: float = share) -> float:
                found = 0
                for one in sample:
                    scores = np.where(draw >= share, unit @ unit[one], -np.inf)
                    scores[one] = -np.inf
                    answer = store.similar_items(int(one), 10, filter=filter).ids
                    found += int((scores[np.array(answer, dtype=int)] >= np.partition(scores, -10)[-10] - 1e-6).sum())
                return found / (10 * len(sample))

            times = medians(
                {
                    "hidden": [lambda one=int(one): store.similar_items(one, 10) for one in sample],  # type: ignore[misc]
                    "filtered": [
                        lambda one=int(one), flag=flag: store.similar_items(one, 10, filter=f"{flag} = TRUE")  # type: ignore[misc]
                        for one in sample
                    ],
                }
            )
            print(
                f"{share:.0%} of {n:,} items hidden: {1000 * times['hidden']:.2f} ms, recall@10 {recall(None):.4f}; "
                f"the same as a filter: {1000 * times['filtered']:.2f} ms, {recall(f'{flag} = TRUE'):.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
