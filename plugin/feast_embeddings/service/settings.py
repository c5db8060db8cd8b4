"""The settings of the service."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

__all__ = ["ServiceSettings"]


class ServiceSettings(BaseModel):
    """Settings of the service of one repo; they contain no secrets."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: Path
    """The Feast repo."""
    key_file: Path | None = None
    """File of hashed API keys, one per line; see `feast_embeddings.service.api_keys`. Read again when it changes."""
    max_ids: PositiveInt = 10_000
    """Most ids in one request."""
    max_queries: PositiveInt = 256
    """Most queries in one batch."""
    max_results: PositiveInt = 50_000
    """Most results of all queries of one batch."""
    max_limit: PositiveInt = 1_000
    """Most results of one query, and rows of one page."""
    max_body: PositiveInt = 2 * 1024 * 1024
    """Most bytes of a request's body."""
    time_limit: PositiveFloat = 10.0
    """Time limit of a request, in seconds."""
    max_requests: PositiveInt = 64
    """Most concurrent requests of one process; more are answered with 503."""
    allow_writes: bool = False
    """Whether anyone may publish if the service has no API keys."""
    allowed_hosts: tuple[str, ...] | None = None
    """Host names that the service answers to; by default any if callers authenticate, with a key or to Feast, else
    the names of this machine, because a web page can point its own name to this machine's address."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the service from a browser; none by default."""
    access_log: bool = True
    """Whether to log each request, as a line of JSON."""
