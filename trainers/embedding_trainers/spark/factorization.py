"""Rows to numbered pairs, and pairs to factors by MLlib's ALS, with the objective of the trainer `als`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from embedding_trainers.spark.session import functions, spark_module
from embedding_trainers.trainer import LogShape
from feast_embeddings.artifact import ENTITIES, Entity
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

    from embedding_trainers.models.als import ALSConfig

__all__ = ["Pairs", "SparkFactors", "factorize", "number_pairs", "shape_of"]

_MOST_IDS = 2**31 - 1  # MLlib's ids are 32-bit
_CHECKPOINTED = 4  # iterations, after which their lineage is cut: that of ten overflows a stack of 1 MB


@dataclass(frozen=True)
class Pairs:
    """Users and items in the order of their ids, and the summed weights of each pair with its latest time.

    Attributes:
        sides: of users and of items the columns ``id``, ``number`` (from 0, int) and ``n`` (rows).
        counts: how many users and items there are.
        weights: the columns ``user``, ``item`` (numbers), ``weight`` and, if the log has times, ``time``.
    """

    sides: dict[Entity, DataFrame]
    counts: dict[Entity, int]
    weights: DataFrame

    @property
    def has_times(self) -> bool:
        """Whether the log has them."""
        return "time" in self.weights.columns

    @property
    def weigh(self) -> bool:
        """Whether the weight of a pair is not 1."""
        return not self.weights.where("weight <> 1").isEmpty()

    def release(self) -> None:
        """Free what Spark keeps of it."""
        for frame in (*self.sides.values(), self.weights):
            frame.unpersist()


@dataclass(frozen=True)
class SparkFactors:
    """Of users and of items the columns ``id`` (number) and ``features``."""

    sides: dict[Entity, DataFrame]

    def matrix(self, entity: Entity, n: int) -> npt.NDArray[np.float32]:
        """Collect a side on the driver, shape (n, dim)."""
        table = self.sides[entity].toArrow().combine_chunks()
        features = table["features"].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
        matrix = np.zeros((n, features.shape[1]), np.float32)
        matrix[table["id"].to_numpy()] = features
        return matrix


def number_pairs(rows: DataFrame) -> Pairs:
    """Number users and items in the order of their ids, and sum up the weights of each pair.

    Raises:
        InputError: there are too many for MLlib.
    """
    F = functions()  # noqa: N806
    sides: dict[Entity, DataFrame] = {}
    counts: dict[Entity, int] = {}
    times = [F.max("time").alias("time")] if "time" in rows.columns else []
    pairs = rows.groupBy("user", "item").agg(F.sum("weight").cast("float").alias("weight"), *times)
    for entity in ENTITIES:
        distinct = rows.groupBy(F.col(entity).alias("id")).agg(F.count("*").alias("n"))
        # Not by StringIndexer, which collects all ids on the driver.
        numbered = distinct.orderBy("id").zipWithIndex("number")
        sides[entity] = numbered.withColumn("number", F.col("number").cast("int")).persist()
        counts[entity] = sides[entity].count()
        if counts[entity] > _MOST_IDS:
            raise InputError(f"{counts[entity]:,} {entity}s: Spark's ALS counts them with 32 bits, {_MOST_IDS:,} fit")
        numbers = sides[entity].select(F.col("id").alias(entity), F.col("number").alias(f"{entity}_number"))
        pairs = pairs.join(numbers, entity)
    weights = pairs.select(
        F.col("user_number").alias("user"), F.col("item_number").alias("item"), "weight", *(["time"] if times else [])
    ).persist()
    return Pairs(sides, counts, weights)


def shape_of(pairs: Pairs) -> LogShape:
    """Return what a default may depend on."""
    found = pairs.weights.agg(functions().count("*"), functions().sum("weight")).first()
    assert found is not None  # noqa: S101 (an aggregate has a row)
    return LogShape(pairs.counts["user"], pairs.counts["item"], *found)


def factorize(pairs: Pairs, config: ALSConfig, seed: int) -> SparkFactors:
    """Factorise by MLlib's ALS for implicit feedback.

    Both trainers minimise the same sum over all pairs and solve users last. MLlib's ridge of a row is regParam times
    its number of pairs, ours is regularization · alpha times its summed weights: equal where each pair weighs 1, and
    equal on average elsewhere.
    """
    F = functions()  # noqa: N806
    mean = pairs.weights.agg(F.avg("weight")).first()
    assert mean is not None  # noqa: S101 (an aggregate has a row)
    assert config.alpha is not None, "complete it"  # noqa: S101
    blocks = pairs.weights.sparkSession.sparkContext.defaultParallelism
    als = spark_module("pyspark.ml.recommendation").ALS(
        rank=config.factors,
        maxIter=config.iterations,
        regParam=config.regularization * config.alpha * mean[0],
        alpha=config.alpha,
        implicitPrefs=True,
        numUserBlocks=blocks,
        numItemBlocks=blocks,
        userCol="user",
        itemCol="item",
        ratingCol="weight",
        seed=seed,
        checkpointInterval=_CHECKPOINTED,
    )
    model = als.fit(pairs.weights)
    return SparkFactors({"user": model.userFactors, "item": model.itemFactors})
