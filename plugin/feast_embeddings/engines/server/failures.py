"""What goes wrong at a Qdrant server: what is asked again, and what is then an error of ours."""

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

__all__ = ["Caller", "engine_errors", "has_no_shards", "patiently"]

P = ParamSpec("P")
R = TypeVar("R")

# Errors of gRPC that have a status, from a blocking call and from one on an event loop.
_STATUS_ERRORS = (grpc.Call, grpc.aio.AioRpcError)

# How a server says, over gRPC and over HTTP, that it does not know a kind of match. Of those that are sent, only LIKE's
# and CONTAINS' are newer than the oldest server that is supported.
_UNKNOWN_MATCH = ("Malformed Match condition", "did not match any variant of untagged enum MatchInterface")
_NO_SHARDS = "0 of 0 read operations failed"
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
    """Requests that begin in the block, and in copies of its context, are repeated for so long if need be.

    Where the settings allow no repetition, there is none.
    """
    token = _patience.set(seconds)
    try:
        yield
    finally:
        _patience.reset(token)


class Caller:
    """Calls the methods of Qdrant's clients; what fails is asked again if it may succeed, then an error of ours.

    It waits 0.1 s before the first repetition, twice as long before each following one, at most 5 s, with jitter so
    that clients do not come back all at once. See `patiently` for more repetitions.

    Args:
        retries: how often a request is repeated after a transient failure.
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
        """The answer of a request that says what shall be, not what to add, so that it can be repeated.

        Args:
            what: is asked for, as the error tells it.
        """
        with engine_errors(what):
            return self._retrying(method, *args, **kwargs)

    async def ask_on_loop(self, what: str, method: Callable[P, Awaitable[R]], *args: P.args, **kwargs: P.kwargs) -> R:
        """The same for a client on an event loop, which is free meanwhile."""
        # A copy, as the state of a call is the thread's, which other calls on the loop share.
        retrying = self._retrying_on_loop.copy()
        with engine_errors(what):
            answer: R = await retrying(method, *args, **kwargs)
        return answer

    def _is_enough(self, state: tenacity.RetryCallState) -> bool:
        out_of_patience = (state.seconds_since_start or 0.0) >= _patience.get()
        return state.attempt_number > self._retries and (out_of_patience or not self._retries)


def has_no_shards(error: EngineError) -> bool:
    """Whether the server said that of a collection; it does of one that is just being deleted, and still listed."""
    said = error.__cause__
    if isinstance(said, UnexpectedResponse):
        return _NO_SHARDS.encode() in said.content
    return isinstance(said, _STATUS_ERRORS) and _NO_SHARDS in (said.details() or "")


@contextlib.contextmanager
def engine_errors(what: str) -> Iterator[None]:
    """Say what failed and why, without headers or settings that could hold the API key.

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
        raise EngineError(f"Qdrant could not {what}: {reason}") from error
    except grpc.RpcError as error:
        code = error.code().name if isinstance(error, _STATUS_ERRORS) else type(error).__name__
        detail = error.details() if isinstance(error, _STATUS_ERRORS) else ""
        if _UNKNOWN_MATCH[0] in (detail or ""):
            raise FilterError(_NO_PARTS) from error
        raise EngineError(f"Qdrant could not {what}: {code} {detail}".rstrip()) from error
    except (ApiException, ResourceExhaustedResponse, OSError, ValueError, RuntimeError, grpc.aio.UsageError) as error:
        raise EngineError(f"Qdrant could not {what}: {error}") from error


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
    return isinstance(error, _STATUS_ERRORS) and error.code() in _TRANSIENT_GRPC
