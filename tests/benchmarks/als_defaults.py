"""The defaults of als beside a grid of its settings and beside implicit's own ALS, on any logs.

    python -m tests.benchmarks.als_defaults ml-100k_interactions.parquet shop.parquet sparse.parquet dense.parquet
    python -m tests.benchmarks.als_defaults --generate FOLDER

For each log it prints its density, and Recall@20 and NDCG@20 on what `train` holds back, or on a random fifth of each
user's items for a log without times. --generate writes two logs of a latent factor model, one sparse and one dense, and
the shop of the quickstart.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tests.benchmarks.quality import read_split
from threadpoolctl import threadpool_limits

from embedding_trainers.evaluation import evaluate
from embedding_trainers.interactions import Columns
from embedding_trainers.models.als import ALS, ALSConfig
from embedding_trainers.trainer import Factors, LogShape, RunOptions
from feast_embeddings.demo import generate_shop

_OPTIONS = RunOptions(seed=0, threads=1)


def write_latent(path: Path, users: int, items: int, rows: int, dim: int, taste: float, zipf: float, seed: int) -> None:
    """Users choose items by taste and popularity: the highest of a score with Gumbel noise, about `rows` each."""
    rng = np.random.default_rng(seed)
    of_users = rng.standard_normal((users, dim))
    of_items = rng.standard_normal((items, dim)) / np.sqrt(dim)
    popularity = -zipf * np.log(np.arange(1, items + 1))[rng.permutation(items)]
    wanted = np.clip(rng.negative_binomial(1.5, 1.5 / (1.5 + rows), users), 2, items // 3)
    chosen = []
    for vector, n in zip(of_users, wanted, strict=True):
        scores = of_items @ vector * taste + popularity + rng.gumbel(size=items)
        chosen.append(np.argpartition(-scores, n)[:n])
    user_ids, item_ids = np.repeat(np.arange(users), wanted), np.concatenate(chosen)
    times = 1_600_000_000_000_000 + rng.integers(0, 10**14, len(item_ids))
    order = np.argsort(times)
    columns = {"user_id": user_ids[order], "item_id": item_ids[order]}
    pq.write_table(pa.table({**columns, "timestamp": pa.array(times[order], pa.timestamp("us", "UTC"))}), path)


def generate(folder: Path) -> None:
    write_latent(folder / "sparse.parquet", 20_000, 15_000, rows=10, dim=24, taste=3.0, zipf=0.8, seed=0)
    write_latent(folder / "dense.parquet", 3_000, 1_200, rows=90, dim=16, taste=2.0, zipf=0.7, seed=1)
    pq.write_table(generate_shop(0).interactions, folder / "shop.parquet")


def compare(path: Path, grid: bool) -> None:
    from implicit.cpu.als import AlternatingLeastSquares

    timed = "timestamp" in pq.read_schema(path).names
    split = read_split(path, None, Columns(), newest=timed)
    users, items = split.train.shape
    print(f"\n{path.stem}: {users:,} × {items:,}, density {split.train.nnz / users / items:.5f}, {split.method}")

    def show(name: str, factors: Factors) -> None:
        found = evaluate(factors, split.train, split.test)
        print(f"| {name} | {found['recall@20']:.4f} | {found['ndcg@20']:.4f} |", flush=True)

    print("| als | Recall@20 | NDCG@20 |\n|---|---|---|")
    model = AlternatingLeastSquares(factors=64, num_threads=1, random_state=0)
    model.fit(split.train, show_progress=False)
    show("implicit's, as it comes", Factors(model.user_factors, model.item_factors, np.zeros(items, np.float32)))
    default = ALS.complete(ALSConfig(), LogShape.of(split.train))
    show(f"defaults: alpha {default.alpha:.3g}", ALS.train(split.train, default, _OPTIONS))
    settings = [(a, r) for a in (0.3, 1, 3, 10, 30, 100, 300) for r in (0.03, 0.1, 0.3)] if grid else []
    for alpha, regularization in settings:
        config = ALSConfig(alpha=alpha, regularization=regularization)
        show(f"alpha {alpha:g}, regularization {regularization:g}", ALS.train(split.train, config, _OPTIONS))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, nargs="*")
    parser.add_argument("--generate", type=Path, metavar="FOLDER")
    parser.add_argument("--no-grid", dest="grid", action="store_false")
    arguments = parser.parse_args()
    if arguments.generate:
        generate(arguments.generate)
    with threadpool_limits(1, "blas"):
        for path in arguments.logs:
            compare(path, arguments.grid)


if __name__ == "__main__":
    main()
