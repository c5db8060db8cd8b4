"""A real Redis (or Valkey) of the tests' own, on loopback, with a password."""

from __future__ import annotations

import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["redis_server"]

_PASSWORD = "s3cret"  # noqa: S105 (of a server that lives for a test)


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Feast's connection string of an empty server; skips where there is none to run."""
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if program is None:
        pytest.skip("no redis-server and no valkey-server on the PATH")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"bind": "127.0.0.1", "port": port, "requirepass": _PASSWORD, "save": "", "appendonly": "no"}
    folder: Path = tmp_path_factory.mktemp("redis")
    process = subprocess.Popen(
        [program, *(word for name, value in settings.items() for word in (f"--{name}", str(value)))],
        stdout=subprocess.PIPE,
        cwd=folder,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if b"Ready to accept connections" in line:
                break
        else:
            pytest.fail("Redis ended before it was ready")
        yield f"127.0.0.1:{port},password={_PASSWORD}"
    finally:
        process.terminate()
        process.communicate()
