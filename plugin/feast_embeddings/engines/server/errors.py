"""What goes wrong at a Qdrant server, as an error of ours."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import grpc
from qdrant_client.common.client_exceptions import ResourceExhaustedResponse
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from feast_embeddings.errors import EngineError, FilterError

__all__ = ["STATUS_ERRORS", "engine_errors", "has_no_shards"]

# Errors of gRPC that have a status, from a blocking call and from one on an event loop.
STATUS_ERRORS = (grpc.Call, grpc.aio.AioRpcError)


# How a server says, over gRPC and over HTTP, that it does not know a kind of match. Of those that are sent, only LIKE's
# and CONTAINS' are newer than the oldest server that is supported.
_UNKNOWN_MATCH = ("Malformed Match condition", "did not match any variant of untagged enum MatchInterface")
_NO_SHARDS = "0 of 0 read operations failed"
_NO_PARTS = (
    "this Qdrant server does not know LIKE and CONTAINS, as 1.18 and 1.19 do not; upgrade it, or filter with = and IN"
)


def has_no_shards(error: EngineError) -> bool:
    """Whether the server said that of a collection; it does of one that is just being deleted, and still listed."""
    said = error.__cause__
    if isinstance(said, UnexpectedResponse):
        return _NO_SHARDS.encode() in said.content
    return isinstance(said, STATUS_ERRORS) and _NO_SHARDS in (said.details() or "")


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
        code = error.code().name if isinstance(error, STATUS_ERRORS) else type(error).__name__
        detail = error.details() if isinstance(error, STATUS_ERRORS) else ""
        if _UNKNOWN_MATCH[0] in (detail or ""):
            raise FilterError(_NO_PARTS) from error
        raise EngineError(f"Qdrant could not {what}: {code} {detail}".rstrip()) from error
    except (ApiException, ResourceExhaustedResponse, OSError, ValueError, RuntimeError, grpc.aio.UsageError) as error:
        raise EngineError(f"Qdrant could not {what}: {error}") from error
