"""Users and items with their vectors: from Spark to the driver in parts, as tables of an artifact."""

from __future__ import annotations

from collections.abc import Iterator
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
    parts = list(_parts(side, entity, n, id_type, item_type))
    return EmbeddingTable(
        ids=pa.concat_arrays([part.ids for part in parts]),
        embedding=np.concatenate([part.embedding for part in parts]),
        n_interactions=np.concatenate([part.n_interactions for part in parts]),
        bias=np.zeros(n, np.float32) if entity == "item" else None,
        seen_items=pa.chunked_array([part.seen_items for part in parts]) if entity == "user" else None,
        attributes=attributes,
    )


def _parts(
    side: DataFrame, entity: Entity, n: int, id_type: pa.DataType, item_type: pa.DataType
) -> Iterator[EmbeddingTable]:
    F = functions()  # noqa: N806
    for start in range(0, n, _PART_ROWS):
        number = F.col("number")
        part = side.where((number >= start) & (number < start + _PART_ROWS)).orderBy("number")
        table = part.toArrow().combine_chunks()
        features = table["features"].combine_chunks().flatten().to_numpy()
        yield EmbeddingTable(
            ids=table["id"].combine_chunks().cast(id_type),
            embedding=features.reshape(len(table), -1),
            n_interactions=table["n"].to_numpy(),
            seen_items=table["seen"].combine_chunks().cast(pa.list_(item_type)) if entity == "user" else None,
        )
