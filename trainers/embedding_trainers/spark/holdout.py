"""Evaluation on Spark: a part of the rows is held back there, and a sample of its users is judged on the driver."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from embedding_trainers.evaluation import measure
from embedding_trainers.evaluation.report import MAX_TEST_USERS, Measured
from embedding_trainers.extra import import_extra
from embedding_trainers.interactions.split import (
    BY_TIME,
    MIN_TEST_USERS,
    MIN_USER_ITEMS,
    TIME_SHARE,
    USER_SHARE,
    by_user,
)
from embedding_trainers.spark.factorization import Pairs, factorize, number_pairs
from embedding_trainers.spark.session import functions, spark_module
from embedding_trainers.trainer import Factors
from embedding_trainers.training import Evaluation

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from embedding_trainers.models.als import ALSConfig

__all__ = ["evaluate_on_spark"]


def evaluate_on_spark(rows: DataFrame, config: ALSConfig, seed: int) -> Evaluation:
    """Train without a part of the rows, and measure how well it predicts those; see `split_interactions`."""
    train, test, method = _split(rows, seed)
    n_users = test.select("user").distinct().count()
    if not n_users:
        return Evaluation.impossible("too few interactions to hold any back")
    pairs = number_pairs(train)
    try:
        found = _judged(pairs, test, n_users, config, seed)
    finally:
        pairs.release()
        test.unpersist()
    return Evaluation(method, n_users, found.n_ranked, found.metrics, found.margins)


def _split(rows: DataFrame, seed: int) -> tuple[DataFrame, DataFrame, str]:
    """The rows to train on, the pairs to predict, and how they were chosen."""
    F = functions()  # noqa: N806
    has_times = "time" in rows.columns
    if has_times:
        # The row that NumPy's method "lower" takes. Not by approxQuantile, which holds all rows in memory to be exact.
        place = math.floor((1 - TIME_SHARE) * (rows.count() - 1))
        found = rows.select("time").orderBy("time").zipWithIndex("place").where(F.col("place") == place).first()
        assert found is not None  # noqa: S101 (there is a row at each place)
        cut = found["time"]
        train = rows.where(F.col("time") <= cut)
        test = _predictable(train, rows.where(F.col("time") > cut).select("user", "item").distinct())
        if test.select("user").distinct().count() >= MIN_TEST_USERS:
            return train, test, BY_TIME
        test.unpersist()
    # A pair has the time of its first row.
    order = F.min("time") if has_times else F.xxhash64(F.col("user"), F.col("item"), F.lit(seed))
    window = spark_module("pyspark.sql.window").Window.partitionBy("user")
    items = rows.groupBy("user", "item").agg(order.alias("order"))
    ranked = items.select(
        "user",
        "item",
        F.count("*").over(window).alias("items"),
        F.row_number().over(window.orderBy(F.desc("order"), "item")).alias("rank"),
    )
    is_held = (F.col("items") >= MIN_USER_ITEMS) & (F.col("rank") <= F.floor(F.col("items") * USER_SHARE))
    held = ranked.where(is_held).select("user", "item")
    train = rows.join(held, ["user", "item"], "left_anti")
    return train, _predictable(train, held), by_user(has_times)


def _predictable(train: DataFrame, pairs: DataFrame) -> DataFrame:
    """The pairs whose user and item occur in training, and which do not themselves."""
    for column in ("user", "item"):
        pairs = pairs.join(train.select(column).distinct(), column, "left_semi")
    return pairs.join(train, ["user", "item"], "left_anti").select("user", "item").persist()


def _judged(pairs: Pairs, test: DataFrame, n_users: int, config: ALSConfig, seed: int) -> Measured:
    F = functions()  # noqa: N806
    factors = factorize(pairs, config, seed)
    users, items = (
        pairs.sides[entity].select(F.col("id").alias(entity), F.col("number").alias(f"{entity}_number"))
        for entity in ("user", "item")
    )
    sample = (
        test.select("user")
        .distinct()
        .orderBy(F.xxhash64(F.col("user"), F.lit(seed)), "user")
        .limit(MAX_TEST_USERS)
        .join(users, "user")
        .select("user", "user_number")
        .persist()
    )
    chosen = sample.select(F.col("user_number").alias("id"))
    of_sample = factors.sides["user"].join(chosen, "id", "left_semi").orderBy("id").toArrow()
    numbers = of_sample["id"].to_numpy()
    seen = pairs.weights.join(sample.select(F.col("user_number").alias("user")), "user", "left_semi")
    to_find = test.join(sample, "user").join(items, "item")
    csr_matrix = import_extra("scipy.sparse").csr_matrix
    shape = (len(numbers), pairs.counts["item"])
    matrices = []
    for frame in (seen.select("user", "item"), to_find.select("user_number", "item_number")):
        user, item = (column.to_numpy() for column in frame.toArrow().columns)
        rows = np.searchsorted(numbers, user)
        matrix = csr_matrix((np.ones(len(rows), np.float32), (rows, item)), shape=shape)
        matrix.sort_indices()
        matrices.append(matrix)
    counts = pairs.weights.groupBy("item").agg(F.count("*").alias("users")).toArrow()
    popularity = np.zeros(pairs.counts["item"], np.int64)
    popularity[counts["item"].to_numpy()] = counts["users"].to_numpy()
    features = of_sample["features"].combine_chunks().flatten().to_numpy().reshape(len(numbers), -1)
    item_factors = factors.matrix("item", pairs.counts["item"])
    sample.unpersist()
    learned = Factors(features, item_factors, np.zeros(len(item_factors), np.float32))
    seen_pairs, test_pairs = matrices
    return measure(learned, seen_pairs, test_pairs, popularity=popularity, of_users=n_users)
