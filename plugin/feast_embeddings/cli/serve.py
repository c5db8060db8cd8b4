"""`serve` and `api-key`: serve the queries over HTTP, and make keys for its clients."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from feast_embeddings.cli.options import json_option, print_json, repo_option
from feast_embeddings.repo import Repo

_COUNT = click.IntRange(min=1)


@click.command()
@repo_option
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8080, show_default=True, type=click.IntRange(1, 65535), help="Port to listen on.")
@click.option("--workers", default=1, show_default=True, type=_COUNT, help="Number of worker processes.")
@click.option("--key-file", type=click.Path(path_type=Path), help="File of API keys, as api-key prints them.")
@click.option(
    "--time-limit",
    default=10.0,
    show_default=True,
    type=click.FloatRange(0, min_open=True),
    help="Time limit of a request, in seconds.",
)
@click.option("--max-ids", default=10_000, show_default=True, type=_COUNT, help="Most ids in one request.")
@click.option("--max-queries", default=256, show_default=True, type=_COUNT, help="Most queries in one batch request.")
@click.option("--max-limit", default=1_000, show_default=True, type=_COUNT, help="Most results of one query.")
@click.option(
    "--max-results", default=50_000, show_default=True, type=_COUNT, help="Most results of one batch request."
)
@click.option(
    "--max-requests",
    default=64,
    show_default=True,
    type=_COUNT,
    help="Most concurrent requests in a worker.",
)
@click.option("--allow-writes", is_flag=True, help="Allow anyone to publish if the service has no API keys.")
@click.option(
    "--allowed-host",
    multiple=True,
    help="Host name to answer to; may be repeated.",
)
@click.option("--cors-origin", multiple=True, help="Origin whose pages may call from a browser; may be repeated.")
@click.option("--access-log/--no-access-log", default=True, show_default=True, help="Log every request.")
@click.option(
    "--log-level",
    default="info",
    show_default=True,
    type=click.Choice(["debug", "info", "warning", "error"]),
    help="Lowest level to log.",
)
def serve(
    repo: str,
    host: str,
    port: int,
    workers: int,
    key_file: Path | None,
    time_limit: float,
    max_ids: int,
    max_queries: int,
    max_limit: int,
    max_results: int,
    max_requests: int,
    allow_writes: bool,
    allowed_host: tuple[str, ...],
    cors_origin: tuple[str, ...],
    access_log: bool,
    log_level: str,
) -> None:
    """Serve the queries over HTTP; /docs describes the API."""
    from feast_embeddings.service import ServiceSettings
    from feast_embeddings.service.server.process import run_service

    settings = ServiceSettings(
        repo=Repo.open(repo).path,
        key_file=None if key_file is None else key_file.resolve(),
        time_limit=time_limit,
        max_ids=max_ids,
        max_queries=max_queries,
        max_limit=max_limit,
        max_results=max_results,
        max_requests=max_requests,
        allow_writes=allow_writes,
        allowed_hosts=allowed_host or None,
        cors_origins=cors_origin,
        access_log=access_log,
    )
    run_service(settings, host=host, port=port, workers=workers, log_level=log_level)


@click.command()
@click.argument("name")
@click.option(
    "--scope",
    default="read",
    show_default=True,
    type=click.Choice(["read", "write"]),
    help="read allows queries; write also allows publishing.",
)
@json_option
def api_key(name: str, scope: Literal["read", "write"], as_json: bool) -> None:
    """Make an API key for NAME: print the key, and the line for the key file."""
    from feast_embeddings.service.api_keys import new_key

    key, kept = new_key(name, scope)
    if as_json:
        print_json({"key": key, "line": kept.line})
    else:
        click.echo(f"key, for the client, shown only now:       {key}")
        click.echo(f"line, for the key file of the service:     {kept.line}")
