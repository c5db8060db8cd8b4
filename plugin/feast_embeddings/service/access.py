"""Access control: each route checks its own requests, so that the endpoint checked is the endpoint called.

Every route of the service is a `GuardedRoute`. Its terms are declared on its endpoint; without any, a key is needed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi.routing import APIRoute, APIRouter
from starlette.requests import Request
from starlette.responses import Response

from feast_embeddings.errors import InputError
from feast_embeddings.query.deadline import within
from feast_embeddings.service.api_keys import ApiKey, KeyRing
from feast_embeddings.service.limits import LimitedRequest
from feast_embeddings.service.permissions import FeastUser
from feast_embeddings.service.problems import ProblemError
from feast_embeddings.service.settings import ServiceSettings
from feast_embeddings.service.terms import Terms, terms_of

__all__ = ["Guard", "GuardedRoute", "GuardedRouter"]

_log = logging.getLogger("feast_embeddings.service")

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Guard:
    """Lets requests through to their endpoints, if they meet the endpoints' terms.

    Args:
        feast_user: gives Feast the user of a request, in a repo with `auth`; None in others.
    """

    def __init__(self, settings: ServiceSettings, keys: KeyRing, feast_user: FeastUser | None) -> None:
        self._settings = settings
        self._keys = keys
        self._feast_user = feast_user
        self._working = 0

    async def answer(self, terms: Terms, request: Request, handler: Handler) -> Response:
        """Return the handler's response.

        Raises:
            ProblemError: the request is refused, or takes too long.
        """
        seconds = self._settings.time_limit
        try:
            async with asyncio.timeout(seconds) as timeout, contextlib.AsyncExitStack() as stack:
                if terms.access != "open":
                    self._check_key(terms, request)
                    stack.enter_context(self._place())
                    if self._feast_user is not None:
                        await stack.enter_async_context(self._feast_user(request))
                    request = limited = LimitedRequest(request, self._settings, terms)
                    if request.method in ("POST", "PATCH"):
                        await limited.check()  # also if the endpoint itself has no time limit
                if terms.timed:
                    stack.enter_context(within(seconds))
                else:
                    timeout.reschedule(None)
                return await handler(request)
        except TimeoutError:
            raise ProblemError(504, "the request took too long; ask for less, or try again") from None

    def _check_key(self, terms: Terms, request: Request) -> None:
        if not self._keys:
            if terms.access == "write" and self._feast_user is None and not self._settings.allow_writes:
                raise ProblemError(
                    403, "writes need an API key of scope write, or a service started with --allow-writes"
                )
            return
        key = self._key(request)
        if key is None:
            detail = "send a valid API key as 'Authorization: Bearer …' or 'X-API-Key: …'"
            raise ProblemError(401, detail, headers={"WWW-Authenticate": "Bearer"})
        request.state.key_name = key.name
        if terms.access == "write" and key.scope != "write":
            raise ProblemError(403, "this API key may only read")

    def _key(self, request: Request) -> ApiKey | None:
        sent = request.headers.get("x-api-key")
        if not sent:
            scheme, _, token = request.headers.get("authorization", "").partition(" ")
            sent = token.strip() if scheme.lower() == "bearer" else ""
        try:
            return self._keys.find(sent) if sent else None
        except InputError as error:
            _log.error("keys", extra={"reason": str(error), **request.state.log_fields})
            return None

    @contextlib.contextmanager
    def _place(self) -> Any:
        """Take one of the slots for concurrent requests."""
        if self._working >= self._settings.max_requests:
            raise ProblemError(503, "too many requests at once; try again", headers={"Retry-After": "1"})
        self._working += 1
        try:
            yield
        finally:
            self._working -= 1


class GuardedRoute(APIRoute):
    """A route that calls the guard of its app, with the terms of its endpoint."""

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        # Starlette's pattern ends with $, which also matches before a trailing line feed.
        self.path_regex = re.compile(self.path_regex.pattern.removesuffix("$") + r"\Z")

    def get_route_handler(self) -> Handler:
        """Return FastAPI's handler behind the guard; the body is not read before the guard."""
        handler, terms = super().get_route_handler(), terms_of(self.endpoint)

        async def guarded(request: Request) -> Response:
            guard: Guard = request.app.state.guard
            return await guard.answer(terms, request, handler)

        return guarded


class GuardedRouter(APIRouter):
    """A router of guarded routes."""

    def __init__(self, **more: Any) -> None:
        super().__init__(route_class=GuardedRoute, redirect_slashes=False, **more)
