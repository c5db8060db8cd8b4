"""A real PostgreSQL server of the tests' own, on loopback, in a temporary folder."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

__all__ = ["postgres", "postgres_server"]

_PASSWORD = "s3cret"  # noqa: S105 (of a server that lives for a test)


def _program(name: str) -> str | None:
    debian = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(debian[-1]) if debian else shutil.which(name)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """URI of an empty database, with its password."""
    with postgres_server() as uri:
        yield uri


@contextmanager
def postgres_server() -> Iterator[str]:
    """Run a server during the block; skips where there is none to run."""
    initdb, server = _program("initdb"), _program("postgres")
    if initdb is None or server is None:
        pytest.skip("no PostgreSQL: no initdb and postgres in /usr/lib/postgresql or on the PATH")
    # It refuses to run as root.
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None and user not in {entry.pw_name for entry in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    folder = Path(tempfile.mkdtemp(prefix="pg"))  # short, as a socket's path is limited
    data, password = folder / "data", folder / "password"
    password.write_text(_PASSWORD)
    for path in (folder, password):
        path.chmod(0o700)
        if user:
            shutil.chown(path, user)
    subprocess.run(
        [initdb, "-D", data, "-U", "tests", "-A", "scram-sha-256", f"--pwfile={password}", "--no-sync"],
        check=True,
        capture_output=True,
        user=user,
        cwd=folder,
    )
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [server, "-D", data, "-p", str(port), "-h", "127.0.0.1", "-k", folder, "-F"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        user=user,
        cwd=folder,
    )
    try:
        assert process.stderr is not None
        for line in process.stderr:
            if b"ready to accept connections" in line:
                break
        else:
            pytest.fail("PostgreSQL ended before it was ready")
        yield f"postgresql://tests:{_PASSWORD}@127.0.0.1:{port}/postgres"
    finally:
        process.send_signal(signal.SIGINT)  # it would wait for open connections otherwise
        process.communicate()
        shutil.rmtree(folder)
