"""The endpoints for operators and their tools."""

from __future__ import annotations

import anyio.to_thread
from fastapi import APIRouter, Response
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse

from feast_embeddings.errors import EmbeddingsError
from feast_embeddings.service.calls import PROBLEMS
from feast_embeddings.service.docs_page import docs_page
from feast_embeddings.service.metrics import exposition
from feast_embeddings.service.models import Models
from feast_embeddings.service.problems import ProblemError

__all__ = ["operation_routes"]


def operation_routes(models: Models) -> APIRouter:
    """What operators and their tools ask."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process answers at all."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: PROBLEMS[503]})
    async def readyz() -> dict[str, str]:
        """Whether a version of some model is live, so that there is something to answer from."""

        def is_ready() -> bool:
            try:
                return any(models.get(name).live_version() is not None for name in models.names())
            except EmbeddingsError:
                return False

        if not await anyio.to_thread.run_sync(is_ready):
            raise ProblemError(503, "no version of any model is live yet")
        return {"status": "ready"}

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus metrics, summed over the workers."""
        text = await anyio.to_thread.run_sync(exposition, models)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return HTMLResponse(docs_page(request.app.openapi(), request.scope.get("root_path", "")))

    return router
