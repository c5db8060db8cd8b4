"""What `segments -k auto` costs and chooses: by k-means, by HDBSCAN, and by the better of both.

    python -m tests.benchmarks.segments --items 500 10000 20000
    python -m tests.benchmarks.segments --items --log interactions.parquet

The points are the items of a generated shop, or of a log, trained with als. Seconds are of the segments alone, with
their choice.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pyarrow as pa
from tests.benchmarks.maps import Floats, item_vectors

from embedding_trainers.interactions import read_interactions
from embedding_trainers.trainer import RunOptions, find_trainer
from feast_embeddings.analysis.clustering import Method
from feast_embeddings.analysis.members import Members
from feast_embeddings.analysis.segments import segment
from feast_embeddings.errors import InputError

METHODS: dict[str, tuple[Method, ...]] = {
    "k-means": ("k-means",),
    "hdbscan": ("hdbscan",),
    "auto": ("k-means", "hdbscan"),
}


def log_vectors(path: str) -> Floats:
    """Unit vectors of the items of a log."""
    matrix = read_interactions(path).to_csr()
    trainer = find_trainer("als")
    learned = trainer.train(matrix, trainer.configure({"factors": 64}), RunOptions(seed=0, threads=2))
    vectors = np.asarray(learned.item_factors, np.float32)
    unit: Floats = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    return unit


def measure(x: Floats, name: str) -> None:
    ids = pa.array(range(len(x)))
    members = Members("item", "item_id", ids, np.ones(len(x), np.float32), x, pa.table({"item_id": ids}), "", "")
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        found = segment(members, methods=METHODS[name])
    except InputError as error:
        chosen = f"{error} | | | "
    else:
        assert found.chosen is not None
        best = found.chosen
        chosen = f"{best.method} {best.k} | {best.stability:.2f} | {best.silhouette:.2f} | {found.without:,}"
    took = f"{time.process_time() - cpu:.0f} | {time.perf_counter() - wall:.0f}"
    print(f"| {len(x):,} | {name} | {chosen} | {took} |", flush=True)


def compare(x: Floats) -> None:
    for name in METHODS:
        measure(x, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, nargs="*", default=[500, 10_000, 20_000])
    parser.add_argument("--log", help="Of this log, too.")
    given = parser.parse_args()
    print("| items | asked for | chosen | stability | silhouette | in none | CPU s | wall s |")
    print("|---|---|---|---|---|---|---|---|")
    for n in given.items:
        compare(item_vectors(n))
    if given.log:
        compare(log_vectors(given.log))


if __name__ == "__main__":
    main()
