"""The clients: blocking and async, with the same methods."""

from __future__ import annotations

import functools
import re
from collections.abc import Awaitable, Callable, Mapping
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, TypeVar

import httpx
import tenacity

from feast_embeddings.client import calls
from feast_embeddings.client.calls import Call
from feast_embeddings.client.errors import EmbeddingServiceError
from feast_embeddings.errors import InputError

__all__ = ["AsyncEmbeddingClient", "EmbeddingClient"]

P = ParamSpec("P")
T = TypeVar("T")
Headers = Callable[[], Mapping[str, str]]

# Busy, restarting, or behind a proxy that found no server. Not 504: that request used all its time.
_TRANSIENT = {429, 502, 503}
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0
_VALUE = re.compile(r"[ -~]*")


class _TransientError(Exception):
    """Carries the error to raise after the last retry."""

    def __init__(self, error: EmbeddingServiceError) -> None:
        self.error = error


def _waits(call: Callable[P, Call[T]]) -> Callable[Concatenate[EmbeddingClient, P], T]:
    @functools.wraps(call)
    def method(self: EmbeddingClient, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._ask(call(*args, **kwargs))

    return method


def _awaits(call: Callable[P, Call[T]]) -> Callable[Concatenate[AsyncEmbeddingClient, P], Awaitable[T]]:
    @functools.wraps(call)
    def method(self: AsyncEmbeddingClient, /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[T]:
        return self._ask(call(*args, **kwargs))

    return method


class EmbeddingClient:
    """Client of an embedding service; keeps its connections, and is safe to use from many threads.

    Args:
        address: address of the service, e.g. ``http://localhost:8080``, with the path it is mounted under, if any.
        api_key: sent with each request; never part of a message or repr.
        timeout: timeout of one try, in seconds.
        retries: retries of a request after a transient failure: no connection, 429, 502, 503. A rollback is not
            retried, because it would go back once more.
        headers: called for each request, returns headers to send with it, such as ``X-Request-ID`` and ``traceparent``,
            which the service writes into its log.
        transport: httpx transport to use instead of the network.

    Every method raises `EmbeddingServiceError` if the service refuses or does not answer.

    Stability: stable, see docs/compatibility.md.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        headers: Headers | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=address, headers=_headers(api_key), timeout=timeout, transport=transport)
        self._headers = headers
        self._retrying = tenacity.Retrying(**_policy(retries))

    models = _waits(calls.models)
    versions = _waits(calls.versions)
    map = _waits(calls.map)
    create_user_embedding = _waits(calls.create_user_embedding)
    create_item_embedding = _waits(calls.create_item_embedding)
    similar_items = _waits(calls.similar_items)
    similar_items_batch = _waits(calls.similar_items_batch)
    similar_users = _waits(calls.similar_users)
    similar_users_batch = _waits(calls.similar_users_batch)
    rank = _waits(calls.rank)
    rank_batch = _waits(calls.rank_batch)
    search = _waits(calls.search)
    users_for_item = _waits(calls.users_for_item)
    users_for_item_batch = _waits(calls.users_for_item_batch)
    lookalike_users = _waits(calls.lookalike_users)
    retrieve = _waits(calls.retrieve)
    add_interactions = _waits(calls.add_interactions)
    add_items = _waits(calls.add_items)
    set_item_attributes = _waits(calls.set_item_attributes)
    set_user_attributes = _waits(calls.set_user_attributes)
    forget = _waits(calls.forget)
    hide = _waits(calls.hide)
    unhide = _waits(calls.unhide)
    publish = _waits(calls.publish)
    rollback = _waits(calls.rollback)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> EmbeddingClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _ask(self, call: Call[T]) -> T:
        def once() -> T:
            try:
                return _read(self._http.send(_request(self._http, call, self._headers)), call)
            except httpx.TransportError as error:
                raise _failed(error) from None

        try:
            return self._retrying.copy(**_tries(call))(once)
        except _TransientError as error:
            raise error.error from None


class AsyncEmbeddingClient:
    """`EmbeddingClient` with async methods.

    Stability: stable, see docs/compatibility.md.
    """

    def __init__(
        self,
        address: str,
        *,
        api_key: str | None = None,
        timeout: float = 30.0,
        retries: int = 3,
        headers: Headers | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(
            base_url=address, headers=_headers(api_key), timeout=timeout, transport=transport
        )
        self._headers = headers
        self._retrying = tenacity.AsyncRetrying(**_policy(retries))

    models = _awaits(calls.models)
    versions = _awaits(calls.versions)
    map = _awaits(calls.map)
    create_user_embedding = _awaits(calls.create_user_embedding)
    create_item_embedding = _awaits(calls.create_item_embedding)
    similar_items = _awaits(calls.similar_items)
    similar_items_batch = _awaits(calls.similar_items_batch)
    similar_users = _awaits(calls.similar_users)
    similar_users_batch = _awaits(calls.similar_users_batch)
    rank = _awaits(calls.rank)
    rank_batch = _awaits(calls.rank_batch)
    search = _awaits(calls.search)
    users_for_item = _awaits(calls.users_for_item)
    users_for_item_batch = _awaits(calls.users_for_item_batch)
    lookalike_users = _awaits(calls.lookalike_users)
    retrieve = _awaits(calls.retrieve)
    add_interactions = _awaits(calls.add_interactions)
    add_items = _awaits(calls.add_items)
    set_item_attributes = _awaits(calls.set_item_attributes)
    set_user_attributes = _awaits(calls.set_user_attributes)
    forget = _awaits(calls.forget)
    hide = _awaits(calls.hide)
    unhide = _awaits(calls.unhide)
    publish = _awaits(calls.publish)
    rollback = _awaits(calls.rollback)

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> AsyncEmbeddingClient:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await self.close()

    async def _ask(self, call: Call[T]) -> T:
        async def once() -> T:
            try:
                return _read(await self._http.send(_request(self._http, call, self._headers)), call)
            except httpx.TransportError as error:
                raise _failed(error) from None

        try:
            return await self._retrying.copy(**_tries(call))(once)
        except _TransientError as error:
            raise error.error from None


def _headers(api_key: str | None) -> dict[str, str]:
    return {} if api_key is None else {"Authorization": f"Bearer {api_key}"}


def _policy(retries: int) -> dict[str, Any]:
    return {
        "retry": tenacity.retry_if_exception_type(_TransientError),
        "stop": tenacity.stop_after_attempt(retries + 1),
        "wait": tenacity.wait_exponential_jitter(initial=_FIRST_WAIT, max=_LONGEST_WAIT, jitter=_FIRST_WAIT),
        "reraise": True,
    }


def _tries(call: Call[Any]) -> dict[str, Any]:
    return {} if call.repeatable else {"stop": tenacity.stop_after_attempt(1)}


def _request(http: httpx.Client | httpx.AsyncClient, call: Call[Any], headers: Headers | None) -> httpx.Request:
    more = {} if headers is None else headers()
    for name, value in more.items():
        if not _VALUE.fullmatch(value):
            raise InputError(f"headers: {name} must be printable ASCII, got {value!r:.80}")
    return http.build_request(call.method, call.path, json=call.body, headers=more)


def _read(response: httpx.Response, call: Call[T]) -> T:
    if response.is_success:
        return call.read(response.json())
    problem = response.json() if "json" in response.headers.get("content-type", "") else None
    request_id = response.headers.get("x-request-id")
    error = EmbeddingServiceError.of_problem(response.status_code, problem, request_id)
    raise _TransientError(error) if response.status_code in _TRANSIENT else error


def _failed(error: httpx.TransportError) -> Exception:
    """Return the error of a request without an answer; one that timed out is not retried."""
    ours = EmbeddingServiceError(f"the embedding service did not answer: {error or type(error).__name__}")
    again = isinstance(error, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ConnectTimeout)
    return _TransientError(ours) if again else ours
