"""Endpoints for operators and their tools: health, readiness, metrics."""

from __future__ import annotations

import logging
from typing import Any

import anyio.to_thread
from fastapi import Response
from feast.errors import FeastPermissionError
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse

from feast_embeddings.errors import EmbeddingsError
from feast_embeddings.service.access import GuardedRouter
from feast_embeddings.service.calls import PROBLEMS
from feast_embeddings.service.models import Models
from feast_embeddings.service.observing.metrics import exposition
from feast_embeddings.service.permissions import has_feast_auth, may_read
from feast_embeddings.service.problems import ProblemError
from feast_embeddings.service.routes.docs_page import DOCS_POLICY, docs_page
from feast_embeddings.service.routes.pages import PLAIN_HEADERS
from feast_embeddings.service.terms import terms

__all__ = ["operation_routes"]

_log = logging.getLogger("feast_embeddings.service")


def operation_routes(models: Models) -> GuardedRouter:
    """Return the router of these endpoints."""
    router = GuardedRouter()

    @router.get("/healthz")
    @terms("open")
    async def healthz() -> dict[str, str]:
        """Report that the process answers."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: PROBLEMS[503]})
    @terms("open")
    async def readyz() -> dict[str, str]:
        """Report whether a version of any model is live, so that queries can be answered."""

        def trouble() -> str | None:
            names = models.names()
            found = "no version of any model is live yet" if models.listed else "the feature views cannot be read"
            for name in names:
                try:
                    if models.get(name).live_version() is not None:
                        return None
                except EmbeddingsError as error:
                    _log.warning("not ready", extra={"model": name, "reason": str(error)})
                    found = "the vector store cannot be reached"
            return found

        detail = await anyio.to_thread.run_sync(trouble, abandon_on_cancel=True)
        if detail is not None:
            raise ProblemError(503, detail)
        return {"status": "ready"}

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus metrics, summed over the workers."""

        def text() -> bytes:
            # Metrics name all models. Without a model, no permission can be checked.
            if has_feast_auth(models.feature_store):
                names = models.names()
                if not names or not all(may_read(models.get(name)) for name in names):
                    raise FeastPermissionError("metrics need permission to read all models")
            return exposition(models)

        return Response(
            await anyio.to_thread.run_sync(text, abandon_on_cancel=True),
            media_type="text/plain; version=0.0.4; charset=utf-8",
        )

    @router.get("/openapi.json", include_in_schema=False)
    @terms("open")
    async def openapi(request: Request) -> dict[str, Any]:
        return {**request.app.openapi(), "servers": [{"url": request.scope.get("root_path") or "/"}]}

    @router.get("/docs", include_in_schema=False)
    @terms("open")
    async def docs(request: Request) -> Response:
        page = docs_page(request.app.openapi(), request.scope.get("root_path", ""))
        return HTMLResponse(page, headers={"Content-Security-Policy": DOCS_POLICY, **PLAIN_HEADERS})

    return router
