"""Traces and metrics for OpenTelemetry (extra `otel`): a span a request, of the caller's trace if it sent one."""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NamedTuple

import anyio.to_thread
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span

__all__ = ["Providers", "Telemetry", "exporting", "is_wanted"]

_log = logging.getLogger("feast_embeddings.service")

_SIGNALS = ("TRACES", "METRICS")
_CLOSE_SECONDS = 5.0


class Providers(NamedTuple):
    """Where spans and measurements go."""

    tracer: TracerProvider
    meter: MeterProvider


def is_wanted() -> bool:
    """Return whether OpenTelemetry's variables name a collector; log a warning if the extra is not installed."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(map(_is_sent, _SIGNALS)):
        return False
    try:
        installed = importlib.util.find_spec("opentelemetry.instrumentation.asgi") is not None
    except ModuleNotFoundError:  # nothing of OpenTelemetry
        installed = False
    if not installed:
        _log.warning("telemetry", extra={"reason": "to send it, install feast-embeddings[otel]"})
    return installed


def _is_sent(signal: str) -> bool:
    has_collector = any(os.environ.get(f"OTEL_EXPORTER_OTLP_{name}ENDPOINT") for name in ("", f"{signal}_"))
    return has_collector and os.environ.get(f"OTEL_{signal}_EXPORTER", "otlp") != "none"


def exporting() -> Providers:
    """Make the providers that send to the collector, as OpenTelemetry's variables say; each starts a thread."""
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    ours = {
        "service.name": "feast-embeddings",
        "service.version": version("feast-embeddings"),
        # Each worker counts its own requests.
        "service.instance.id": str(uuid.uuid4()),
    }
    resource = Resource.create({**ours, **OTELResourceDetector().detect().attributes})
    tracer = TracerProvider(resource=resource, shutdown_on_exit=False)
    if _is_sent("TRACES"):
        tracer.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    readers = [PeriodicExportingMetricReader(OTLPMetricExporter())] if _is_sent("METRICS") else []
    return Providers(tracer, MeterProvider(readers, resource=resource, shutdown_on_exit=False))


class Telemetry:
    """ASGI middleware around all others.

    Args:
        routes: of the app, to name spans by.
        providers: called in the worker process, as threads do not survive a fork.
    """

    def __init__(
        self, app: ASGIApp, routes: Sequence[BaseRoute], providers: Callable[[], Providers] = exporting
    ) -> None:
        # The stable names of attributes. The older ones have the request's Host among the metrics' attributes.
        os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")
        from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware

        self._routes = routes
        self._providers = providers()
        self._app: ASGIApp = OpenTelemetryMiddleware(
            app,
            default_span_details=self._details,
            server_request_hook=_pass_on,
            tracer_provider=self._providers.tracer,
            meter_provider=self._providers.meter,
            exclude_spans=["receive", "send"],
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            # The query string is not used, but may contain a key.
            await self._app({**scope, "query_string": b""}, receive, send)
            return

        async def sending(message: Message) -> None:
            if message["type"].startswith("lifespan.shutdown."):
                await anyio.to_thread.run_sync(self._close)  # before the process ends
            await send(message)

        await self._app(scope, receive, sending)

    def _close(self) -> None:
        """Send everything left; not for long, if the collector does not answer."""
        threads = [threading.Thread(target=provider.shutdown, daemon=True) for provider in self._providers]
        for thread in threads:
            thread.start()
        ends = time.monotonic() + _CLOSE_SECONDS
        for thread in threads:
            thread.join(max(0, ends - time.monotonic()))

    def _details(self, scope: Scope) -> tuple[str, dict[str, Any]]:
        """Return the name of a request's span, and attributes: a path that is no route names nothing."""
        for route in self._routes:
            match, found = route.matches(scope)
            if match is Match.FULL:
                path = str(getattr(route, "path", ""))
                attributes = {"http.route": path}
                if "model" in found.get("path_params", {}):
                    attributes["feast_embeddings.model"] = found["path_params"]["model"][:60]
                return f"{scope['method']} {path}", attributes
        return "HTTP", {}


def _pass_on(span: Span, scope: Scope) -> None:
    """Make the span the parent that the rest of the service sees, whose trace is in its log lines."""
    from opentelemetry.trace import set_span_in_context
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier, set_span_in_context(span))
    others = [(name, value) for name, value in scope["headers"] if name not in (b"traceparent", b"tracestate")]
    scope["headers"] = others + [(name.encode(), value.encode()) for name, value in carrier.items()]
