"""A Qdrant cluster of three nodes on this machine, which tests kill and freeze."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.conftest import Program, free_port
from tests.support.shop import Shop, apply, write_version

from feast_embeddings.repo import init_repo

__all__ = ["Cluster", "new_cluster", "shop_on"]


class Cluster:
    """Three nodes; the others join the first."""

    def __init__(self, program: str, folder: Path) -> None:
        ports = [free_port() for _ in range(3)]
        self.nodes = []
        for number, port in enumerate(ports):
            join = ["--bootstrap", f"http://127.0.0.1:{ports[0]}"] if number else []
            settings = {"QDRANT__CLUSTER__ENABLED": "true", "QDRANT__CLUSTER__P2P__PORT": str(port)}
            uri = ["--uri", f"http://127.0.0.1:{port}"]
            self.nodes.append(Program(program, folder / f"node{number}", *uri, *join, **settings))

    def start(self) -> None:
        for node in self.nodes:
            node.start()
        for number in range(3):
            self.wait(lambda number=number: len(self.get("/cluster", number)["peers"]) == 3)  # type: ignore[misc]

    @property
    def addresses(self) -> list[dict[str, Any]]:
        """The setting of all nodes."""
        return [{"url": node.at.url, "grpc_port": node.at.grpc_port} for node in self.nodes]

    def get(self, path: str, node: int = 0) -> Any:
        """The result of a GET request."""
        return httpx.get(self.nodes[node].at.url + path, timeout=30).raise_for_status().json()["result"]

    def peer(self, node: int) -> int:
        """The id of a node."""
        return int(self.get("/cluster", node)["peer_id"])

    def remove(self, peer: int) -> None:
        """Make the others forget a node, with all that it holds."""
        httpx.delete(f"{self.nodes[0].at.url}/cluster/peer/{peer}?force=true", timeout=30).raise_for_status()

    def lose(self, node: int, how: signal.Signals) -> None:
        """Kill or freeze a node."""
        if how == signal.SIGSTOP:
            self.nodes[node].send(how)
        else:
            self.nodes[node].end(how)

    def kill(self, node: int) -> None:
        self.nodes[node].end(signal.SIGKILL)

    @staticmethod
    def wait(condition: Callable[[], bool], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, "the cluster did not get there in time"
            time.sleep(0.05)

    def close(self) -> None:
        """End all nodes; a frozen one too."""
        for node in self.nodes:
            node.end(signal.SIGKILL)


def new_cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster as long as the iterator is; skips where there is no program."""
    program = shutil.which("qdrant")
    if program is None:
        pytest.skip("no qdrant program on the PATH, of which a cluster could be made")
    cluster = Cluster(program, folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def shop_on(cluster: Cluster, folder: Path, **settings: Any) -> Shop:
    """A repo on the first node with one trained, but not yet published, version."""
    repo = init_repo(folder / "repo")
    config = yaml.safe_load((repo.path / "feature_store.yaml").read_text())
    first = cluster.nodes[0].at
    online = {"type": config["online_store"]["type"], **settings}
    if "addresses" not in settings:
        online |= {"url": first.url, "grpc_port": first.grpc_port}
    config["online_store"] = online
    (repo.path / "feature_store.yaml").write_text(yaml.safe_dump(config))
    return Shop(repo, write_version(repo.data), apply(repo))
