"""What `/metrics` says of freshness and of recorded events, and the dashboard that is made of it."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.conftest import ROOT, Command
from tests.support.asking import Asking
from tests.support.publishing import publish_any
from tests.support.serving import service_of
from tests.support.shop import AS_OF, Shop, served_shop, write_version

from feast_embeddings.query.store import EmbeddingStore

DASHBOARD = ROOT / "configs" / "grafana" / "feast-embeddings.json"


@pytest.fixture(scope="module", params=["embedded"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A published shop of its own, as events are recorded."""
    yield from served_shop(request, tmp_path_factory.mktemp("shop"))


def gauges(service: Asking) -> dict[str, float]:
    """The metrics of the model that are neither counters nor histograms, by name."""
    families = text_string_to_metric_families(service.get("/metrics").text)
    return {s.name: s.value for family in families if family.type == "gauge" for s in family.samples}


def test_freshness_and_backlog(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """Ages are from now to the cut-off and to the newest event, by its own time; only newer events are waiting."""
    service = Asking(service_of(shop))
    before = gauges(service)
    assert before["feast_embeddings_event_backlog"] == 0
    assert "feast_embeddings_event_age_seconds" not in before
    times = [AS_OF - timedelta(days=1), AS_OF, AS_OF + timedelta(hours=2), AS_OF + timedelta(hours=1)]
    events = [{"user_id": "u-1", "item_id": "sku-1", "timestamp": moment} for moment in times]
    EmbeddingStore(shop.feature_store, "shop").add_interactions(events)
    started = datetime.now(UTC)
    found = gauges(service)
    passed = (datetime.now(UTC) - started).total_seconds()
    assert found["feast_embeddings_event_backlog"] == 2
    for name, moment in (("as_of_age", AS_OF), ("event_age", max(times))):
        age = found[f"feast_embeddings_{name}_seconds"] - (started - moment).total_seconds()
        assert -1e-3 <= age <= passed + 1e-3

    log = shop.repo.data / "shop.events.sqlite"
    kept = log.rename(log.with_suffix(".kept"))
    try:
        log.write_bytes(b"no database, but as long as the header of one would be" * 40)
        with caplog.at_level(logging.WARNING, "feast_embeddings.service"):
            assert gauges(service) == {}
        assert [record.getMessage() for record in caplog.records] == ["metrics"]
    finally:
        kept.rename(log)


def drifts(service: Asking) -> dict[tuple[str, ...], float]:
    """The metrics of drift: values by name and labels, without the prefix."""
    prefix = "feast_embeddings_drift_"
    families = text_string_to_metric_families(service.get("/metrics").text)
    samples = [s for family in families for s in family.samples if s.name.startswith(prefix)]
    labels = ("model", "version", "name")
    return {
        (s.name.removeprefix(prefix), *(s.labels[each] for each in labels if each in s.labels)): s.value
        for s in samples
    }


def test_drift(shop: Shop, command: Command, caplog: pytest.LogCaptureFixture) -> None:
    """The service has the numbers of the command's JSON, until another version is live."""
    service = Asking(service_of(shop))
    assert drifts(service) == {}
    drift = ("drift", "--repo", shop.repo.path, "--model", "shop", "--json")
    before = datetime.now(UTC)
    ran = command(*drift, "--max-age", 1)
    told = json.loads(ran.out)
    assert (ran.code, ran.err) == (3, "")
    of = ("shop", shop.artifact.manifest.version)
    expected: dict[tuple[str, ...], float] = {("interactions", *of): float(told["n_interactions"])}
    for measure in told["measures"]:
        expected |= {
            (metric, *of, measure["name"]): float(measure[field])
            for metric, field in (("measure", "value"), ("limit", "limit"), ("beyond", "beyond"))
            if measure[field] is not None
        }
    assert expected["beyond", *of, "age_days"] == 1
    found = drifts(service)
    assert 0 <= found.pop(("age_seconds", *of)) <= (datetime.now(UTC) - before).total_seconds()
    assert found == expected
    assert command(*drift, "--max-age", 100_000).code == 0
    assert drifts(service)["beyond", *of, "age_days"] == 0

    file = shop.repo.data / "shop.drift.json"
    file.write_text("{")
    with caplog.at_level(logging.WARNING, "feast_embeddings.service"):
        assert drifts(service) == {}
        assert "feast_embeddings_live_version" in gauges(service)
    assert {record.getMessage() for record in caplog.records} == {"drift metrics"}
    file.unlink()

    assert command(*drift, "--max-age", 1).code == 3
    publish_any(shop.feature_store, write_version(shop.repo.data, seed=1))
    assert drifts(service) == {}
    publish_any(shop.feature_store, shop.artifact)
    assert drifts(service)["beyond", *of, "age_days"] == 1


def test_the_dashboard_asks_for_what_there_is(shop: Shop, command: Command) -> None:
    """Every metric and label in its queries is one that the service exports."""
    command("drift", "--repo", shop.repo.path, "--model", "shop")
    EmbeddingStore(shop.feature_store, "shop").add_interactions([{"user_id": "u-1", "item_id": "sku-1"}])
    service = Asking(service_of(shop))
    service.post("/v1/models/shop/similar_items", {"item_id": "nothing"})
    exported: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(service.get("/metrics").text):
        for sample in family.samples:
            exported.setdefault(sample.name, set()).update(sample.labels)
    dashboard = json.loads(Path(DASHBOARD).read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    queries += [variable["query"] for variable in dashboard["templating"]["list"] if variable["type"] == "query"]
    asked = {name for query in queries for name in re.findall(r"\bfeast_embeddings_\w+", query)}
    assert asked <= exported.keys()
    # Everything is shown; of the histogram, what quantiles need.
    shown = {name for name in exported if not name.endswith(("_created", "_sum", "_count"))}
    assert shown <= asked
    for query in queries:
        for name, conditions in re.findall(r"\b(feast_embeddings_\w+)\{([^}]*)\}", query):
            assert set(re.findall(r"(\w+)\s*[=!]", conditions)) <= exported[name]
        for labels in re.findall(r"\bby \(([^)]*)\)", query):
            (name,) = re.findall(r"\bfeast_embeddings_\w+", query)[:1]
            assert set(labels.split(", ")) <= exported[name]
