"""How well als ranks when Spark trains it: Recall@20 and NDCG@20 over all items, seen ones masked, with the time.

    python -m tests.benchmarks.spark_quality --train gowalla_train.parquet --test gowalla_test.parquet

The session is on all cores of this machine; the defaults are what MLlib ranked well with on Gowalla.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.benchmarks.quality import read_split

from embedding_trainers.evaluation import evaluate
from embedding_trainers.interactions import Columns
from embedding_trainers.spark import train_on_spark
from embedding_trainers.trainer import Factors
from feast_embeddings.artifact import embedding_matrix


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", type=Path, required=True)
    parser.add_argument("--test", type=Path, required=True)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--iterations", type=int, default=4)
    parser.add_argument("--alpha", type=float, default=100)
    parser.add_argument("--regularization", type=float, default=0.05)
    parser.add_argument("--driver-memory", default="6g")
    options = parser.parse_args()
    split = read_split(options.train, options.test, Columns())
    parameters = {name: getattr(options, name) for name in ("factors", "iterations", "alpha", "regularization")}
    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder)
        (repo / "feature_store.yaml").touch()
        start = time.perf_counter()
        training = train_on_spark(
            repo,
            "m",
            options.train,
            conf={"spark.driver.memory": options.driver_memory, "spark.sql.shuffle.partitions": "8"},
            parameters=parameters,
            evaluation=False,
        )
        seconds = time.perf_counter() - start
        users, items = (training.artifact.table(entity) for entity in ("user", "item"))
    assert users["user_id"].combine_chunks().equals(split.users)
    assert items["item_id"].combine_chunks().equals(split.items)
    factors = Factors(embedding_matrix(users), embedding_matrix(items), items["bias"].to_numpy())
    found = evaluate(factors, split.train, split.test)
    print(f"{parameters}: recall@20 {found['recall@20']:.4f}, ndcg@20 {found['ndcg@20']:.4f}, {seconds:.0f} s")
    print(", ".join(f"{step} {taken:.0f} s" for step, taken in training.seconds.items()))


if __name__ == "__main__":
    main()
