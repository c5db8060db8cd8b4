"""What more threads do to the repeatability of each trainer, on the training part of a generated shop.

    python -m tests.benchmarks.threads

For each trainer and number of threads, runs with the same seed are compared with the first run with one thread.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from embedding_trainers.evaluation import evaluate
from embedding_trainers.evaluation.ranking import factors_ranking
from embedding_trainers.interactions import read_interactions, split_by_user
from embedding_trainers.trainer import Factors, RunOptions, find_trainer, known_trainers
from feast_embeddings.demo import generate_shop, write_shop


def scores(factors: Factors) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return factors.user_factors @ factors.item_factors.T + factors.item_bias


def top(factors: Factors, train: Any) -> Any:
    return factors_ranking(factors, train, np.arange(train.shape[0]), 20, progress=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=int, default=200_000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shop = generate_shop(
            n_users=options.interactions // 40, n_items=options.interactions // 100, n_interactions=options.interactions
        )
        log = read_interactions(write_shop(shop, Path(folder))["interactions"])
        split = split_by_user(log, seed=0).with_log(log)
    print(
        "| trainer | threads | equal bytes | scores differ by (of their spread) | same items in the top 20 | NDCG@20 |"
    )
    print("|---|---|---|---|---|---|")
    for name in known_trainers():
        trainer = find_trainer(name)
        reference: Factors | None = None
        for threads in options.threads:
            equal, far, overlap, ndcg = 0, [], [], []
            for _ in range(options.runs):
                factors = trainer.fit(split.train, trainer.config(), RunOptions(seed=1, threads=threads), split.log)
                reference = reference or factors
                one, two = scores(reference), scores(factors)
                equal += factors.user_factors.tobytes() == reference.user_factors.tobytes()
                far.append(float(np.abs(one - two).max() / one.std()))
                lists = [top(each, split.train) for each in (reference, factors)]
                overlap.append(np.mean([len(np.intersect1d(*pair)) / 20 for pair in zip(*lists, strict=True)]))
                ndcg.append(evaluate(factors, split.train, split.test)["ndcg@20"])
            print(
                f"| `{name}` | {threads} | {equal} of {options.runs} | {max(far):.1e} | {min(overlap):.1%} | "
                f"{min(ndcg):.4f} to {max(ndcg):.4f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
