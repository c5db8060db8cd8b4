"""Training on Apache Spark: a log that one machine cannot hold, the same artifact."""

from __future__ import annotations

from embedding_trainers.spark.train import train_on_spark

__all__ = ["train_on_spark"]
