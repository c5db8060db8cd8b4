"""A shorter way from a request to its endpoint, for requests with nothing wrong in them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, get_type_hints

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import Headers
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["QuickPaths"]

_SIMPLE = ({"model", "request"}, {"model", "request", "accept"})


class _Quick(NamedTuple):
    """An endpoint, and how what it takes is read."""

    route: APIRoute
    read_model: Callable[[str], Any]
    read_body: Callable[[bytes], Any]
    takes_accept: bool


class QuickPaths:
    """ASGI middleware that answers a POST of JSON to ``<prefix>/{model}/...``, where nothing is wrong with it.

    It is for endpoints that take (model, request) or (model, request, accept), and finds them in one look; pydantic
    reads the body from its bytes, in one step. FastAPI's way, through a dozen layers, costs as much as a search. It is
    still the way of all other endpoints, and of each request that cannot be read here: what is wrong with a request is
    found, and said, there.

    Args:
        router: has the endpoints, and the prefix.
        service: what the router is of; it says what becomes of an error that an endpoint raises.
    """

    def __init__(self, app: ASGIApp, router: APIRouter, service: FastAPI) -> None:
        self._app = app
        self._prefix = f"{router.prefix}/"
        self._service = service
        routes = [route for route in router.routes if isinstance(route, APIRoute) and route.methods == {"POST"}]
        start = len(f"{router.prefix}/{{model}}/")
        self._quick = {route.path[start:]: quick for route in routes if (quick := _quick(route)) is not None}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        path = scope["path"].removeprefix(scope.get("root_path", ""))
        headers = Headers(scope=scope)
        model, _, name = path.removeprefix(self._prefix).partition("/")
        quick = self._quick.get(name) if model and path.startswith(self._prefix) else None
        if quick is None or headers.get("content-type") != "application/json":
            await self._app(scope, receive, send)
            return

        received: list[Message] = []
        try:
            try:
                asked = [quick.read_model(model), quick.read_body(await _body(receive, received))]
            except (ValidationError, ClientDisconnect):
                await self._app(scope, _again(received, receive), send)
                return
            if quick.takes_accept:
                asked.append(headers.get("accept", ""))
            scope["route"] = quick.route
            response: Response = await quick.route.endpoint(*asked)
        except Exception as error:
            await ExceptionMiddleware(_raising(error), self._service.exception_handlers)(
                scope, _again(received, receive), send
            )
            return
        await response(scope, receive, send)


def _quick(route: APIRoute) -> _Quick | None:
    """How to call the endpoint, if it is a simple one."""
    hints = get_type_hints(route.endpoint, include_extras=True)
    hints.pop("return", None)
    if set(hints) not in _SIMPLE or route.dependant.dependencies:
        return None
    read_model, read_body = TypeAdapter(hints["model"]).validate_python, TypeAdapter(hints["request"]).validate_json
    return _Quick(route, read_model, read_body, "accept" in hints)


async def _body(receive: Receive, received: list[Message]) -> bytes:
    """The body, and the messages that it came in."""
    while True:
        message = await receive()
        received.append(message)
        if message["type"] != "http.request":
            raise ClientDisconnect
        if not message.get("more_body", False):
            return b"".join(message.get("body", b"") for message in received)


def _again(received: list[Message], receive: Receive) -> Receive:
    """The same messages for the next reader, and then those that follow."""
    messages = iter(received)

    async def receiving() -> Message:
        message = next(messages, None)
        return await receive() if message is None else message

    return receiving


def _raising(error: Exception) -> ASGIApp:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    return app
