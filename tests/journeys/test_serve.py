"""The real `feast-embeddings serve` with two workers, while another process's publish goes live, and as it ends."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from tests.support.publishing import publish_any
from tests.support.shop import AS_OF, Shop, apply, write_version

from feast_embeddings.artifact import Artifact
from feast_embeddings.events import Event, event_log_of
from feast_embeddings.repo import init_repo
from feast_embeddings.times import to_microseconds

TIMEOUT = 120
SIMILAR = "/v1/models/shop/similar_items/batch"
ITEMS = [f"sku-{i}" for i in range(40)]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A published shop."""
    repo = init_repo(tmp_path_factory.mktemp("shop") / "repo")
    made = Shop(repo, write_version(repo.data), apply(repo))
    made.publish()
    return made


class Served:
    """A running service."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process, self.port, self.log = process, port, log
        self.address = f"http://127.0.0.1:{port}"


@contextlib.contextmanager
def serving(shop: Shop, folder: Path, *, workers: int) -> Iterator[Served]:
    """The command, once it is ready; its temporary files are in the folder."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = folder / "log"
    with log.open("w") as output:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(folder)}
        # Feast names a folder for metrics in this process, where it was imported, and counts of other tests are in it.
        for name in ("PROMETHEUS_MULTIPROC_DIR", "PROMETHEUS_MULTIPROCESS_DIR"):
            environment.pop(name, None)
        process = subprocess.Popen(command(shop, port, workers), stderr=output, env=environment)
    try:
        deadline = time.monotonic() + TIMEOUT
        while log.read_text().count("Application startup complete") < workers:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield Served(process, port, log)
    finally:
        process.terminate()
        try:
            process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def command(shop: Shop, port: int, workers: int) -> list[str]:
    """To serve a shop."""
    program = Path(sys.executable).parent / "feast-embeddings"
    return list(map(str, [program, "serve", "--repo", shop.repo.path, "--port", port, "--workers", workers]))


@pytest.fixture(scope="module")
def served(shop: Shop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Two workers; the last test that has them ends them."""
    with serving(shop, tmp_path_factory.mktemp("serve"), workers=2) as running:
        yield running


def nearest(artifact: Artifact) -> list[list[str]]:
    """To each item the three nearest, by brute force."""
    table = artifact.table("item").to_pandas()
    vectors = np.stack(list(table.embedding))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = unit @ unit.T
    np.fill_diagonal(scores, -2)
    return [[f"sku-{i}" for i in np.argsort(-row)[:3]] for row in scores]


def test_a_publish_drops_and_mixes_nothing(served: Served, shop: Shop) -> None:
    """Every answer is whole and of one version, none is older than the one before, and both workers see the new one."""
    first = shop.artifact.manifest.version
    second = write_version(shop.repo.data, seed=1, as_of=AS_OF + timedelta(days=1))
    expected = {first: nearest(shop.artifact), second.manifest.version: nearest(second)}
    stop, errors, seen = threading.Event(), list[BaseException](), [list[str](), list[str](), list[str]()]

    def ask(http: httpx.Client) -> str:
        answer = http.post(SIMILAR, json={"item_ids": ITEMS, "limit": 3})
        assert answer.status_code == 200, answer.text
        body: dict[str, Any] = answer.json()
        found = [[result["id"] for result in row["results"]] for row in body["answers"]]
        assert found == expected[body["version"]]
        return str(body["version"])

    def client(versions: list[str]) -> None:
        try:
            with httpx.Client(base_url=served.address, timeout=TIMEOUT) as http:
                while not stop.is_set():
                    versions.append(ask(http))
        except BaseException as error:
            errors.append(error)

    clients = [threading.Thread(target=client, args=(versions,)) for versions in seen]
    for thread in clients:
        thread.start()
    try:
        deadline = time.monotonic() + TIMEOUT
        while not all(seen) and not errors and time.monotonic() < deadline:
            time.sleep(0.01)
        newer, not_newer = (to_microseconds(AS_OF + timedelta(days=days)) for days in (2, 1))
        log = event_log_of(shop.repo.data, "shop")
        log.add([Event("u-1", "sku-1", moment, 1.0, None) for moment in (newer, not_newer)])
        publish_any(shop.feature_store, second)
        for _ in range(8):  # new connections, which either worker may take
            with httpx.Client(base_url=served.address, timeout=TIMEOUT) as http:
                assert ask(http) == second.manifest.version
                # The counts are of all workers, so both have the same.
                metrics = http.get("/metrics").text
                assert f'version="{second.manifest.version}"}} 1.0' in metrics
                assert 'feast_embeddings_event_backlog{model="shop"} 1.0' in metrics
    finally:
        stop.set()
        for thread in clients:
            thread.join(TIMEOUT)
    assert not errors, errors
    for versions in seen:
        assert versions == sorted(versions)
        assert versions[0] == first
    with httpx.Client(base_url=served.address) as http:
        lines = http.get("/metrics").text.splitlines()
    counted = sum(
        float(line.rsplit(" ", 1)[1])
        for line in lines
        if f"{SIMILAR[len('/v1/models/shop') :]}" in line and "_requests_total" in line
    )
    assert counted == sum(map(len, seen)) + 8


def workers_of(served: Served) -> list[int]:
    """The pids of all workers that have begun, in their order."""
    return list(map(int, re.findall(r"Started server process \[(\d+)\]", served.log.read_text())))


def test_a_killed_worker_is_replaced_while_another_one_hangs(served: Served) -> None:
    """Within 5 s of its SIGKILL, though a stopped worker answers nothing; twice, also while the first one starts."""
    stopped, killed = workers_of(served)
    os.kill(stopped, signal.SIGSTOP)
    try:
        kill_and_see_it_replaced(served, killed)
    finally:
        os.kill(stopped, signal.SIGCONT)
    kill_and_see_it_replaced(served, stopped)
    deadline = time.monotonic() + TIMEOUT
    while served.log.read_text().count("Application startup complete") < 4:
        assert time.monotonic() < deadline, served.log.read_text()
        time.sleep(0.1)
    new = set(workers_of(served)) - {stopped, killed}
    assert len(new) == 2
    assert httpx.post(f"{served.address}{SIMILAR}", json={"item_ids": ["sku-1"]}).status_code == 200


def kill_and_see_it_replaced(served: Served, pid: int) -> None:
    """SIGKILL, and the line that the supervisor writes as it starts another one."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while f"Child process [{pid}] died or hung, and was replaced" not in served.log.read_text():
        assert time.monotonic() < deadline, served.log.read_text()
        time.sleep(0.05)


def test_what_has_begun_is_answered_before_the_end(served: Served) -> None:
    """SIGTERM with a request half sent: the rest is read and answered, then the processes end with 0."""
    body = b'{"item_ids": ["sku-1"], "limit": 3}'
    head = f"POST {SIMILAR} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=TIMEOUT) as connection:
        connection.sendall(head.encode() + body[:10])
        # Another request has been answered by the time the worker has surely read the first half.
        assert httpx.get(f"{served.address}/healthz").status_code == 200
        time.sleep(0.5)
        served.process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + TIMEOUT
        while "Shutting down" not in served.log.read_text() and time.monotonic() < deadline:
            time.sleep(0.01)
        connection.sendall(body[10:])
        answer = connection.makefile("rb").read()
    assert answer.startswith(b"HTTP/1.1 200 OK"), answer
    assert b'"answers":[{"id":"sku-1","results":[{' in answer
    assert served.process.wait(TIMEOUT) == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{served.address}/healthz")


def test_one_worker_leaves_nothing_behind(shop: Shop, tmp_path: Path) -> None:
    """It counts in its memory, without a folder; SIGTERM ends it with 0, as it ends several."""
    with serving(shop, tmp_path, workers=1) as running:
        with httpx.Client(base_url=running.address, timeout=TIMEOUT) as http:
            http.post(SIMILAR, json={"item_ids": ["sku-1"]}).raise_for_status()
            counted = f'requests_total{{endpoint="{SIMILAR.replace("shop", "{model}")}",status="200"}} 1.0'
            assert counted in http.get("/metrics").text
        running.process.send_signal(signal.SIGTERM)
        assert running.process.wait(TIMEOUT) == 0
    assert not [*tmp_path.glob("feast-embeddings-*")]


def test_a_port_that_is_taken(shop: Shop, tmp_path: Path) -> None:
    """A failure as every other: exit code 1, and a line that says which address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = subprocess.run(command(shop, port, 1), capture_output=True, text=True, check=False, timeout=TIMEOUT)
    assert done.returncode == 1
    assert "address already in use" in done.stderr
    assert (
        done.stderr.splitlines()[-1] == f"error: the service could not start on 127.0.0.1:{port}, see the error above"
    )
