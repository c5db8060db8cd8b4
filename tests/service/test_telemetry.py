"""Spans and measurements of requests: in memory, and at a collector on a socket."""

from __future__ import annotations

import gzip
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from tests.support.asking import Asking
from tests.support.serving import service_of
from tests.support.shop import Shop

from feast_embeddings.service.observing.telemetry import Providers, Telemetry, is_wanted
from feast_embeddings.service.server.logs import JsonLines

RANK = "/v1/models/shop/rank"
TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.fixture(scope="module")
def shop(common_shop: Shop) -> Shop:
    """A published shop; tests only read from it."""
    return common_shop


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variables of OpenTelemetry, and what is set in a test is as it was after it."""
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("OTEL_SEMCONV_STABILITY_OPT_IN", "http")


def test_a_span_a_request(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    """Named by the route, of the caller's trace, which is in the log too; the query string is nowhere."""
    spans, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer = TracerProvider()
    tracer.add_span_processor(SimpleSpanProcessor(spans))
    app = service_of(shop)
    service = Asking(Telemetry(app, app.routes, lambda: Providers(tracer, MeterProvider([reader]))))
    with caplog.at_level(logging.INFO, "feast_embeddings.access"):
        body = {"user_id": "u-1", "limit": 1}
        service.post(f"{RANK}?api_key=secret", body, headers={"traceparent": f"00-{TRACE}-{SPAN}-01"})
        service.post("/v1/models/none/rank", body)
        service.get("/nowhere/secret")
    rank, unknown, nowhere = spans.get_finished_spans()
    assert [span.name for span in (rank, unknown, nowhere)] == [*["POST /v1/models/{model}/rank"] * 2, "HTTP"]
    assert rank.context is not None
    assert rank.parent is not None
    assert (f"{rank.context.trace_id:032x}", f"{rank.parent.span_id:016x}") == (TRACE, SPAN)
    found = [
        [(span.attributes or {}).get(name) for name in ("feast_embeddings.model", "http.response.status_code")]
        for span in (rank, unknown, nowhere)
    ]
    assert found == [["shop", 200], ["none", 404], [None, 404]]
    assert "secret" not in json.dumps([json.loads(span.to_json()) for span in (rank, unknown)])
    logged = [json.loads(JsonLines().format(record))["trace_id"] for record in caplog.records]
    assert logged == [f"{span.context.trace_id:032x}" for span in (rank, unknown, nowhere) if span.context]

    data: Any = reader.get_metrics_data()
    metrics = {m.name: m for r in data.resource_metrics for scope in r.scope_metrics for m in scope.metrics}
    points = metrics["http.server.request.duration"].data.data_points
    counts = {(p.attributes.get("http.route"), p.attributes["http.response.status_code"]): p.count for p in points}
    route = "/v1/models/{model}/rank"
    assert counts == {(route, 200): 1, (route, 404): 1, (None, 404): 1}


@pytest.mark.parametrize(
    ("variables", "wanted"),
    [
        ({}, False),
        ({"ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"TRACES_ENDPOINT": "http://127.0.0.1:1"}, True),
        ({"TRACES_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, False),
        ({"ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"}, True),
        ({"ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_the_variables_decide(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], wanted: bool) -> None:
    """OpenTelemetry's own, of which one has to name a collector."""
    for name, value in variables.items():
        monkeypatch.setenv(name if name.startswith("OTEL_") else f"OTEL_EXPORTER_OTLP_{name}", value)
    assert is_wanted() == wanted


def test_without_the_extra_there_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is served all the same."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.delitem(sys.modules, "opentelemetry.instrumentation.asgi", raising=False)
    monkeypatch.setitem(sys.modules, "opentelemetry.instrumentation", None)
    assert not is_wanted()
    assert "feast-embeddings[otel]" in JsonLines().format(caplog.records[0])


def test_nothing_is_imported_unasked(shop: Shop) -> None:
    """An app without a collector is one without OpenTelemetry; the SDK is imported by Redis's client."""
    program = (
        "import sys; from feast_embeddings.service import ServiceSettings, create_app;"
        f"create_app(ServiceSettings(repo={str(shop.repo.path)!r}));"
        "unasked = ('opentelemetry.exporter', 'opentelemetry.instrumentation');"
        "sys.exit(any(name.startswith(unasked) for name in sys.modules))"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


Received = dict[str, list[bytes]]


@pytest.fixture
def collector() -> Iterator[tuple[str, Received]]:
    """An address for OTLP over HTTP, and the bodies that came, by path."""
    received: Received = {}

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            received.setdefault(self.path, []).append(body)
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", received
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_collector_gets_all_before_the_end(
    collector: tuple[str, Received], shop: Shop, tmp_path: Path, workers: int
) -> None:
    """What `serve` has not sent yet when SIGTERM comes, it sends before it ends."""
    address, received = collector
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": address, "OTEL_RESOURCE_ATTRIBUTES": "team=shop"}
    environment |= {"OTEL_BSP_SCHEDULE_DELAY": "3600000", "OTEL_METRIC_EXPORT_INTERVAL": "3600000"}
    for name in ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR"):
        environment.pop(name, None)
    program = Path(sys.executable).parent / "feast-embeddings"
    command = [program, "serve", "--repo", shop.repo.path, "--port", port, "--workers", workers]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(list(map(str, command)), stderr=log, env=environment)
    try:
        url = f"http://127.0.0.1:{port}{RANK}"
        transport = httpx.HTTPTransport(retries=12)  # with growing waits
        with httpx.Client(transport=transport, timeout=120) as http:
            assert http.post(url, json={"user_id": "u-1"}).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
    sent = [ExportTraceServiceRequest.FromString(body) for body in received["/v1/traces"]]
    resources = [resource for s in sent for resource in s.resource_spans]
    spans = [span for resource in resources for scope in resource.scope_spans for span in scope.spans]
    assert [span.name for span in spans] == ["POST /v1/models/{model}/rank"]
    about = {each.key: each.value.string_value for each in resources[0].resource.attributes}
    assert (about["service.name"], about["team"]) == ("feast-embeddings", "shop")
    measured = [ExportMetricsServiceRequest.FromString(body) for body in received["/v1/metrics"]]
    names = {m.name for s in measured for r in s.resource_metrics for g in r.scope_metrics for m in g.metrics}
    assert "http.server.request.duration" in names
