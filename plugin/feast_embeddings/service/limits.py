"""Limits on the size of a request, checked before its values, so that refusing a large one is cheap."""

from __future__ import annotations

import gc
from typing import Any

import orjson
from starlette.requests import Request

from feast_embeddings.service.problems import FieldError, ProblemError
from feast_embeddings.service.settings import ServiceSettings
from feast_embeddings.service.terms import Terms

__all__ = ["LimitedRequest"]

# In addition to ids: no request has as many fields.
_OTHER_VALUES = 100


class LimitedRequest(Request):
    """A request with limits on the size of its body, and on the number of ids, queries and results."""

    def __init__(self, request: Request, settings: ServiceSettings, terms: Terms) -> None:
        super().__init__(request.scope, request.receive)
        self._settings = settings
        self._terms = terms

    async def body(self) -> bytes:
        """Read the body; 413 if it is too large, whatever Content-Length claims."""
        if not hasattr(self, "_body"):
            most = self._settings.max_body
            length = self.headers.get("content-length", "0")
            parts, size = [], int(length) if length.isdecimal() and len(length) < 20 else 0
            if size <= most:
                size = 0
                async for part in self.stream():
                    parts.append(part)
                    size += len(part)
                    if size > most:
                        break
            if size > most:
                raise ProblemError(413, f"the body is larger than {most:,} bytes; split the request")
            self._body = b"".join(parts)
        return self._body

    async def json(self) -> Any:
        """Parse the body. orjson limits depth and digits, and needs only a few bytes of memory per byte of JSON."""
        if not hasattr(self, "_json"):
            body = await self.body()
            gc.disable()  # it would scan the parsed values several times during parsing
            try:
                self._json = orjson.loads(body)
            finally:
                gc.enable()
        return self._json

    async def check(self) -> None:
        """Read the body, and raise a problem if it exceeds a limit; the route handles a body that is not JSON."""
        await self.body()
        if "json" not in self.headers.get("content-type", ""):
            return
        self._check_length(await self.body())
        try:
            sent = await self.json()
        except orjson.JSONDecodeError as error:
            if "number" in error.msg:
                raise ProblemError(422, f"body: {error.msg}", [FieldError(field="body", message=error.msg)]) from None
            return
        if isinstance(sent, dict):
            # For the error handlers, which get a different object for the same request.
            self.state.sent = sent
            self._check(sent)

    def _check_length(self, body: bytes) -> None:
        """Raise a problem if there are more values than any request may have: parsing blocks other requests."""
        # An interaction is an object of two values, and two lists of other ids may come in addition.
        most = 5 * self._settings.max_ids + 2 * self._settings.max_queries + _OTHER_VALUES
        if _has_more_values(body, most):
            text = f"more than {most:,} values are too many; split the request"
            raise ProblemError(413, f"body: {text}", [FieldError(field="body", message=text)])

    def _check(self, sent: dict[str, Any]) -> None:
        settings, n = self._settings, 1
        for name, ids in sent.items():
            if not isinstance(ids, list):
                continue
            if name in self._terms.queries:
                _at_most(settings.max_queries, name, len(ids), "queries")
                _at_most(settings.max_ids, name, sum(len(each) for each in ids if isinstance(each, list)), "ids")
                n = max(n, len(ids))
            _at_most(settings.max_ids, name, len(ids), "ids")
        limit = sent.get("limit", 10)
        if not isinstance(limit, int):
            return
        # To skip results is as much work as to return them.
        offset = sent.get("offset", 0)
        if isinstance(offset, int) and offset > 0:
            if limit + offset > settings.max_limit:
                text = f"at most {settings.max_limit:,} with limit, got {limit + offset:,}"
                raise ProblemError(422, f"offset: {text}", [FieldError(field="offset", message=text)])
            limit += offset
        if limit > settings.max_limit:
            text = f"at most {settings.max_limit:,}, got {limit:,}"
            raise ProblemError(422, f"limit: {text}", [FieldError(field="limit", message=text)])
        _at_most(settings.max_results, "limit", n * limit, "results")


def _at_most(most: int, name: str, n: int, what: str) -> None:
    if n > most:
        text = f"{n:,} {what} are too many, at most {most:,} are allowed; split the request"
        raise ProblemError(413, f"{name[:60]}: {text}", [FieldError(field=name, message=text)])


def _has_more_values(body: bytes, most: int) -> bool:
    """Return whether JSON has more values than this, by counting commas and opening brackets outside of strings."""
    # First count those in strings too, because most bodies have few.
    if _marks(body) <= most:
        return False
    # The remaining quotes begin and end strings; a value has at most four of these, with its name.
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') > 4 * (most + 1):
        return True
    return _marks(b"".join(bare.split(b'"')[::2])) > most


def _marks(text: bytes) -> int:
    return len(text) - len(text.translate(None, delete=b",[{"))  # faster than count if there are many
