"""Qdrant clients that ask again when a failure is not the request's fault."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any, cast

import grpc
import httpx
import tenacity
from qdrant_client import AsyncQdrantClient, QdrantClient
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ResponseHandlingException, UnexpectedResponse

from feast_embeddings.engines.server.errors import STATUS_ERRORS

__all__ = ["patiently", "with_async_retries", "with_retries"]

# Too many requests, bad gateway, unavailable, gateway timeout.
_TRANSIENT_HTTP = {429, 502, 503, 504}
_TRANSIENT_GRPC = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
}
# A second one would meet the collection that a first one made although its answer was lost.
_NOT_REPEATABLE = {"create_collection", "close"}
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0

_patience: ContextVar[float] = ContextVar("patience", default=0.0)


@contextlib.contextmanager
def patiently(seconds: float) -> Iterator[None]:
    """Requests that begin in the block, and in copies of its context, are repeated for so long if need be.

    Where the settings allow no repetition, there is none.
    """
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


def _is_transient(error: BaseException) -> bool:
    """Whether the same request may succeed a moment later: the server was busy, restarting or not reachable.

    A request that timed out is not repeated: it had all the time that the settings give it.
    """
    if isinstance(error, ResourceExhaustedResponse):
        return True
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _TRANSIENT_HTTP
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.NetworkError | httpx.RemoteProtocolError)
    return isinstance(error, STATUS_ERRORS) and error.code() in _TRANSIENT_GRPC


class _Retrying:
    def __init__(self, client: QdrantClient | AsyncQdrantClient, retrying: tenacity.BaseRetrying) -> None:
        self._client = client
        self._retrying = retrying

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if not callable(method) or name in _NOT_REPEATABLE:
            return method
        return functools.partial(self._retrying.copy(), method)


def with_retries(client: QdrantClient, retries: int) -> QdrantClient:
    """The client, each request of which is repeated up to so many times after a transient failure.

    It waits 0.1 s before the first repetition, twice as long before each following one, at most 5 s, with jitter so
    that clients do not come back all at once. All requests of this package but the creation of a collection can be
    repeated: they say what shall be, not what to add. See `patiently` for more repetitions.
    """
    return cast(QdrantClient, _Retrying(client, tenacity.Retrying(**_rules(retries))))


def with_async_retries(client: AsyncQdrantClient, retries: int) -> AsyncQdrantClient:
    """The same for a client on an event loop, which is free meanwhile."""
    return cast(AsyncQdrantClient, _Retrying(client, tenacity.AsyncRetrying(**_rules(retries))))


def _rules(retries: int) -> dict[str, Any]:
    return {
        "retry": tenacity.retry_if_exception(_is_transient),
        "stop": functools.partial(_is_enough, retries),
        "wait": tenacity.wait_exponential_jitter(initial=_FIRST_WAIT, max=_LONGEST_WAIT, jitter=_FIRST_WAIT),
        "reraise": True,
    }


def _is_enough(retries: int, state: tenacity.RetryCallState) -> bool:
    out_of_patience = (state.seconds_since_start or 0.0) >= _patience.get()
    return state.attempt_number > retries and (out_of_patience or not retries)
