"""Shared by all endpoints of a model: calls into `EmbeddingStore`, and the documented problems."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, TypeVar

import anyio.to_thread
from fastapi import Path
from feast.permissions.action import AuthzedAction

from feast_embeddings.query.deadline import check_time
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.service.models import Models
from feast_embeddings.service.permissions import assert_may
from feast_embeddings.service.problems import Problem

__all__ = ["PROBLEMS", "Calls", "Model"]

Answer = TypeVar("Answer")

Model = Annotated[str, Path(examples=["shop"], max_length=60, description="Name of the model.")]

PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/problem+json": {"schema": Problem.model_json_schema()}}}
    for status, text in {
        400: "The body is not JSON.",
        401: "No valid API key was sent.",
        403: "The key, or Feast's permissions, do not allow it.",
        404: "There is no such model, or no map of its live version.",
        409: "No version is live, or the live one cannot fold in visitors.",
        413: "Too many ids or results, or too large a body.",
        422: "A field cannot be used; `errors` names it.",
        500: "An internal error.",
        503: "The vector store does not answer, or there are too many requests at once.",
        504: "The request took longer than the time limit.",
    }.items()
}

# Threads that wait for a server. With the embedded engine, each search needs its own core.
_WAITING_THREADS = 32


class Calls:
    """Runs the queries of requests, with a limit on concurrent ones."""

    def __init__(self, models: Models) -> None:
        self.models = models
        threads = max(2, os.cpu_count() or 1) if models.embedded else _WAITING_THREADS
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="feast-embeddings-query")

    async def run(self, model: str, ask: Callable[[EmbeddingStore], Answer]) -> Answer:
        """Query a model in another thread, so that other requests go on.

        After the time limit a query that has not started never does, and a running one ends at its next part.
        """
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: context.run(self._read, model, ask))

    async def one(self, model: str, light: bool, ask: Callable[[EmbeddingStore], Answer]) -> Answer:
        """Run one query, on the event loop if it is light.

        Args:
            light: the embedded engine needs about a millisecond, so a thread would only add overhead.
        """
        if light and self.models.embedded and self.models.known(model) is not None:
            return self._read(model, ask)
        return await self.run(model, ask)

    async def write(self, model: str, do: Callable[[EmbeddingStore], Answer]) -> Answer:
        """Change a model, in a thread outside the queries' pool."""
        return await anyio.to_thread.run_sync(self._ask, model, do, AuthzedAction.WRITE_ONLINE, abandon_on_cancel=True)

    def _read(self, model: str, ask: Callable[[EmbeddingStore], Answer]) -> Answer:
        check_time()
        return self._ask(model, ask, AuthzedAction.READ_ONLINE)

    def _ask(self, model: str, ask: Callable[[EmbeddingStore], Answer], action: AuthzedAction) -> Answer:
        store = self.models.get(model)
        assert_may(store, action)
        return ask(store)
