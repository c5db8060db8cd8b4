"""How long a full evaluation takes on Gowalla, or on a generated log of its shape, next to implicit's own.

    python -m tests.benchmarks.evaluation [--data DIR]

DIR holds gowalla_train.parquet and gowalla_test.parquet (user_id, item_id). The report has every metric at 10, 20 and
50 for the model and both floors, with intervals and segments. implicit computes NDCG and MAP at 20, of the model alone.
"""

from __future__ import annotations

import argparse
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from implicit.cpu.als import AlternatingLeastSquares
from implicit.evaluation import ranking_metrics_at_k
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from embedding_trainers.evaluation import evaluate, evaluate_in_detail
from embedding_trainers.evaluation.ranking import factors_ranking
from embedding_trainers.evaluation.report_text import report_text
from embedding_trainers.interactions import LeftOut, Split, read_interactions, split_against
from embedding_trainers.trainer import Factors, RunOptions, find_trainer

N_USERS, N_ITEMS, N_TRAIN, N_TEST = 29_858, 40_981, 810_128, 217_242


def gowalla(folder: Path) -> Split:
    log = read_interactions(folder / "gowalla_train.parquet")
    test = read_interactions(folder / "gowalla_test.parquet")
    return split_against(log.users, log.items, log.to_csr(), test, "the published split of Gowalla")


def generated() -> Split:
    """Users and items with long tails, and no structure beyond that."""
    rng = np.random.default_rng(0)
    n = int(1.3 * (N_TRAIN + N_TEST))
    users = rng.choice(N_USERS, n, p=_long_tail(N_USERS))
    items = rng.choice(N_ITEMS, n, p=_long_tail(N_ITEMS))
    pairs = rng.permutation(np.unique(users * N_ITEMS + items))
    train, test = (_matrix(part) for part in (pairs[:N_TRAIN], pairs[N_TRAIN : N_TRAIN + N_TEST]))
    ids = pa.array(range(N_USERS)), pa.array(range(N_ITEMS))
    return Split(train, test, *ids, LeftOut(0, 0, 0, 0), "a generated log of the shape of Gowalla")


def _long_tail(n: int) -> Any:
    weights = (np.arange(n) + 100.0) ** -0.8
    return weights / weights.sum()


def _matrix(pairs: Any) -> csr_matrix:
    matrix = csr_matrix((np.ones(len(pairs), np.float32), np.divmod(pairs, N_ITEMS)), shape=(N_USERS, N_ITEMS))
    matrix.sort_indices()
    return matrix


def timed(what: str, call: Callable[[], Any]) -> tuple[float, Any]:
    start = time.perf_counter()
    result = call()
    seconds = time.perf_counter() - start
    print(f"{what}: {seconds:.1f} s", flush=True)
    return seconds, result


def argpartitioned(factors: Factors, train: csr_matrix, users: Any, k: int) -> Any:
    """The plain way to rank: whole rows through argpartition."""
    ranked = []
    for block in np.array_split(users, max(1, len(users) // 200)):
        scores = factors.user_factors[block] @ factors.item_factors.T + factors.item_bias
        scores[train[block].nonzero()] = -np.inf
        top = np.argpartition(scores, -k, axis=1)[:, -k:]
        order = np.argsort(-np.take_along_axis(scores, top, axis=1), axis=1)
        ranked.append(np.take_along_axis(top, order, axis=1))
    return np.concatenate(ranked)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = Path(__file__).parents[3] / "shared" / "data"
    parser.add_argument("--data", type=Path, default=os.environ.get("FEAST_EMBEDDINGS_TEST_DATA", default))
    parser.add_argument("--factors", type=int, default=64)
    options = parser.parse_args()
    print(f"load average {os.getloadavg()}, {os.cpu_count()} cores")
    split = gowalla(options.data) if (options.data / "gowalla_train.parquet").is_file() else generated()
    print(f"{split.method}: {split.train.shape}, {split.train.nnz:,} pairs to train on, {split.test.nnz:,} to predict")
    trainer = find_trainer("svd")
    factors = trainer.train(split.train, trainer.configure({"factors": options.factors}), RunOptions())

    before = _peak()
    seconds, report = timed("the whole report", lambda: evaluate_in_detail(factors, split))
    print(f"  bar: at most 30 s on two cores; {report.n_users / seconds:,.0f} users/s")
    print(f"  peak memory {before:.2f} GiB before, {_peak():.2f} GiB after")
    timed(
        "recall@20 and ndcg@20 next to the most popular, as in tuning",
        lambda: evaluate(factors, split.train, split.test),
    )

    with threadpool_limits(1, "blas"):  # what implicit asks for
        model = AlternatingLeastSquares(factors=options.factors)
    model.user_factors = np.column_stack([factors.user_factors, np.ones(len(factors.user_factors), np.float32)])
    model.item_factors = np.column_stack([factors.item_factors, factors.item_bias])
    with threadpool_limits(1, "blas"):
        _, theirs = timed(
            "implicit's ranking_metrics_at_k",
            lambda: ranking_metrics_at_k(model, split.train, split.test, K=20, show_progress=False, num_threads=0),
        )
    for name in ("ndcg", "map"):
        print(f"  {name}@20: ours {report.scores['model'][f'{name}@20'].value:.6f}, implicit's {theirs[name]:.6f}")

    some = np.flatnonzero(np.diff(split.test.indptr))[:4000]
    ours, ranked = timed(
        "50 ranks of 4,000 users", lambda: factors_ranking(factors, split.train, some, 50, progress=False)
    )
    plain, expected = timed("the same by argpartition", lambda: argpartitioned(factors, split.train, some, 50))
    print(f"  {plain / ours:.1f} times as long; {(ranked == expected).mean():.4%} of the ranks agree")
    print(report_text("svd", report))
    print(f"load average {os.getloadavg()}")


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


if __name__ == "__main__":
    main()
