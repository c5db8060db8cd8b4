"""Metrics for Prometheus, summed over workers if PROMETHEUS_MULTIPROC_DIR names a common folder."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

from prometheus_client import CollectorRegistry, Counter, Histogram, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from feast_embeddings.errors import EmbeddingsError, NotPublishedError
from feast_embeddings.service.models import Models
from feast_embeddings.service.observing.drift import DriftMetrics
from feast_embeddings.times import from_microseconds

__all__ = ["MISSING", "count_request", "exposition"]

_log = logging.getLogger("feast_embeddings.service")

_registry = CollectorRegistry()
_REQUESTS = Counter(
    "feast_embeddings_requests", "Requests by endpoint and HTTP status.", ["endpoint", "status"], registry=_registry
)
_SECONDS = Histogram(
    "feast_embeddings_request_seconds",
    "Time to answer, by endpoint.",
    ["endpoint"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=_registry,
)
MISSING = Counter(
    "feast_embeddings_missing_ids",
    "Requested ids that the live version does not know.",
    ["model"],
    registry=_registry,
)


# Cached, because finding the metric of some labels costs more than counting.
_requests_of, _seconds_of = lru_cache(_REQUESTS.labels), lru_cache(_SECONDS.labels)


def count_request(endpoint: str, status: int, seconds: float) -> None:
    """Count a request and its duration; status 0 is for one that was not answered."""
    _requests_of(endpoint, status).inc()
    _seconds_of(endpoint).observe(seconds)


class _Live(Collector):
    """Metrics of the live versions and the event logs, looked up at each scrape: every worker reports the same."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def collect(self) -> Iterable[Metric]:
        version = GaugeMetricFamily(
            "feast_embeddings_live_version", "1 for the version that is live.", labels=["model", "version"]
        )
        age = GaugeMetricFamily(
            "feast_embeddings_as_of_age_seconds",
            "Time since the newest interaction that the live version was trained on.",
            labels=["model"],
        )
        event_age = GaugeMetricFamily(
            "feast_embeddings_event_age_seconds", "Time since the newest recorded interaction.", labels=["model"]
        )
        backlog = GaugeMetricFamily(
            "feast_embeddings_event_backlog",
            "Recorded interactions that are newer than those that the live version was trained on.",
            labels=["model"],
        )
        now = datetime.now(UTC)
        for name in self._models.names():
            try:
                live = self._models.get(name).live()
                spec, waiting = live.spec, live.backlog()
            except NotPublishedError:
                continue
            except EmbeddingsError as error:
                # One model without an answer does not hide the others.
                _log.warning("metrics", extra={"model": name, "reason": str(error)})
                continue
            version.add_metric([name, spec.version], 1)
            if spec.as_of:
                age.add_metric([name], (now - datetime.fromisoformat(spec.as_of)).total_seconds())
            if waiting.newest is not None:
                event_age.add_metric([name], (now - from_microseconds(waiting.newest)).total_seconds())
            backlog.add_metric([name], waiting.events)
        yield from (version, age, event_age, backlog)


class _Summed(Collector):
    """Our metrics of all workers; Feast writes its own into the same folder."""

    def collect(self) -> Iterable[Metric]:
        summed = MultiProcessCollector(None)  # type: ignore[no-untyped-call]
        metrics: Iterable[Metric] = summed.collect()  # type: ignore[no-untyped-call]
        return [metric for metric in metrics if metric.name.startswith("feast_embeddings_")]


def exposition(models: Models) -> bytes:
    """Return all metrics in Prometheus's text format."""
    counted = _registry
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        counted = CollectorRegistry()
        counted.register(_Summed())
    live = CollectorRegistry()
    live.register(_Live(models))
    live.register(DriftMetrics(models))
    return generate_latest(counted) + generate_latest(live)
