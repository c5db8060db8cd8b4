"""What all endpoints of a model share: one call into `EmbeddingStore`, and the documented problems."""

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
        404: "There is no such model.",
        409: "No version is live, or the live one cannot fold in visitors.",
        413: "Too many ids or results, or too large a body.",
        422: "A field cannot be used; `errors` names it.",
        500: "An internal error.",
        503: "The vector store does not answer, or too much is asked at once.",
        504: "The answer took longer than the time limit.",
    }.items()
}

# Threads that wait for a server. In this process a search needs a core of its own.
_WAITING_THREADS = 32


class Calls:
    """Runs the queries that requests ask for, so many at once at most."""

    def __init__(self, models: Models) -> None:
        self.models = models
        threads = max(2, os.cpu_count() or 1) if models.embedded else _WAITING_THREADS
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="feast-embeddings-query")

    async def run(self, model: str, ask: Callable[[EmbeddingStore], Answer]) -> Answer:
        """Ask a model in another thread, so that other requests go on.

        When time is over a query that has not begun never does, and one that has ends with its next part.
        """
        context = contextvars.copy_context()
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: context.run(self._read, model, ask))

    async def one(self, model: str, light: bool, ask: Callable[[EmbeddingStore], Answer]) -> Answer:
        """Ask one query, here where it is light.

        Args:
            light: takes the embedded engine about a millisecond, so a thread would only add to it.
        """
        if light and self.models.embedded and self.models.known(model) is not None:
            return self._read(model, ask)
        return await self.run(model, ask)

    async def write(self, model: str, do: Callable[[EmbeddingStore], Answer]) -> Answer:
        """Change a model, in a thread that no query waits for."""
        return await anyio.to_thread.run_sync(self._ask, model, do, AuthzedAction.WRITE_ONLINE, abandon_on_cancel=True)

    def _read(self, model: str, ask: Callable[[EmbeddingStore], Answer]) -> Answer:
        check_time()
        return self._ask(model, ask, AuthzedAction.READ_ONLINE)

    def _ask(self, model: str, ask: Callable[[EmbeddingStore], Answer], action: AuthzedAction) -> Answer:
        store = self.models.get(model)
        assert_may(store, action)
        return ask(store)
