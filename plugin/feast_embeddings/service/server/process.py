"""`feast-embeddings serve`: run uvicorn with one or several worker processes."""

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
from feast_embeddings.service.server.connection import BoundedConnection
from feast_embeddings.service.server.logs import log_config
from feast_embeddings.service.server.workers import STARTUP_FAILURE, Workers
from feast_embeddings.service.settings import ServiceSettings

__all__ = ["run_service", "worker_app"]

_SETTINGS = "FEAST_EMBEDDINGS_SERVICE"
# A kept-alive connection is closed on shutdown after its next answer, or after this many seconds.
_GRACE_SECONDS = 30
# Seconds to keep an idle connection for its next request.
_KEEP_ALIVE_SECONDS = 5
# A new worker that does not answer its parent for this long is replaced. While it imports Feast it does not answer;
# on a busy machine that takes more than uvicorn's five seconds, and no worker would ever come up.
_START_SECONDS = 120
# The event loop may wait this long, after each of its system calls, while a query computes in Python.
_SWITCH_SECONDS = 0.001


def run_service(settings: ServiceSettings, *, host: str, port: int, workers: int, log_level: str) -> None:
    """Serve until SIGTERM or SIGINT; running requests are finished first.

    Raises:
        InputError: the repo or a key file cannot be used, or the service would need no key on an address that
            other machines reach.
        EmbeddingsError: the service does not start, e.g. because the port is in use.
    """
    keys = KeyRing(settings.key_file)
    if not keys and not _is_loopback(host) and not has_feast_auth(Repo.open(settings.repo).feature_store()):
        raise InputError(
            f"other machines can reach {host}, so API keys are needed: make one with feast-embeddings api-key, and "
            f"name its file with --key-file or put its line into {ENVIRONMENT}; without keys, serve on 127.0.0.1"
        )
    os.environ[_SETTINGS] = settings.model_dump_json()
    with contextlib.ExitStack() as stack:
        if workers > 1:  # a single worker keeps its counts in memory
            folder = tempfile.TemporaryDirectory(prefix="feast-embeddings-metrics-")
            # Before the app is imported, because that creates the counters.
            os.environ["PROMETHEUS_MULTIPROC_DIR"] = stack.enter_context(folder)
        # In the parent, so that errors of the repo are reported once, and forked workers have the imports already.
        can_fork = _import_app()(settings, keys).state.models.embedded
        # Uvicorn ends a single worker with the signal that it got, which would leave the folder behind.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        config = uvicorn.Config(
            "feast_embeddings.service.server.process:worker_app",
            factory=True,
            host=host,
            port=port,
            workers=workers,
            http=BoundedConnection,
            ws="none",
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            log_config=log_config(log_level),
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=_GRACE_SECONDS,
            timeout_worker_healthcheck=_START_SECONDS,
        )
        try:
            if workers > 1:
                _freeze()  # a single worker does it itself, in this process
                Workers(config, [config.bind_socket()], can_fork=can_fork).run()
            else:
                server = uvicorn.Server(config)
                with contextlib.suppress(KeyboardInterrupt):
                    server.run()
                if not server.started:
                    sys.exit(STARTUP_FAILURE)
        except SystemExit as end:
            if end.code:  # uvicorn logged the reason
                raise EmbeddingsError(f"the service could not start on {host}:{port}, see the error above") from None
            raise


def worker_app() -> FastAPI:
    """Create the app of one worker process, tuned so that large answers do not delay small ones."""
    app = _import_app()(ServiceSettings.model_validate_json(os.environ[_SETTINGS]))
    sys.setswitchinterval(_SWITCH_SECONDS)
    _freeze()
    return app


def _import_app() -> Callable[..., FastAPI]:
    from feast_embeddings.service.app import create_app

    return create_app


def _freeze() -> None:
    """Exempt all present objects from garbage collection.

    A collection stops every thread, takes long with everything that Feast imports, which stays anyway, and writes to
    memory that forked workers share.
    """
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # some libraries report objects that the last collection does not find


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
