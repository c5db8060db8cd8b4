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
