"""The whole of training on Spark: check a log, judge als on a part of it, fit all of it, write the artifact."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa

from embedding_trainers import AUTO
from embedding_trainers.alignment import align_by
from embedding_trainers.content.catalogue import NONE
from embedding_trainers.interactions import Columns, Preparation, Reading
from embedding_trainers.interactions.checks import judge_weights, rows_warnings
from embedding_trainers.interactions.tables import refuse_zeros
from embedding_trainers.spark.factorization import Pairs, factorize, number_pairs, shape_of
from embedding_trainers.spark.holdout import evaluate_on_spark
from embedding_trainers.spark.rows import open_log, prepared_rows, refuse_settings, types_of_ids
from embedding_trainers.spark.session import checkpoints, functions, open_session, spark_errors
from embedding_trainers.spark.shared_ids import count_shared_on_spark, sums_of_shared
from embedding_trainers.spark.sides import collect, side_frame
from embedding_trainers.training import LATEST, Run, Training, open_run, timed
from feast_embeddings.artifact import ENTITIES, EmbeddingTable, Entity
from feast_embeddings.errors import InputError
from feast_embeddings.reading import ColumnType, Source
from feast_embeddings.times import from_microseconds

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

    from embedding_trainers.models.als import ALSConfig

__all__ = ["train_on_spark"]

TRAINER = "als"


def train_on_spark(
    repo: Path,
    model: str,
    interactions: DataFrame | Path | str,
    *,
    session: SparkSession | None = None,
    master: str | None = None,
    conf: Mapping[str, str] | None = None,
    columns: Columns | None = None,
    preparation: Preparation | None = None,
    reading: Reading | None = None,
    trainer: str = AUTO,
    parameters: Mapping[str, Any] | None = None,
    seed: int = 0,
    user_attributes: Source | None = None,
    item_attributes: Source | None = None,
    attribute_types: Mapping[str, ColumnType] | None = None,
    evaluation: bool = True,
    align_to: str | None = LATEST,
    history: int | None = None,
) -> Training:
    """Train a new version of a model on Spark; see `embedding_trainers.train.train_model` for everything else.

    Args:
        interactions: a data frame; a file, folder or URI of Parquet; or ``delta:`` or ``iceberg:`` with a path or the
            name of a table.
        session: the session to use; by default the active one, else a new one.
        master: Spark's master, for a new session; by default this machine.
        conf: Spark's settings, for a new session.
        trainer: only ``als`` is there on Spark, so ``auto`` is that.
        seed: of all randomness; results may differ in their last digits between runs.

    Raises:
        InputError: an argument or the log cannot be used. Nothing has been written then.
        EmbeddingsError: Spark failed.
        MissingExtraError: the extra ``spark`` is not installed.
    """
    trainer = TRAINER if trainer == AUTO else trainer
    if trainer != TRAINER:
        raise InputError(f"trainer {trainer!r}: on Spark there is only {TRAINER}; name it, or train with engine local")
    run = open_run(repo, model, columns, preparation, reading, trainer, parameters, align_to)
    refuse_settings(run.preparation, run.reading)
    files: dict[Entity, Source | None] = {"user": user_attributes, "item": item_attributes}
    with open_session(session, master, conf or {}) as spark, spark_errors(), checkpoints(spark):
        log, name = open_log(spark, interactions)
        return _train(run, log, name, files, attribute_types, evaluation=evaluation, seed=seed, history=history)


def _train(
    run: Run,
    log: DataFrame,
    name: str,
    files: Mapping[Entity, Source | None],
    attribute_types: Mapping[str, ColumnType] | None,
    *,
    evaluation: bool,
    seed: int,
    history: int | None,
) -> Training:
    seconds: dict[str, float] = {}
    with timed(seconds, "read"):
        rows, report = prepared_rows(log, name, run.columns, run.preparation, run.reading)
        rows = rows.persist()
        run.check_history(history, timed="time" in rows.columns)
        pairs = number_pairs(rows)
        config = cast("ALSConfig", run.method.complete(run.config, shape_of(pairs)))
        types = types_of_ids(rows)
        as_of, n_rows, fingerprint = _facts(rows, types)
        warnings = _warnings(pairs, n_rows, as_of)
        ids = {entity: _ids(pairs.sides[entity]) if files[entity] else pa.array([]) for entity in ENTITIES}
        attributes, _, unused = run.read_attributes(files, ids, attribute_types, dict.fromkeys(ENTITIES, NONE))
        warnings += unused
        schemas = run.check_schemas(types, attributes)
        if run.previous and run.align_to != LATEST:
            run.refuse_too_few(count_shared_on_spark(run.previous, pairs.sides, types))
    judged = None
    if evaluation:
        with timed(seconds, "evaluate"):
            judged = evaluate_on_spark(rows, config, seed)
    with timed(seconds, "fit"):
        factors = factorize(pairs, config, seed)
        sides = {entity: side_frame(pairs, factors, entity, history) for entity in ENTITIES}
        kept = {"weigh": pairs.weigh, "timed": pairs.has_times}
        tables: dict[Entity, EmbeddingTable] = {
            entity: collect(
                side, entity, pairs.counts[entity], types[entity], types["item"], attributes[entity], **kept
            )
            for entity, side in sides.items()
        }
        refuse_zeros(tables)
    with timed(seconds, "align") if run.previous else nullcontext():
        aligned = run.aligned(
            tables, lambda previous, tables, _: align_by(previous, tables, sums_of_shared(previous, sides, types))
        )
    with timed(seconds, "write"):
        artifact = run.write(
            aligned,
            config=config,
            seed=seed,
            as_of=as_of,
            fingerprint=fingerprint,
            n_interactions=n_rows,
            evaluation=judged,
            report=report,
            schemas=schemas,
            history=history,
        )
    for frame in (rows, *sides.values()):
        frame.unpersist()
    pairs.release()
    return Training(artifact, judged, None, None, None, report, warnings, seconds)


def _ids(side: DataFrame) -> pa.Array:
    return side.orderBy("number").select("id").toArrow()["id"].combine_chunks()


def _facts(rows: DataFrame, types: Mapping[Entity, pa.DataType]) -> tuple[datetime | None, int, str]:
    """The time of the newest row, the number of rows, and a hash that is equal for equal rows in any order.

    Each row is hashed to 128 bits by two xxHash64, and the rows are summed, as addition forgets the order. It tells
    data sets apart as the fingerprint of a local training does, but is not equal to it.
    """
    F = functions()  # noqa: N806
    row = F.xxhash64(*(F.col(column) for column in rows.columns))
    sums = [F.sum(each.cast("decimal(38, 0)")) for each in (row, F.xxhash64(row, F.lit(1)))]
    newest = F.max("time") if "time" in rows.columns else F.lit(None)
    found = rows.agg(F.count("*"), newest, *sums).first()
    assert found is not None  # noqa: S101 (an aggregate has a row)
    n_rows, time, *hashes = found
    parts = ("spark", n_rows, types["user"], types["item"], *rows.columns, *(int(each) for each in hashes))
    fingerprint = hashlib.sha256(" ".join(map(str, parts)).encode()).hexdigest()
    return None if time is None else from_microseconds(time), n_rows, fingerprint


def _warnings(pairs: Pairs, n_rows: int, as_of: datetime | None) -> list[str]:
    """What the user should know about the weights and the rows, a sentence each."""
    F = functions()  # noqa: N806
    weight = F.col("weight")
    found = pairs.weights.agg(
        F.max(weight), F.max_by(F.struct("user", "item"), weight), F.percentile_approx(weight, 0.5)
    ).first()
    most = pairs.sides["user"].agg(F.max_by("id", "n"), F.max("n")).first()
    assert found is not None  # noqa: S101 (an aggregate has a row)
    assert most is not None  # noqa: S101
    numbers: dict[Entity, int] = {"user": found[1]["user"], "item": found[1]["item"]}
    first = [pairs.sides[entity].where(F.col("number") == number).first() for entity, number in numbers.items()]
    user, item = (row["id"] for row in first if row is not None)
    return judge_weights(found[0], (user, item), found[2]) + rows_warnings(most[0], most[1], n_rows, as_of)
