"""Users and items with their vectors: from Spark to the driver in parts, as tables of an artifact."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from embedding_trainers.spark.factorization import Pairs, SparkFactors
from embedding_trainers.spark.session import functions
from feast_embeddings.artifact import EmbeddingTable, Entity

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["collect", "side_frame"]

_PART_ROWS = 250_000


def side_frame(pairs: Pairs, factors: SparkFactors, entity: Entity) -> DataFrame:
    """Join the ids of a side with their vectors: ``id``, ``number``, ``n``, ``features``, and of users ``seen``."""
    F = functions()  # noqa: N806
    vectors = factors.sides[entity].withColumnRenamed("id", "number")
    side = pairs.sides[entity].join(vectors, "number")
    if entity == "user":
        items = pairs.sides["item"].select(F.col("number").alias("item"), F.col("id").alias("item_id"))
        seen = pairs.weights.join(items, "item").groupBy(F.col("user").alias("number"))
        side = side.join(seen.agg(F.sort_array(F.collect_list("item_id")).alias("seen")), "number")
    # In order, so that Spark reads only the blocks of a part.
    return side.orderBy("number").persist()


def collect(
    side: DataFrame,
    entity: Entity,
    n: int,
    id_type: pa.DataType,
    item_type: pa.DataType,
    attributes: pa.Table | None,
) -> EmbeddingTable:
    """Collect a side on the driver.

    Args:
        n: how many there are.
        id_type: of its ids.
        item_type: of the ids of items.
        attributes: in the order of the ids, or None.
    """
    ids, embedding, counts = [], [], []
    for start in range(0, n, _PART_ROWS):
        table = _rows(side, slice(start, start + _PART_ROWS), "id", "features", "n")
        ids.append(table["id"].combine_chunks().cast(id_type))
        embedding.append(table["features"].combine_chunks().flatten().to_numpy().reshape(len(table), -1))
        counts.append(table["n"].to_numpy())

    def seen(rows: slice) -> pa.ChunkedArray:
        return _rows(side, rows, "seen")["seen"].cast(pa.list_(item_type))

    return EmbeddingTable(
        ids=pa.concat_arrays(ids),
        embedding=np.concatenate(embedding),
        n_interactions=np.concatenate(counts),
        bias=np.zeros(n, np.float32) if entity == "item" else None,
        # They stay in Spark until a part is written.
        seen_items=seen if entity == "user" else None,
        attributes=attributes,
    )


def _rows(side: DataFrame, rows: slice, *columns: str) -> pa.Table:
    number = functions().col("number")
    part = side.where((number >= rows.start) & (number < rows.stop)).orderBy("number")
    return part.select(*columns).toArrow()
