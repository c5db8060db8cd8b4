"""Middleware before the routes: request ids, the access log, and checks of host and origin."""

from __future__ import annotations

import logging
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feast_embeddings.service.observing.correlation import log_fields
from feast_embeddings.service.observing.metrics import count_request
from feast_embeddings.service.problems import problem_response
from feast_embeddings.service.settings import ServiceSettings

__all__ = ["Gate", "KnownHost", "OwnOrigin"]

_log = logging.getLogger("feast_embeddings.service")
_access = logging.getLogger("feast_embeddings.access")


class Gate:
    """ASGI middleware, without Starlette's helper classes for speed, because every request passes it."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings) -> None:
        self._app = app
        self._settings = settings

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, counted, fields = time.perf_counter(), 0, False, log_fields(Headers(scope=scope))
        request_id = str(fields["request_id"])
        # The route stores the name of the key in it; error handlers log with the fields.
        scope["state"] = state = dict(scope.get("state") or {}) | {"log_fields": fields}

        def count() -> None:
            nonlocal counted
            if not counted:
                counted = True
                count_request(getattr(scope.get("route"), "path", "other"), status, time.perf_counter() - started)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            elif not message.get("more_body"):
                count()  # before the client that has the answer can ask for the counts
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            if status:
                raise
            _log.exception("internal error", extra=fields)
            await problem_response(500, f"internal error, logged as request {request_id}")(scope, receive, sending)
        finally:
            count()  # an answer that was not finished
            seconds = time.perf_counter() - started
            if self._settings.access_log:
                _access.info(
                    "request",
                    extra={
                        "method": scope["method"],
                        # Without the query string: it is not used, but may contain a key.
                        "path": scope["path"][:200],
                        "status": status,
                        "ms": round(seconds * 1000, 2),
                        "client": scope["client"][0] if scope.get("client") else None,
                        "key": state.get("key_name"),
                        **fields,
                    },
                )


class KnownHost:
    """ASGI middleware that refuses requests for other host names than these, as Starlette matches them."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self._app = app
        self._refuse = TrustedHostMiddleware(_nothing, hosts, www_redirect=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal: list[Message] = []  # in plain text

        async def keep(message: Message) -> None:
            refusal.append(message)

        if scope["type"] == "http":
            await self._refuse(scope, receive, keep)
        if refusal:
            detail = "the service does not answer to this Host; allow it with serve --allowed-host"
            await problem_response(400, detail)(scope, receive, send)
            return
        await self._app(scope, receive, send)


async def _nothing(_: Scope, __: Receive, ___: Send) -> None:
    """An app that does not answer."""


class OwnOrigin:
    """ASGI middleware that refuses requests of pages of other origins, which browsers mark as such."""

    def __init__(self, app: ASGIApp, others: tuple[str, ...]) -> None:
        self._app = app
        self._others = others

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            if origin is not None and origin not in self._others and _host(origin) != headers.get("host"):
                await problem_response(403, "pages of other origins may not call this service")(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _host(origin: str) -> str | None:
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
