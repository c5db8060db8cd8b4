"""Fixtures that every test may use: engines, servers, seeded randomness, the real data where it is present."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from qdrant_client import QdrantClient

from feast_embeddings.cli import run
from feast_embeddings.engines.embedded.engine import EmbeddedEngine
from feast_embeddings.engines.engine import Engine
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.engines.testing import new_aliases

ROOT = Path(__file__).parents[1]

pytest_plugins = ["tests.support.shop", "tests.support.postgres", "tests.support.redis", "tests.support.kafka"]


# Files that take longest, which begin first: a worker that begins one last works alone for minutes.
_LONGEST = ("test_docs.py", "test_docs_second_half.py", "test_packaging.py", "test_end_to_end.py", "test_processes.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the longest files to the front."""
    items.sort(key=lambda item: _LONGEST.index(item.path.name) if item.path.name in _LONGEST else len(_LONGEST))


@pytest.fixture
def rng() -> np.random.Generator:
    """Seeded randomness."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the real data sets, which are not part of the project."""
    folder = Path(os.environ.get("FEAST_EMBEDDINGS_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "ml-100k_interactions.parquet").is_file():
        pytest.skip(f"no real data in {folder}; set FEAST_EMBEDDINGS_TEST_DATA to a folder that has it")
    return folder


@dataclass(frozen=True)
class Answer:
    """What a command printed, and its exit code."""

    code: int
    out: str
    err: str


Command = Callable[..., Answer]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command line, in this process: a process for each call would import Feast each time, for seconds."""
    monkeypatch.delenv("FEAST_EMBEDDINGS_TRACEBACK", raising=False)

    def call(*arguments: object) -> Answer:
        monkeypatch.setattr(sys, "argv", ["feast-embeddings", *map(str, arguments)])
        capsys.readouterr()
        code = 0
        try:
            run()
        except SystemExit as error:
            code = int(error.code or 0)
        printed = capsys.readouterr()
        return Answer(code, printed.out, printed.err)

    return call


@dataclass(frozen=True)
class QdrantServer:
    """Where a server listens."""

    url: str
    grpc_port: int


@pytest.fixture(scope="session")
def qdrant_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    """A Qdrant server: QDRANT_URL, else a `qdrant` program on the PATH, else a container, else skip."""
    if url := os.environ.get("QDRANT_URL"):
        yield QdrantServer(url, int(os.environ.get("QDRANT_GRPC_PORT", "6334")))
    elif program := shutil.which("qdrant"):
        yield from run_program(program, tmp_path_factory.mktemp("qdrant"))
    else:
        yield from _run_container()


class Program:
    """A Qdrant server with a folder of its own, always at the same address; settings by their environment variables."""

    def __init__(self, program: str, folder: Path, *arguments: str, **settings: str) -> None:
        self._command, self._folder = [program, *arguments], folder
        folder.mkdir(exist_ok=True)
        http, grpc = free_port(), free_port()
        scheme = "https" if "QDRANT__SERVICE__ENABLE_TLS" in settings else "http"
        self.at = QdrantServer(f"{scheme}://127.0.0.1:{http}", grpc)
        self._environment = {
            **os.environ,
            "QDRANT__SERVICE__HOST": "127.0.0.1",
            "QDRANT__SERVICE__HTTP_PORT": str(http),
            "QDRANT__SERVICE__GRPC_PORT": str(grpc),
            "QDRANT__STORAGE__STORAGE_PATH": str(folder / "storage"),
            "QDRANT__STORAGE__SNAPSHOTS_PATH": str(folder / "snapshots"),
            "QDRANT__TELEMETRY_DISABLED": "true",
            **settings,
        }
        self._process: subprocess.Popen[bytes] | None = None

    def begin(self) -> None:
        """Start it, and do not wait until it answers."""
        with (self._folder / "log").open("a") as log:
            self._process = subprocess.Popen(
                self._command, cwd=self._folder, env=self._environment, stdout=log, stderr=log
            )

    def start(self) -> QdrantServer:
        """Where it answers."""
        self.begin()
        _wait_until_ready(self.at.url, self._process)
        return self.at

    def end(self, signal: signal.Signals = signal.SIGTERM) -> None:
        """By this signal; safe to repeat."""
        if self._process is not None:
            self._process.send_signal(signal)
            self._process.wait(timeout=30)

    def send(self, signal: signal.Signals) -> None:
        """Send it a signal that does not end it."""
        assert self._process is not None
        self._process.send_signal(signal)


def run_program(program: str, folder: Path, **settings: str) -> Iterator[QdrantServer]:
    """A server as long as the iterator is."""
    server = Program(program, folder, **settings)
    try:
        yield server.start()
    finally:
        server.end()


def _run_container() -> Iterator[QdrantServer]:
    with warnings.catch_warnings():
        # Where no engine answers, docker leaves its socket open.
        warnings.simplefilter("ignore", ResourceWarning)
        problem = _docker_problem()
        gc.collect()
    if problem:
        pytest.skip(f"no Qdrant server: QDRANT_URL is not set, no qdrant on the PATH, no Docker engine ({problem})")
    from docker.errors import DockerException
    from testcontainers.core.container import DockerContainer

    container = DockerContainer("qdrant/qdrant:v1.18.1").with_exposed_ports(6333, 6334)
    try:
        container.start()
    except DockerException as error:  # an image that cannot be had, mostly
        container.stop()
        pytest.skip(f"no Qdrant server: QDRANT_URL is not set, no qdrant on the PATH, and Docker says {error}")
    try:
        url = f"http://{container.get_container_host_ip()}:{container.get_exposed_port(6333)}"
        _wait_until_ready(url, None)
        yield QdrantServer(url, int(container.get_exposed_port(6334)))
    finally:
        container.stop()


def _docker_problem() -> str | None:
    try:
        import docker

        docker.from_env().ping()
    except Exception as error:
        return str(error)
    return None


def _wait_until_ready(url: str, server: subprocess.Popen[bytes] | None) -> None:
    deadline = time.monotonic() + 60
    unchecked = ssl._create_unverified_context()  # noqa: S323 (the tests of TLS check it; here is only waited)
    while time.monotonic() < deadline:
        if server is not None and server.poll() is not None:
            break
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=1, context=unchecked):  # noqa: S310 (an address made here)
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    pytest.fail(f"the Qdrant server at {url} did not become ready")


def free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(params=["embedded", "server-stand-in", "server"])
def engine(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Engine]:
    """Every engine in turn. The stand-in runs our server code against the client's in-process imitation of a server."""
    made: Engine
    if request.param == "embedded":
        made = EmbeddedEngine(tmp_path / "qdrant")
    elif request.param == "server-stand-in":
        # The imitation does not bear several requests at a time.
        made = ServerEngine(QdrantClient(":memory:"), streams=1)
    else:
        server: QdrantServer = request.getfixturevalue("qdrant_server")
        made = ServerEngine(
            QdrantClient(
                url=server.url, prefer_grpc=True, grpc_port=server.grpc_port, timeout=30, check_compatibility=False
            )
        )
    with closing(made):
        yield made


@pytest.fixture
def new_alias(engine: Engine) -> Iterator[Callable[[], str]]:
    """Makes alias names that nobody else uses, and removes what was stored under them: a server may be shared."""
    yield from new_aliases(engine)
