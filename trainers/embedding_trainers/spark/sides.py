"""Users and items with their vectors: from Spark to the driver in parts, as tables of an artifact."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from embedding_trainers.spark.factorization import Pairs, SparkFactors
from embedding_trainers.spark.session import functions
from feast_embeddings.artifact import EmbeddingTable, Entity
from feast_embeddings.artifact.seen import NEXT_TO_SEEN, SEEN_TIMES, SEEN_WEIGHTS
from feast_embeddings.artifact.table import Lists

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["collect", "side_frame"]

_PART_ROWS = 250_000


def side_frame(pairs: Pairs, factors: SparkFactors, entity: Entity, newest: int | None = None) -> DataFrame:
    """Join the ids of a side with their vectors: ``id``, ``number``, ``n``, ``features``, and of users ``seen``.

    Args:
        newest: how many items a user has seen at most, the newest; None keeps all. It needs times.

    Returns:
        ``seen`` has structs of ``time`` if there are times, ``item`` and ``weight``: the newest last, and in the order
        of their ids without times and at one time.
    """
    F = functions()  # noqa: N806
    vectors = factors.sides[entity].withColumnRenamed("id", "number")
    side = pairs.sides[entity].join(vectors, "number")
    if entity == "user":
        items = pairs.sides["item"].select(F.col("number").alias("item"), F.col("id").alias("item_id"))
        seen = pairs.weights.join(items, "item").groupBy(F.col("user").alias("number"))
        times = [F.col("time")] if pairs.has_times else []
        lists = F.sort_array(F.collect_list(F.struct(*times, F.col("item_id").alias("item"), F.col("weight"))))
        if newest is not None:
            start = F.greatest(F.size(lists) - newest, F.lit(0))
            lists = F.slice(lists, start + 1, F.lit(newest))
        side = side.join(seen.agg(lists.alias("seen")), "number")
    # In order, so that Spark reads only the blocks of a part.
    return side.orderBy("number").persist()


def collect(
    side: DataFrame,
    entity: Entity,
    n: int,
    id_type: pa.DataType,
    item_type: pa.DataType,
    attributes: pa.Table | None,
    *,
    weigh: bool,
    timed: bool,
) -> EmbeddingTable:
    """Collect a side on the driver.

    Args:
        n: how many there are.
        id_type: of its ids.
        item_type: of the ids of items.
        attributes: in the order of the ids, or None.
        weigh: whether weights of pairs are kept.
        timed: whether their times are.
    """
    ids, embedding, counts = [], [], []
    for start in range(0, n, _PART_ROWS):
        table = _rows(side, slice(start, start + _PART_ROWS), "id", "features", "n")
        ids.append(table["id"].combine_chunks().cast(id_type))
        embedding.append(table["features"].combine_chunks().flatten().to_numpy().reshape(len(table), -1))
        counts.append(table["n"].to_numpy())

    @lru_cache(1)
    def seen_of(start: int, stop: int) -> pa.Table:
        fields = ["item", *(["weight"] if weigh else []), *(["time"] if timed else [])]
        return _rows(side, slice(start, stop), *(f"seen.{field}" for field in fields))

    def seen(field: str, dtype: pa.DataType) -> Lists:
        # They stay in Spark until a part is written, which asks for each column of the same rows.
        return lambda rows: seen_of(rows.start, rows.stop)[field].cast(dtype)

    is_user = entity == "user"

    return EmbeddingTable(
        ids=pa.concat_arrays(ids),
        embedding=np.concatenate(embedding),
        n_interactions=np.concatenate(counts),
        bias=np.zeros(n, np.float32) if entity == "item" else None,
        seen_items=seen("item", pa.list_(item_type)) if is_user else None,
        seen_weights=seen("weight", NEXT_TO_SEEN[SEEN_WEIGHTS]) if is_user and weigh else None,
        seen_times=seen("time", NEXT_TO_SEEN[SEEN_TIMES]) if is_user and timed else None,
        attributes=attributes,
    )


def _rows(side: DataFrame, rows: slice, *columns: str) -> pa.Table:
    number = functions().col("number")
    part = side.where((number >= rows.start) & (number < rows.stop)).orderBy("number")
    return part.select(*columns).toArrow()
