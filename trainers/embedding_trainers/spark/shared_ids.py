"""What a version on Spark shares with an earlier one: counted, and summed up for the alignment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from embedding_trainers import procrustes
from embedding_trainers.procrustes import Halves, Sums, sum_up
from embedding_trainers.spark.session import functions, spark_module
from feast_embeddings.artifact import ENTITIES, Artifact, Entity

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

__all__ = ["count_shared_on_spark", "sums_of_shared"]


def count_shared_on_spark(
    previous: Artifact, sides: Mapping[Entity, DataFrame], types: Mapping[Entity, pa.DataType]
) -> dict[Entity, int]:
    """Count the users and items that an earlier version knows.

    Raises:
        ArtifactError: a table of it is damaged.
    """
    counts: dict[Entity, int] = {}
    for entity in ENTITIES:
        before = _before(previous, entity, [f"{entity}_id"], types[entity])
        if before is None:
            counts[entity] = 0
            continue
        frame = sides[entity].sparkSession.createDataFrame(before)
        counts[entity] = sides[entity].join(frame, "id", "left_semi").count()
    return counts


def sums_of_shared(
    previous: Artifact, sides: Mapping[Entity, DataFrame], types: Mapping[Entity, pa.DataType]
) -> dict[Entity, Halves]:
    """Sum up the shared users and items, on the workers.

    Args:
        sides: see `embedding_trainers.spark.sides.side_frame`.
        types: of the ids.

    Raises:
        ArtifactError: a table of the earlier version is damaged.
    """
    dim = previous.manifest.dim
    sums: dict[Entity, Halves] = {}
    for entity in ENTITIES:
        nothing = sum_up(*(np.empty((0, dim), np.float32),) * 2, *(np.empty(0, np.int64),) * 2)
        halves = [nothing, nothing]
        before = _before(previous, entity, [f"{entity}_id", "embedding", "n_interactions"], types[entity])
        if before is not None:
            for half, part in _summed(sides[entity], before, dim):
                halves[half] = halves[half] + part
        sums[entity] = halves
    return sums


def _before(previous: Artifact, entity: Entity, columns: list[str], id_type: pa.DataType) -> pa.Table | None:
    """These columns of a version, the first as ``id``; None if its ids are of another type, and so never equal."""
    files = previous.verified(entity)
    if files.schema.field(columns[0]).type != id_type:
        return None
    return files.read(columns).rename_columns(["id", *columns[1:]])


def _summed(side: DataFrame, before: pa.Table, dim: int) -> list[tuple[int, Sums]]:
    F = functions()  # noqa: N806
    old = side.sparkSession.createDataFrame(before)
    shared = side.join(old, "id").select(
        (F.col("number") % 2).alias("half"), "features", "embedding", "n", "n_interactions"
    )

    def part(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            half, n, m = (batch.column(name).to_numpy() for name in ("half", "n", "n_interactions"))
            x, y = (
                batch.column(name).flatten().to_numpy().reshape(len(batch), dim) for name in ("features", "embedding")
            )
            for which in (0, 1):
                rows = half == which
                values = sum_up(x[rows], y[rows], n[rows], m[rows]).flat()
                yield pa.record_batch([pa.array([which], pa.int32()), pa.array([values])], ["half", "sums"])

    with _sent_by_value():
        rows = shared.mapInArrow(part, "half int, sums array<double>").toArrow()
    return [(row["half"], Sums.from_flat(np.array(row["sums"]), dim)) for row in rows.to_pylist()]


@contextmanager
def _sent_by_value() -> Iterator[None]:
    """Send the code of the sums with the job: the workers need NumPy and PyArrow, and not this package."""
    cloudpickle = spark_module("pyspark.cloudpickle")
    cloudpickle.register_pickle_by_value(procrustes)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(procrustes)
