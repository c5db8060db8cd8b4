"""The default of one hyper-parameter next to other values of it, on any logs.

    python -m tests.benchmarks.one_parameter bpr regularization 0.005 0.01 0.02 0.03 0.04 0.06 --logs *.parquet
    python -m tests.benchmarks.one_parameter softmax iterations 5 10 20 --logs *.parquet
    python -m tests.benchmarks.one_parameter graph layer_weight 1 5 10 --logs *.parquet
    python -m tests.benchmarks.one_parameter concat weights 1,0.25 1,0.5 1,1 1,2 --logs *.parquet
    python -m tests.benchmarks.one_parameter --generate FOLDER

For each log it prints its density, and Recall@20 and NDCG@20 on what `train` holds back, or on a random fifth of each
user's items for a log without times, and the CPU seconds of the training. --generate writes the logs of `als_defaults`,
and one whose density is between.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tests.benchmarks.als_defaults import generate, write_latent
from tests.benchmarks.quality import read_split
from threadpoolctl import threadpool_limits

from embedding_trainers.evaluation import evaluate
from embedding_trainers.interactions import Columns
from embedding_trainers.trainer import LogShape, RunOptions, Trainer, find_trainer


def compare(path: Path, trainer: Trainer[Any], parameter: str, values: list[str]) -> None:
    split = read_split(path, None, Columns(), newest="timestamp" in pq.read_schema(path).names)
    shape = LogShape.of(split.train)
    density = shape.n_pairs / shape.n_users / shape.n_items
    print(f"\n{path.stem}: {shape.n_users:,} × {shape.n_items:,}, density {density:.5f}, {split.method}")
    print(f"| {parameter} | Recall@20 | NDCG@20 | CPU s |\n|---|---|---|---|")
    for given in ({}, *({parameter: value} for value in values)):
        config = trainer.complete(trainer.configure(given), shape)
        began = time.process_time()
        factors = trainer.fit(split.train, config, RunOptions(seed=0, threads=1), split.log)
        seconds = time.process_time() - began
        found = evaluate(factors, split.train, split.test)
        value = getattr(config, parameter)
        told = f"{value:.3g}" if isinstance(value, int | float) else ", ".join(map(str, value))
        told = told if given else f"default {told}"
        print(f"| {told} | {found['recall@20']:.4f} | {found['ndcg@20']:.4f} | {seconds:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainer", nargs="?")
    parser.add_argument("parameter", nargs="?")
    parser.add_argument("values", nargs="*")
    parser.add_argument("--logs", nargs="*", type=Path, default=[])
    parser.add_argument("--generate", type=Path, metavar="FOLDER")
    options = parser.parse_args()
    if options.generate:
        generate(options.generate)
        write_latent(options.generate / "mid.parquet", 6_000, 3_000, rows=40, dim=24, taste=2.5, zipf=0.8, seed=2)
    with threadpool_limits(1):
        for path in options.logs:
            compare(path, find_trainer(options.trainer), options.parameter, options.values)


if __name__ == "__main__":
    main()
