"""The default regularization of bpr next to a grid of it, on any logs.

    python -m tests.benchmarks.bpr_defaults ml-100k_interactions.parquet shop.parquet dense.parquet mid.parquet …
    python -m tests.benchmarks.bpr_defaults --generate FOLDER

For each log it prints its density, and Recall@20 and NDCG@20 on what `train` holds back, or on a random fifth of each
user's items for a log without times. --generate writes the logs of `als_defaults`, and one whose density is between.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import pyarrow.parquet as pq
from tests.benchmarks.als_defaults import generate, write_latent
from tests.benchmarks.quality import read_split
from threadpoolctl import threadpool_limits

from embedding_trainers.evaluation import evaluate
from embedding_trainers.interactions import Columns
from embedding_trainers.models.bpr import BPR, BPRConfig
from embedding_trainers.trainer import LogShape, RunOptions

_GRID = (0.005, 0.01, 0.02, 0.03, 0.04, 0.06)


def compare(path: Path) -> None:
    split = read_split(path, None, Columns(), newest="timestamp" in pq.read_schema(path).names)
    shape = LogShape.of(split.train)
    density, default = shape.n_pairs / shape.n_users / shape.n_items, BPR.complete(BPRConfig(), shape)
    print(f"\n{path.stem}: {shape.n_users:,} × {shape.n_items:,}, density {density:.5f}, {split.method}")
    print("| regularization | Recall@20 | NDCG@20 |\n|---|---|---|")
    for name, config in (("default", default), *(("", BPRConfig(regularization=value)) for value in _GRID)):
        found = evaluate(BPR.train(split.train, config, RunOptions(seed=0, threads=1)), split.train, split.test)
        value = f"{name} {config.regularization:.3g}".strip()
        print(f"| {value} | {found['recall@20']:.4f} | {found['ndcg@20']:.4f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", nargs="*", type=Path)
    parser.add_argument("--generate", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.generate:
        generate(options.generate)
        write_latent(options.generate / "mid.parquet", 6_000, 3_000, rows=40, dim=24, taste=2.5, zipf=0.8, seed=2)
    with threadpool_limits(1):
        for path in options.logs:
            compare(path)


if __name__ == "__main__":
    main()
