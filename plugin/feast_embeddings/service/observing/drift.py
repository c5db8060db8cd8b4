"""Metrics of the drift that was measured of the live versions."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from feast_embeddings.errors import EmbeddingsError
from feast_embeddings.events import MeasuredDrift, measured_drift_of
from feast_embeddings.service.models import Models

__all__ = ["DriftMetrics"]

_log = logging.getLogger("feast_embeddings.service")


class DriftMetrics(Collector):
    """What `feast-embeddings drift` last found, read at each scrape; nothing if another version is live since."""

    def __init__(self, models: Models) -> None:
        self._models = models
        self._data = Path(models.feature_store.config.repo_path or ".") / "data"

    def collect(self) -> Iterable[Metric]:
        labels = ["model", "version"]
        age = GaugeMetricFamily("feast_embeddings_drift_age_seconds", "Time since the last drift.", labels=labels)
        interactions = GaugeMetricFamily("feast_embeddings_drift_interactions", "New interactions.", labels=labels)
        value = GaugeMetricFamily("feast_embeddings_drift_measure", "What was measured.", labels=[*labels, "name"])
        limit = GaugeMetricFamily(
            "feast_embeddings_drift_limit", "The most or the least that a measure may be.", labels=[*labels, "name"]
        )
        beyond = GaugeMetricFamily(
            "feast_embeddings_drift_beyond", "1 for a measure beyond its limit.", labels=[*labels, "name"]
        )
        now = datetime.now(UTC)
        for name in self._models.names():
            try:
                drift = self._of_live(name)
            except EmbeddingsError as error:
                _log.warning("drift metrics", extra={"model": name, "reason": str(error)})
                continue
            if drift is None:
                continue
            of = [name, drift.version]
            age.add_metric(of, (now - drift.measured_at).total_seconds())
            interactions.add_metric(of, drift.n_interactions)
            for measure in drift.measures:
                for metric, field in ((value, "value"), (limit, "limit"), (beyond, "beyond")):
                    if measure[field] is not None:
                        metric.add_metric([*of, measure["name"]], float(measure[field]))
        yield from (age, interactions, value, limit, beyond)

    def _of_live(self, model: str) -> MeasuredDrift | None:
        drift = measured_drift_of(self._data, model).now()
        if drift is None or drift.version != self._models.get(model).live_version():
            return None
        return drift
