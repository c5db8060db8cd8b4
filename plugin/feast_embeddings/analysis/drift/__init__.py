"""Drift: whether a live version still fits what users do, and what it was made of."""

from feast_embeddings.analysis.drift.new_interactions import (
    NewInteractions,
    read_interactions,
    recorded_interactions,
)
from feast_embeddings.analysis.drift.report import Drift, Limits, Measure, measure_drift

__all__ = [
    "Drift",
    "Limits",
    "Measure",
    "NewInteractions",
    "measure_drift",
    "read_interactions",
    "recorded_interactions",
]
