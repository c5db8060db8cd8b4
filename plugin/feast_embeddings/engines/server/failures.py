"""Failures of a Qdrant server: which requests are retried, and which errors of ours they become."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

import grpc
import httpx
import tenacity
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, ResponseHandlingException, UnexpectedResponse

from feast_embeddings.errors import EngineError, FilterError

__all__ = [
    "Caller",
    "engine_errors",
    "has_no_shards",
    "http_status",
    "may_have_arrived",
    "may_work_elsewhere",
    "misses_shards",
    "patiently",
]

P = ParamSpec("P")
R = TypeVar("R")

# gRPC errors with a status, from blocking calls and from calls on an event loop.
_STATUS_ERRORS = (grpc.Call, grpc.aio.AioRpcError)

# A server's message, over gRPC and over HTTP, for an unknown kind of match. Of the kinds in use, only LIKE and
# CONTAINS are newer than the oldest supported server.
_UNKNOWN_MATCH = ("Malformed Match condition", "did not match any variant of untagged enum MatchInterface")
_SHARDS_FAILED = "read operations failed"
_NO_SHARDS = f"0 of 0 {_SHARDS_FAILED}"
# What a change of aliases or collections meets while the nodes elect a new leader, as after a dead one.
_NO_LEADER = "Waiting for consensus operation commit failed"
_NO_PARTS = (
    "this Qdrant server does not know LIKE and CONTAINS, as 1.18 and 1.19 do not; upgrade it, or filter with = and IN"
)
# Too many requests, bad gateway, unavailable, gateway timeout.
_TRANSIENT_HTTP = {429, 502, 503, 504}
_TRANSIENT_GRPC = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.ABORTED,
}
_FIRST_WAIT, _LONGEST_WAIT = 0.1, 5.0

_patience: ContextVar[float] = ContextVar("patience", default=0.0)


@contextlib.contextmanager
def patiently(seconds: float) -> Iterator[None]:
    """Retry requests that begin in the block, and in copies of its context, for up to this many seconds.

    If the settings allow no retries, there are none.
    """
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


class Caller:
    """Calls the methods of Qdrant's clients; retries transient failures, and raises errors of ours.

    It waits 0.1 s before the first retry, twice as long before each following one, at most 5 s, with jitter so that
    clients do not come back all at once. See `patiently` for more retries.

    Args:
        retries: retries of a request after a transient failure.
    """

    def __init__(self, retries: int) -> None:
        self._retries = retries
        rules: dict[str, Any] = {
            "retry": tenacity.retry_if_exception(_is_transient),
            "stop": self._is_enough,
            "wait": tenacity.wait_exponential_jitter(initial=_FIRST_WAIT, max=_LONGEST_WAIT, jitter=_FIRST_WAIT),
            "reraise": True,
        }
        self._retrying = tenacity.Retrying(**rules)
        self._retrying_on_loop = tenacity.AsyncRetrying(**rules)

    def ask(self, what: str, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Return the answer of an idempotent request.

        Args:
            what: the operation, as in "Qdrant could not …".
        """
        with engine_errors(what):
            return self._retrying(method, *args, **kwargs)

    async def ask_on_loop(self, what: str, method: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """Do the same for a client on an event loop, without blocking it."""
        # A copy, because the state of a call is per thread, which other calls on the loop share.
        retrying = self._retrying_on_loop.copy()
        with engine_errors(what):
            answer: R = await retrying(method, *args, **kwargs)
        return answer

    def _is_enough(self, state: tenacity.RetryCallState) -> bool:
        out_of_patience = (state.seconds_since_start or 0.0) >= _patience.get()
        return state.attempt_number > self._retries and (out_of_patience or not self._retries)


def has_no_shards(error: EngineError) -> bool:
    """Return whether a collection has a shard without any replica: it is being deleted, or its node was removed."""
    return _NO_SHARDS in _details(error)


def misses_shards(error: EngineError) -> bool:
    """Return whether the server answered that a shard of a collection is out of reach: on a dead or frozen node."""
    return _SHARDS_FAILED in _details(error)


def _details(error: EngineError) -> str:
    said = error.__cause__
    if isinstance(said, UnexpectedResponse):
        return said.content.decode(errors="replace")
    return (said.details() or "") if isinstance(said, _STATUS_ERRORS) else ""


def http_status(error: BaseException) -> int | None:
    """Return the HTTP status behind an error, if a server answered with one."""
    said = error.__cause__
    return said.status_code if isinstance(said, UnexpectedResponse) else None


@contextlib.contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Convert failures to errors that say what failed and why, without headers or settings that may hold the API key.

    Raises:
        FilterError: the server is too old for a condition of the filter.
        EngineError: anything else.
    """
    try:
        yield
    except EngineError:
        raise
    except UnexpectedResponse as error:
        if _UNKNOWN_MATCH[1].encode() in error.content:
            raise FilterError(_NO_PARTS) from error
        reason = f"HTTP {error.status_code} {error.reason_phrase}"
        raise EngineError(f"Qdrant could not {what}: {reason}{_notes(error)}") from error
    except grpc.RpcError as error:
        code = error.code().name if isinstance(error, _STATUS_ERRORS) else type(error).__name__
        detail = error.details() if isinstance(error, _STATUS_ERRORS) else ""
        if _UNKNOWN_MATCH[0] in (detail or ""):
            raise FilterError(_NO_PARTS) from error
        raise EngineError(f"Qdrant could not {what}: {code} {detail}".rstrip() + _notes(error)) from error
    except (ApiException, ResourceExhaustedResponse, OSError, ValueError, RuntimeError, grpc.aio.UsageError) as error:
        raise EngineError(f"Qdrant could not {what}: {error}{_notes(error)}") from error


def _notes(error: BaseException) -> str:
    return "".join(f"; {note}" for note in getattr(error, "__notes__", ()))


def may_work_elsewhere(error: BaseException) -> bool:
    """Return whether another node may answer the same request: this one is dead, frozen, busy or restarting."""
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.TransportError)
    timed_out = isinstance(error, _STATUS_ERRORS) and error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    return timed_out or _is_transient(error)


def may_have_arrived(error: BaseException) -> bool:
    """Return whether a failed request may have had its effect."""
    if isinstance(error, ResponseHandlingException):
        return not isinstance(error.source, httpx.ConnectError | httpx.ConnectTimeout)
    if not isinstance(error, _STATUS_ERRORS):
        return True
    refused = error.code() == grpc.StatusCode.UNAVAILABLE and "failed to connect" in (error.details() or "").lower()
    return not refused


def _is_transient(error: BaseException) -> bool:
    """Return whether the same request may succeed a moment later: the server was busy, restarting or not reachable.

    A request that timed out is not retried: it had all the time that the settings allow.
    """
    if isinstance(error, ResourceExhaustedResponse):
        return True
    if isinstance(error, UnexpectedResponse):
        return error.status_code in _TRANSIENT_HTTP or _NO_LEADER.encode() in error.content
    if isinstance(error, ResponseHandlingException):
        return isinstance(error.source, httpx.NetworkError | httpx.RemoteProtocolError)
    if not isinstance(error, _STATUS_ERRORS):
        return False
    return error.code() in _TRANSIENT_GRPC or _NO_LEADER in (error.details() or "")
