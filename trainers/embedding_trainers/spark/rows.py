"""The rows of a log in Spark: opened, checked and prepared, as `interactions` does on one machine."""

from __future__ import annotations

import re
from datetime import timedelta
from functools import reduce
from operator import or_
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from embedding_trainers.interactions import Columns, LogReport, Preparation, Reading
from embedding_trainers.interactions.preparation import (
    NO_WEIGHT,
    OUTSIDE,
    REPEATED,
    all_too_many,
    no_weights,
    too_many,
)
from embedding_trainers.spark.session import functions
from embedding_trainers.spark.values import Value, event_value, id_value, time_value, weight_value
from feast_embeddings.artifact import Entity
from feast_embeddings.errors import InputError
from feast_embeddings.reading import Faults, missing_column
from feast_embeddings.times import future_starts, to_microseconds

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

__all__ = ["open_log", "prepared_rows", "refuse_settings", "types_of_ids"]

_TABLE = re.compile(r"(delta|iceberg):(?!/?/)(.+)|(delta|iceberg):(/[^/].*)")


def refuse_settings(preparation: Preparation, reading: Reading) -> None:
    """Refuse settings that are not there on Spark.

    Raises:
        InputError: one is set.
    """
    absent = {
        "--min-user-interactions": preparation.min_user_interactions > 1,
        "--min-item-interactions": preparation.min_item_interactions > 1,
        "--time-format": reading.time_format is not None,
    }
    if named := next((name for name, is_set in absent.items() if is_set), None):
        raise InputError(f"{named} does not work on Spark; do it before, in a Spark job of your own")


def open_log(session: SparkSession, source: DataFrame | Path | str) -> tuple[DataFrame, str]:
    """Open a log, and name it for errors.

    Args:
        source: a data frame; a file, folder or URI of Parquet; or ``delta:`` or ``iceberg:`` with a path or a name.
    """
    if not isinstance(source, str | Path):
        return source, "the data frame"
    text = str(source)
    if table := _TABLE.fullmatch(text):
        form, name = table[1] or table[3], table[2] or table[4]
        return session.read.format(form).load(name), text
    return session.read.parquet(text), text


def types_of_ids(rows: DataFrame) -> dict[Entity, pa.DataType]:
    """The types of the ids of users and items, in Arrow."""
    types = dict(rows.dtypes)
    return {"user": _arrow(types["user"]), "item": _arrow(types["item"])}


def prepared_rows(
    log: DataFrame, name: str, columns: Columns, preparation: Preparation, reading: Reading
) -> tuple[DataFrame, LogReport]:
    """Check the rows of a log, and leave out those that do not count.

    Returns:
        The columns ``user``, ``item``, ``weight`` (float) and, if the log has times, ``time`` (microseconds); and
        what became of the rows.

    Raises:
        InputError: see `embedding_trainers.interactions.read_log`.
    """
    rows, report = _checked(log, name, columns, preparation, reading)
    rows = _within(rows, name, preparation, report)
    if preparation.drop_duplicates:
        rows = _left(rows, rows.dropDuplicates(), report, REPEATED)
    if (most := preparation.max_user_interactions) is not None:
        F = functions()  # noqa: N806
        few = rows.groupBy("user").agg(F.count("*").alias("n")).where(F.col("n") <= most)
        rows = _left(rows, rows.join(few.select("user"), "user", "left_semi"), report, too_many(most))
        if rows.isEmpty():
            raise all_too_many(name, most)
    if preparation.half_life is not None:
        rows = _decayed(rows, preparation.half_life)
    return rows, report


def _checked(
    log: DataFrame, name: str, columns: Columns, preparation: Preparation, reading: Reading
) -> tuple[DataFrame, LogReport]:
    F = functions()  # noqa: N806
    columns.check(preparation)
    named = [columns.user, columns.item, columns.timestamp, columns.weight, columns.event]
    for column in named:
        if column is not None and column not in log.columns:
            raise missing_column(name, column, log.columns)
    values: dict[str, Value] = {
        "user": id_value(log, columns.user, reading.user_ids),
        "item": id_value(log, columns.item, reading.item_ids),
    }
    if columns.times in log.columns:
        latest = None if reading.allow_future else to_microseconds(future_starts())
        values["time"] = time_value(log, columns.times, latest)
    else:
        columns.refuse_without_times(preparation, name)
    if columns.weight is not None:
        values["weight"] = weight_value(log, columns.weight)
    if columns.event is not None:
        if not preparation.event_weights:
            raise InputError(f"{name}: give each type of {columns.event!r} a weight (--event-weights)")
        values["event"] = event_value(log, columns.event, preparation.event_weights)
    bad = _refuse_bad(log, name, list(values.values()), reading)
    converted = log
    if bad.bad:
        faulty = [condition for value in values.values() for _, condition in value.faults]
        converted = log.where(~reduce(or_, (F.coalesce(each, F.lit(False)) for each in faulty)))
    weight = values["weight"].value if "weight" in values else F.lit(1.0)
    if "event" in values:
        of_event = F.create_map(*(F.lit(part) for pair in preparation.event_weights.items() for part in pair))
        weight = weight * of_event[values["event"].value].cast("float")
    kept = [values[part].value.alias(part) for part in ("user", "item", "time") if part in values]
    return (
        converted.select(*kept, weight.cast("float").alias("weight")),
        LogReport(bad.rows, bad.bad, dict(bad.counts)),
    )


def _refuse_bad(log: DataFrame, name: str, values: list[Value], reading: Reading) -> Faults:
    """Count the bad rows in one pass, and refuse them unless they may be dropped."""
    F = functions()  # noqa: N806
    kinds: list[str] = []
    counted: list[Any] = []
    any_fault = F.lit(False)
    for value in values:
        before = F.lit(False)
        for kind, condition in value.faults:
            holds = F.coalesce(condition, F.lit(False))
            counted += [
                F.count_if(holds & ~before).alias(f"n{len(kinds)}"),
                F.min(F.when(holds & ~before, value.raw.cast("string"))).alias(f"e{len(kinds)}"),
            ]
            kinds.append(kind)
            before = before | holds
        any_fault = any_fault | before
    found = log.agg(F.count("*").alias("rows"), F.count_if(any_fault).alias("bad"), *counted).first()
    assert found is not None  # noqa: S101 (an aggregate has a row)
    faults = Faults(found["rows"], found["bad"])
    for number, kind in enumerate(kinds):
        if count := found[f"n{number}"]:
            faults.add(kind, count)
            if found[f"e{number}"]:
                faults.add_example(kind, "e.g.", found[f"e{number}"])
    if not faults.rows:
        raise InputError(f"{name} has no rows")
    faults.settle(name, reading.on_bad_rows)
    return faults


def _within(rows: DataFrame, name: str, preparation: Preparation, report: LogReport) -> DataFrame:
    """Leave out rows of weight 0, and those outside of `since` and `until`."""
    F = functions()  # noqa: N806
    counts, inside = F.col("weight") > 0, F.lit(True)
    if preparation.since:
        inside &= F.col("time") >= to_microseconds(preparation.since)
    if preparation.until:
        inside &= F.col("time") <= to_microseconds(preparation.until)
    times = [f(F.when(counts, F.col("time"))).alias(f.__name__) for f in (F.min, F.max) if "time" in rows.columns]
    found = rows.agg(
        F.count_if(~counts).alias("zero"),
        F.count_if(counts).alias("counted"),
        F.count_if(counts & ~inside).alias("outside"),
        *times,
    ).first()
    assert found is not None  # noqa: S101 (an aggregate has a row)
    report.leave_out(NO_WEIGHT, found["zero"])
    if not found["counted"]:
        raise no_weights(name)
    report.leave_out(OUTSIDE, found["outside"])
    if found["outside"] == found["counted"]:
        raise preparation.empty_window(name, found["min"], found["max"])
    return rows.where(counts & inside)


def _left(before: DataFrame, after: DataFrame, report: LogReport, why: str) -> DataFrame:
    report.leave_out(why, before.count() - after.count())
    return after


def _decayed(rows: DataFrame, half_life: timedelta) -> DataFrame:
    F = functions()  # noqa: N806
    newest = rows.agg(F.max("time")).first()
    assert newest is not None  # noqa: S101 (an aggregate has a row)
    factor = F.pow(F.lit(2.0), (F.col("time") - newest[0]) / (half_life / timedelta(microseconds=1)))
    # Not 0 even for very old rows: that would be no interaction.
    least = F.lit(float(np.finfo(np.float32).tiny))
    return rows.withColumn("weight", F.greatest(F.col("weight") * F.greatest(factor, least), least).cast("float"))


def _arrow(dtype: str) -> pa.DataType:
    return pa.int64() if dtype == "bigint" else pa.string()
