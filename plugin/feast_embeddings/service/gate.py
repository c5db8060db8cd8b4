"""What every request passes: who asks, how much, how long it may take; and what is written down about it."""

from __future__ import annotations

import asyncio
import logging
import secrets
import time

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from feast_embeddings.errors import InputError
from feast_embeddings.service.keys import ApiKey, KeyRing
from feast_embeddings.service.metrics import count_request
from feast_embeddings.service.problems import problem_response
from feast_embeddings.service.settings import ServiceSettings

__all__ = ["Gate"]

_log = logging.getLogger("feast_embeddings.service")
_access = logging.getLogger("feast_embeddings.access")

# Answer without a key: what a load balancer asks, and what is no secret.
_OPEN = {"/healthz", "/readyz", "/docs", "/openapi.json", "/"}
_OPEN_FOLDER = "/page/"
# Ends with the names of what needs a key that may write.
_WRITES = ("/publish", "/rollback")


class Gate:
    """ASGI middleware; written without Starlette's helper classes, as each request goes through it."""

    def __init__(self, app: ASGIApp, settings: ServiceSettings, keys: KeyRing) -> None:
        self._app = app
        self._settings = settings
        self._keys = keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status, request_id = time.perf_counter(), 0, secrets.token_hex(16)

        async def sending(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        key: ApiKey | None = None
        try:
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            refusal, key = self._refusal(path, Headers(scope=scope))
            if refusal is not None:
                await refusal(scope, receive, sending)
                return
            # Loading a version takes as long as it takes.
            async with asyncio.timeout(None if path.endswith(_WRITES) else self._settings.time_limit):
                await self._app(scope, self._limited(receive), sending)
        except TimeoutError:
            _log.warning("time limit", extra={"request_id": request_id, "seconds": self._settings.time_limit})
            if not status:
                await problem_response(504, "the answer took too long; ask for less, or try again")(
                    scope, receive, sending
                )
        except Exception:
            if status:
                raise
            _log.exception("internal error", extra={"request_id": request_id})
            await problem_response(500, f"an internal error, logged as request {request_id}")(scope, receive, sending)
        finally:
            seconds = time.perf_counter() - started
            route = scope.get("route")
            endpoint = getattr(route, "path", "other")
            count_request(endpoint, status, seconds)
            if self._settings.access_log:
                _access.info(
                    "request",
                    extra={
                        "method": scope["method"],
                        # Without the query, in which nothing belongs, but in which somebody may have put a key.
                        "path": scope["path"],
                        "status": status,
                        "ms": round(seconds * 1000, 2),
                        "client": scope["client"][0] if scope.get("client") else None,
                        "key": None if key is None else key.name,
                        "request_id": request_id,
                    },
                )

    def _refusal(self, path: str, headers: Headers) -> tuple[ASGIApp | None, ApiKey | None]:
        """Why this request goes no further, and whose it is."""
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self._settings.max_body:
            return problem_response(413, self._too_large()), None
        if not self._keys or path in _OPEN or path.startswith(_OPEN_FOLDER):
            return None, None
        sent = headers.get("x-api-key") or headers.get("authorization", "").removeprefix("Bearer ").strip()
        try:
            key = self._keys.find(sent) if sent else None
        except InputError as error:
            _log.error("keys", extra={"reason": str(error)})
            key = None
        if key is None:
            detail = "send a valid API key as 'Authorization: Bearer …' or 'X-API-Key: …'"
            return problem_response(401, detail, headers={"WWW-Authenticate": "Bearer"}), None
        if path.endswith(_WRITES) and key.scope != "write":
            return problem_response(403, "this API key may only read"), key
        return None, key

    def _limited(self, receive: Receive) -> Receive:
        """The body, as long as it is not longer than allowed, whatever its length was said to be."""
        seen = 0

        async def receiving() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self._settings.max_body:
                    raise HTTPException(413, self._too_large())
            return message

        return receiving

    def _too_large(self) -> str:
        return f"the body is larger than {self._settings.max_body:,} bytes; ask in several requests"
