"""What all endpoints of a model share: checks of a request, one call into `EmbeddingStore`, the documented problems."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Any, TypeVar

import anyio.to_thread
from fastapi import Path
from feast.permissions.action import AuthzedAction

from feast_embeddings.embedding_store import EmbeddingStore
from feast_embeddings.service import requests
from feast_embeddings.service.models import Models
from feast_embeddings.service.permissions import assert_may
from feast_embeddings.service.problems import FieldError, Problem, ProblemError
from feast_embeddings.service.settings import ServiceSettings

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
        413: "Too many ids, too high a limit, or too large a body.",
        422: "A field cannot be used; `errors` names it.",
        500: "An internal error.",
        503: "The vector store does not answer.",
        504: "The answer took longer than the time limit.",
    }.items()
}


class Calls:
    """Checks requests, and runs the queries that they ask for."""

    def __init__(self, models: Models, settings: ServiceSettings) -> None:
        self.models = models
        self.settings = settings

    def check(self, request: requests.Request, *, queries: Collection[str] = ()) -> None:
        """Raise a problem where a request asks for too much.

        Args:
            queries: the fields of which each id, or list of interactions, is a query of its own.
        """
        for name, ids in request.id_lists():
            if name in queries:
                _at_most(self.settings.max_queries, name, ids)
                ids = [id for each in ids if isinstance(each, list) for id in each]
            _at_most(self.settings.max_ids, name, ids)
        limit = vars(request).get("limit", 1)
        if limit > self.settings.max_limit:
            text = f"at most {self.settings.max_limit:,}, got {limit:,}"
            raise ProblemError(422, f"limit: {text}", [FieldError(field="limit", message=text)])

    async def run(
        self, model: str, ask: Callable[[EmbeddingStore], Answer], action: AuthzedAction = AuthzedAction.READ_ONLINE
    ) -> Answer:
        """Ask a model in another thread, so that other requests go on; when time is over nobody waits for it."""
        return await anyio.to_thread.run_sync(self._ask, model, ask, action, abandon_on_cancel=True)

    async def one(self, model: str, light: bool, ask: Callable[[EmbeddingStore], Answer]) -> Answer:
        """Ask one query, here where it is light.

        Args:
            light: takes the embedded engine about a millisecond, so a thread would only add to it.
        """
        if light and self.models.embedded and self.models.known(model) is not None:
            return self._ask(model, ask, AuthzedAction.READ_ONLINE)
        return await self.run(model, ask)

    def _ask(self, model: str, ask: Callable[[EmbeddingStore], Answer], action: AuthzedAction) -> Answer:
        store = self.models.get(model)
        assert_may(store, action)
        return ask(store)


def _at_most(most: int, name: str, ids: list[Any]) -> None:
    if len(ids) > most:
        text = f"{len(ids):,} ids are too many, at most {most:,} are allowed; ask in several requests"
        raise ProblemError(413, f"{name}: {text}", [FieldError(field=name, message=text)])
