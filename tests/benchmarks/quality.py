"""How well trainers rank: Recall@20 and NDCG@20 over all items, seen ones masked, with the time that training took.

    python -m tests.benchmarks.quality --train gowalla_train.parquet --test gowalla_test.parquet configs/gowalla/*.toml
    python -m tests.benchmarks.quality --train gowalla_train.parquet configs/gowalla/*.toml
    python -m tests.benchmarks.quality --train ml-100k_interactions.parquet --newest

Without --test a fifth of each user's items is held back from the training file, drawn at random: that is where
hyper-parameters are chosen. With --newest it is what `train` holds back from a log with times. For comparison it prints
the defaults of each trainer, and implicit's BPR as it comes.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import numpy as np
from threadpoolctl import threadpool_limits

from embedding_trainers.commands.config_file import read_config
from embedding_trainers.evaluation import evaluate
from embedding_trainers.interactions import (
    Columns,
    Split,
    read_interactions,
    split_against,
    split_by_user,
    split_interactions,
)
from embedding_trainers.trainer import Device, Factors, LogShape, RunOptions, find_trainer

Train = Callable[[], Factors]


def read_split(train: Path, test: Path | None, columns: Columns, *, newest: bool = False) -> Split:
    """The given split; or a fifth of the items of each user of the training file, drawn at random; or the newest."""
    log = read_interactions(train, columns)
    if newest:
        split = split_interactions(log, seed=0)
    elif test is None:
        split = split_by_user(dataclasses.replace(log, timestamps=None), seed=0)
    else:
        split = split_against(log.users, log.items, log.to_csr(), read_interactions(test, columns), f"{test.name}")
    return split.with_log(log)


def implicit_as_it_comes(split: Split, options: RunOptions) -> Factors:
    """implicit's BPR with its own defaults, but for 64 factors."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking

    model = BayesianPersonalizedRanking(factors=64, num_threads=options.threads, random_state=options.seed)
    model.fit(split.train, show_progress=False)
    users, items = model.user_factors, model.item_factors
    return Factors(users[:, :-1], items[:, :-1], np.ascontiguousarray(items[:, -1]))


def runs(
    split: Split, configs: list[Path], defaults: list[str], options: RunOptions
) -> Iterator[tuple[str, str, Train]]:
    """Name, hyper-parameters, and what trains it."""
    for path in configs:
        parameters = read_config(path)
        yield (path.stem, *_run(split, parameters.pop("trainer"), parameters, options))
    for name in defaults:
        yield (f"{name}, defaults", *_run(split, name, {}, options))
    if "bpr" in defaults:
        yield "implicit's BPR as it comes", "factors 64", lambda: implicit_as_it_comes(split, options)


def _run(split: Split, name: str, parameters: dict[str, Any], options: RunOptions) -> tuple[str, Train]:
    trainer = find_trainer(name)
    config = trainer.complete(trainer.configure(parameters), LogShape.of(split.train))
    told = ", ".join(f"{parameter} {_told(value)}" for parameter, value in config.model_dump().items())
    return told, lambda: trainer.fit(split.train, config, options, split.log)


def _told(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else str(value).replace("|", "/")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", type=Path, nargs="*", help="files as train --config takes them")
    parser.add_argument("--train", type=Path, required=True)
    held_back = parser.add_mutually_exclusive_group()
    held_back.add_argument("--test", type=Path)
    held_back.add_argument("--newest", action="store_true", help="hold back as train does")
    parser.add_argument("--user-column", default="user_id")
    parser.add_argument("--item-column", default="item_id")
    parser.add_argument("--defaults", nargs="*", default=["als", "bpr", "softmax", "svd"], metavar="TRAINER")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=get_args(Device), default="cpu", help="gpu: of trainers that can use one")
    arguments = parser.parse_args()

    columns = Columns(user=arguments.user_column, item=arguments.item_column)
    options = RunOptions(seed=arguments.seed, threads=arguments.threads, device=arguments.device)
    split = read_split(arguments.train, arguments.test, columns, newest=arguments.newest)
    print(
        f"{split.train.shape[0]:,} users × {split.train.shape[1]:,} items, {split.train.nnz:,} pairs; "
        f"tested on {split.method}: {split.test.nnz:,} pairs of {split.n_test_users:,} users\n"
        f"left out: {split.left_out}\n"
    )
    print("| trained | hyper-parameters | Recall@20 | NDCG@20 | CPU s | wall s |\n|---|---|---|---|---|---|")
    found: dict[str, float] = {}
    for name, told, train in runs(split, arguments.configs, arguments.defaults, options):
        cpu, wall = time.process_time(), time.perf_counter()
        with threadpool_limits(arguments.threads or None):
            factors = train()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        found = evaluate(factors, split.train, split.test)
        scores = f"{found['recall@20']:.4f} | {found['ndcg@20']:.4f}"
        print(f"| {name} | {told} | {scores} | {cpu:.1f} | {wall:.1f} |", flush=True)
    if found:
        print(f"| most popular | | {found['popular_recall@20']:.4f} | {found['popular_ndcg@20']:.4f} | | |")


if __name__ == "__main__":
    main()
