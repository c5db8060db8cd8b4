"""`feast-embeddings serve`: uvicorn with one or several worker processes."""

from __future__ import annotations

import atexit
import contextlib
import gc
import ipaddress
import os
import signal
import sys
import tempfile
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from feast_embeddings.errors import EmbeddingsError, InputError
from feast_embeddings.repo import Repo
from feast_embeddings.service.api_keys import ENVIRONMENT, KeyRing
from feast_embeddings.service.permissions import has_feast_auth
from feast_embeddings.service.server.connection import HEAD_BYTES, BoundedConnection
from feast_embeddings.service.server.logs import log_config
from feast_embeddings.service.server.workers import STARTUP_FAILURE, Workers
from feast_embeddings.service.settings import ServiceSettings

__all__ = ["run_service", "worker_app"]

_SETTINGS = "FEAST_EMBEDDINGS_SERVICE"
# A client that keeps its connection open hears of a shutdown with its next answer, or after this many seconds.
_GRACE_SECONDS = 30
# How long a connection is kept for a next request.
_KEEP_ALIVE_SECONDS = 5
# A new worker that does not answer its parent for so long is replaced. It does not while it imports Feast, which takes
# a busy machine more than uvicorn's five seconds: then none would ever come up.
_START_SECONDS = 120
# The event loop waits for so long while a query computes in Python, again after each of its system calls.
_SWITCH_SECONDS = 0.001


def run_service(settings: ServiceSettings, *, host: str, port: int, workers: int, log_level: str) -> None:
    """Serve until SIGTERM or SIGINT; requests that have begun are answered first.

    Raises:
        InputError: the repo or a key file cannot be used, or nobody would be asked for a key on an address that
            other machines reach.
        EmbeddingsError: the service does not come up, as when another one has the port.
    """
    keys = KeyRing(settings.key_file)
    if not keys and not _is_loopback(host) and not has_feast_auth(Repo.open(settings.repo).feature_store()):
        raise InputError(
            f"on {host} other machines can ask, so API keys are needed: make one with feast-embeddings api-key, and "
            f"name its file with --key-file or put its line into {ENVIRONMENT}; without keys, serve on 127.0.0.1"
        )
    os.environ[_SETTINGS] = settings.model_dump_json()
    with contextlib.ExitStack() as stack:
        if workers > 1:  # a single one counts in its memory, and reads it from there
            folder = tempfile.TemporaryDirectory(prefix="feast-embeddings-metrics-")
            # Before the app is imported, as the counters are made then.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = stack.enter_context(folder)
        # Here, so that what is wrong with the repo is said once, and what the workers import is there already.
        can_fork = _import_app()(settings, keys).state.models.embedded
        _freeze()
        # Uvicorn ends a single worker by the signal that it got, which would leave the folder behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        config = uvicorn.Config(
            "feast_embeddings.service.server.process:worker_app",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            http=BoundedConnection,
            ws="none",
            h11_max_incomplete_event_size=HEAD_BYTES,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            log_config=log_config(log_level),
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            timeout_worker_healthcheck=_START_SECONDS,
        )
        try:
            if workers > 1:
                Workers(config, [config.bind_socket()], can_fork=can_fork).run()
            else:
                server = uvicorn.Server(config)
                with contextlib.suppress(KeyboardInterrupt):
                    server.run()
                if not server.started:
                    sys.exit(STARTUP_FAILURE)
        except SystemExit as end:
            if end.code:  # uvicorn has logged why
                raise EmbeddingsError(f"nothing could be served on {host}:{port}, see the error above") from None
            raise


def worker_app() -> FastAPI:
    """The app of one worker process, which is set up so that large answers do not hold up small ones."""
    app = _import_app()(ServiceSettings.model_validate_json(os.environ[_SETTINGS]))
    sys.setswitchinterval(_SWITCH_SECONDS)
    _freeze()
    return app


def _import_app() -> Callable[..., FastAPI]:
    from feast_embeddings.service.app import create_app

    return create_app


def _freeze() -> None:
    """Leave all that there is out of garbage collection.

    Looking for garbage stops every thread, takes long among all that Feast imports, which stays anyway, and writes to
    the memory that forked workers share.
    """
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # some libraries report what the last collection does not find


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
