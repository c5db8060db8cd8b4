"""Errors as problem details (RFC 9457): what went wrong, without internals."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from feast.errors import FeastPermissionError
from pydantic import BaseModel, Field
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.responses import Response

from feast_embeddings.errors import (
    CursorError,
    EmbeddingsError,
    FilterError,
    FoldInError,
    IdTypeError,
    InputError,
    MissingSideError,
    NotPublishedError,
    OptionError,
    OutOfTimeError,
    TextSearchError,
    VersionMismatchError,
)

__all__ = ["MEDIA_TYPE", "FieldError", "Problem", "ProblemError", "add_handlers", "problem_response"]

_log = logging.getLogger("feast_embeddings.service")

MEDIA_TYPE = "application/problem+json"
_MOST_ERRORS, _MOST_CHARACTERS = 5, 1_000
_TITLES = {
    400: "The request cannot be read",
    401: "An API key is needed",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    406: "Not acceptable",
    409: "Not possible at present",
    413: "Too much in one request",
    415: "Unsupported media type",
    422: "A value cannot be used",
    500: "Internal error",
    503: "Temporarily unavailable",
    504: "Time limit exceeded",
}


class FieldError(BaseModel):
    """The error of one field of the request."""

    field: str = Field(examples=["filter"])
    message: str = Field(examples=["there is no feature 'colour'; filters can use: category, price"])


class Problem(BaseModel):
    """Problem details, RFC 9457."""

    type: str = Field(examples=["about:blank"])
    title: str = Field(examples=["A value cannot be used"])
    status: int = Field(examples=[422])
    detail: str = Field(examples=["filter: there is no feature 'colour'"])
    errors: list[FieldError] = Field(default=[], description="For 413 and 422: the fields at fault.")


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(
        self, status: int, detail: str, errors: Sequence[FieldError] = (), headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.errors, self.headers = status, detail, list(errors), headers


def problem_response(
    status: int, detail: str, errors: Sequence[FieldError] = (), headers: dict[str, str] | None = None
) -> Response:
    """Return the response for a problem."""
    problem = Problem(
        type="about:blank",
        title=_TITLES.get(status, "Error"),
        status=status,
        detail=_short(detail),
        errors=[FieldError(field=_short(e.field), message=_short(e.message)) for e in errors[:_MOST_ERRORS]],
    )
    body = to_json(problem.model_dump(exclude_defaults=True))
    return Response(body, status, headers=headers, media_type=MEDIA_TYPE)


def _short(text: str) -> str:
    """Cut a message, which may contain long values of the request."""
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"


def add_handlers(app: FastAPI) -> None:
    """Answer every error of a route with a problem."""

    @app.exception_handler(ProblemError)
    async def _problem(_: Request, error: ProblemError) -> Response:
        return problem_response(error.status, error.detail, error.errors, error.headers)

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        return problem_response(error.status_code, str(error.detail), headers=dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def _validation(request: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        if any(e["type"] == "json_invalid" for e in found):
            return problem_response(400, "the body is not JSON")
        if found[0]["loc"] == ("body",) and "json" not in request.headers.get("content-type", ""):
            return problem_response(415, "send JSON, with Content-Type: application/json")
        # Drop the error that it is not null either: a field that may be null may be left out.
        told = [e for e in found if e["type"] != "none_required"]
        errors = [FieldError(field=_field(e["loc"]), message=e["msg"]) for e in told]
        return problem_response(422, "; ".join(f"{e.field}: {e.message}" for e in errors[:3]), errors)

    @app.exception_handler(EmbeddingsError)
    async def _ours(request: Request, error: EmbeddingsError) -> Response:
        if isinstance(error, MissingSideError):
            return problem_response(404, str(error))
        if isinstance(error, InputError):
            field = _blamed(error, getattr(request.state, "sent", {}))
            return problem_response(422, f"{field}: {error}", [FieldError(field=field, message=str(error))])
        if isinstance(error, FoldInError):
            _log.warning("fold-in", extra={"reason": str(error.__cause__), **request.state.log_fields})
            return problem_response(409, f"interactions: {error}")
        if isinstance(error, TextSearchError):
            _log.warning("search", extra={"reason": str(error.__cause__), **request.state.log_fields})
            return problem_response(409, f"text: {error}")
        if isinstance(error, NotPublishedError | VersionMismatchError):
            # Their messages name collections, and commands for the operator.
            if isinstance(error, NotPublishedError):
                return problem_response(409, "no version of this model is live")
            return problem_response(409, "users and items of this model are of different versions")
        if isinstance(error, OutOfTimeError):
            return problem_response(504, str(error))
        _log.error("failed", extra={"reason": str(error), **request.state.log_fields})
        return problem_response(503, "the embeddings cannot be read now; try again", headers={"Retry-After": "1"})

    @app.exception_handler(FeastPermissionError)
    async def _permission(_: Request, __: FeastPermissionError) -> Response:
        return problem_response(403, "the Feast permissions of this repo do not allow it")


def _field(location: Sequence[int | str]) -> str:
    # For a union of types, pydantic adds the type to the location.
    parts = [str(part) for part in location if not str(part).startswith(("constrained-", "list["))]
    return ".".join(parts[1:]) or parts[0]


def _blamed(error: InputError, sent: dict[str, Any]) -> str:
    """Return the field of the request that caused an error of the library."""
    if isinstance(error, FilterError):
        return "filter"
    if isinstance(error, CursorError):
        return "cursor"
    if isinstance(error, OptionError):
        return error.option
    if isinstance(error, IdTypeError):
        names = (f"{error.entity}_id", f"{error.entity}_ids", "exclude_ids", "interactions")
        return next((name for name in names if error.id in _ids(sent.get(name))), f"{error.entity}_ids")
    return next((name for name in ("version", "interactions") if name in sent), "body")


def _ids(value: Any) -> list[Any]:
    """Return the ids in a field: one, a list of them, interactions, or lists of those."""
    if isinstance(value, list):
        return [id for each in value for id in _ids(each)]
    return [value["item_id"] if isinstance(value, dict) else value]
