"""How much one request may ask for; looked at before its values are, so that too much costs little."""

from __future__ import annotations

import gc
from typing import Any

import orjson
from starlette.requests import Request

from feast_embeddings.service.problems import FieldError, ProblemError
from feast_embeddings.service.settings import ServiceSettings
from feast_embeddings.service.terms import Terms

__all__ = ["LimitedRequest"]

# Beside ids: no request has as many fields.
_OTHER_VALUES = 100


class LimitedRequest(Request):
    """A request whose body, and what the body asks for, are as large as allowed at most."""

    def __init__(self, request: Request, settings: ServiceSettings, terms: Terms) -> None:
        super().__init__(request.scope, request.receive)
        self._settings = settings
        self._terms = terms

    async def body(self) -> bytes:
        """The body; a 413 where it is too large, whatever its length was said to be."""
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
                raise ProblemError(413, f"the body is larger than {most:,} bytes; ask in several requests")
            self._body = b"".join(parts)
        return self._body

    async def json(self) -> Any:
        """What the body says. orjson bounds depth and digits, and takes a few bytes for a byte of JSON."""
        if not hasattr(self, "_json"):
            body = await self.body()
            gc.disable()  # else it looks through what is read several times while it is read
            try:
                self._json = orjson.loads(body)
            finally:
                gc.enable()
        return self._json

    async def check(self) -> None:
        """Read the body, and raise a problem where it asks for too much; what is not JSON is left to the route."""
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
            # For the handlers of errors, which have another object of the same request.
            self.state.sent = sent
            self._check(sent)

    def _check_length(self, body: bytes) -> None:
        """Raise a problem where there are more values than any request may have: other requests wait for parsing."""
        # An interaction is an object of two values, and other ids may come with them.
        most = 4 * self._settings.max_ids + 2 * self._settings.max_queries + _OTHER_VALUES
        if _has_more_values(body, most):
            text = f"more than {most:,} values are too many; ask in several requests"
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
        if limit > settings.max_limit:
            text = f"at most {settings.max_limit:,}, got {limit:,}"
            raise ProblemError(422, f"limit: {text}", [FieldError(field="limit", message=text)])
        _at_most(settings.max_results, "limit", n * limit, "results")


def _at_most(most: int, name: str, n: int, what: str) -> None:
    if n > most:
        text = f"{n:,} {what} are too many, at most {most:,} are allowed; ask in several requests"
        raise ProblemError(413, f"{name[:60]}: {text}", [FieldError(field=name, message=text)])


def _has_more_values(body: bytes, most: int) -> bool:
    """Whether JSON has more values than this, by its commas and opening brackets outside of strings; makes none."""
    # First with those in strings, as most bodies have few of either.
    if _marks(body) <= most:
        return False
    # The quotes that are left begin and end strings; a value has four of these at most, with its name.
    bare = body.replace(rb"\\", b"").replace(rb"\"", b"")
    if bare.count(b'"') > 4 * (most + 1):
        return True
    return _marks(b"".join(bare.split(b'"')[::2])) > most


def _marks(text: bytes) -> int:
    return len(text) - len(text.translate(None, delete=b",[{"))  # quicker than count where there are many
