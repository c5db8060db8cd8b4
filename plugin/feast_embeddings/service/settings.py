"""Settings of the service."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, PositiveFloat, PositiveInt

__all__ = ["ServiceSettings"]


class ServiceSettings(BaseModel):
    """How the service of one repo behaves; nothing secret is in here."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repo: Path
    """The Feast repo."""
    key_file: Path | None = None
    """File of hashed API keys, one a line; see `feast_embeddings.service.api_keys`. Read again when it changes."""
    max_ids: PositiveInt = 10_000
    """Ids in one request."""
    max_queries: PositiveInt = 256
    """Queries in one batch."""
    max_results: PositiveInt = 50_000
    """Results of all queries of one batch."""
    max_limit: PositiveInt = 1_000
    """Results of one query, and rows of one page."""
    max_body: PositiveInt = 2 * 1024 * 1024
    """Bytes of a request's body."""
    time_limit: PositiveFloat = 10.0
    """Seconds for one request."""
    max_requests: PositiveInt = 64
    """Requests that one process works on at once; more are answered with 503."""
    allow_writes: bool = False
    """Whether versions can be made live without a key, where no keys are asked for."""
    allowed_hosts: tuple[str, ...] | None = None
    """Names under which the service answers, as in `Host`; by default any where callers say who they are, with a key or
    to Feast, and else those of this machine, as a web page can give its own name this machine's address."""
    cors_origins: tuple[str, ...] = ()
    """Origins whose pages may call the service from a browser; none by default."""
    access_log: bool = True
    """Whether each request is logged, as a line of JSON."""
