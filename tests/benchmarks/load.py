"""The service under load: requests a second, latency, recall, publishes meanwhile, memory; beside `feast serve`.

    python -m tests.benchmarks.load --items 100000 --seconds 20

Client and server share the machine. The client is asyncio on plain sockets, as a full HTTP client would cost more than
the service.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa

from feast_embeddings import embedding_views
from feast_embeddings.artifact import Artifact, EmbeddingTable, TrainerInfo, write_artifact
from feast_embeddings.embedding_store import EmbeddingStore
from feast_embeddings.gates import Gates
from feast_embeddings.publish import publish_artifact
from feast_embeddings.repo import Repo, init_repo

BIN = Path(sys.executable).parent
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLUSTERS = 500
_ANY = Gates(allow_worse=True, allow_shrink=True, allow_new_space=True)


def make_version(repo: Repo, n_items: int, dim: int, seed: int) -> Artifact:
    """Items in overlapping clusters, as trained ones are; a tenth as many users."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((CLUSTERS, dim), dtype=np.float32)

    def table(n: int) -> EmbeddingTable:
        vectors = centres[rng.integers(CLUSTERS, size=n)] + rng.standard_normal((n, dim), dtype=np.float32)
        return EmbeddingTable(ids=pa.array(range(n)), embedding=vectors, n_interactions=np.ones(n, np.int64))

    return write_artifact(
        repo.data,
        "shop",
        users=table(n_items // 10),
        items=table(n_items),
        as_of=NOW + timedelta(days=seed),
        trainer=TrainerInfo(name="random", config={}),
        seed=seed,
        metrics={},
        fingerprint="0" * 64,
        n_interactions=n_items,
    )


@contextmanager
def serving(command: Sequence[object], port: int, ready: str) -> Iterator[psutil.Process]:
    """A server, once it answers."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([*map(str, command)], stdout=log, stderr=log)
        try:
            for _ in range(1200):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=5):
                        break
                except OSError:
                    time.sleep(0.1)
            else:
                raise SystemExit(f"{command} did not come up")
            time.sleep(3)  # the other worker
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def memory(server: psutil.Process) -> float:
    """MiB that the server's processes have to themselves."""
    return float(sum(p.memory_full_info().uss for p in [server, *server.children(recursive=True)])) / 2**20


@dataclass
class Load:
    """What came of the requests."""

    seconds: list[float] = field(default_factory=list)
    bodies: list[tuple[int, bytes]] = field(default_factory=list)
    failed: int = 0
    elapsed: float = 0.0

    def __str__(self) -> str:
        p50, p99 = np.percentile(self.seconds, [50, 99]) * 1000
        rate = len(self.seconds) / self.elapsed
        return (
            f"{len(self.seconds):,} requests, {rate:,.0f}/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms, {self.failed} failed"
        )


def load(port: int, requests: Sequence[bytes], connections: int, stop: Callable[[], bool]) -> Load:
    """Send these requests in turn over so many connections, each as soon as the one before is answered."""
    result, position = Load(), 0

    async def ask() -> None:
        nonlocal position
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not stop():
            number = position % len(requests)
            position += 1
            started = time.perf_counter()
            try:
                writer.write(requests[number])
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
                body = await reader.readexactly(int(length))
            except (OSError, EOFError):
                result.failed += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                continue
            result.seconds.append(time.perf_counter() - started)
            if not head.startswith(b"HTTP/1.1 200"):
                result.failed += 1
            elif number % 10 == 0:
                result.bodies.append((number, body))
        writer.close()

    async def run() -> None:
        await asyncio.gather(*(ask() for _ in range(connections)))

    started = time.perf_counter()
    asyncio.run(run())
    result.elapsed = time.perf_counter() - started
    return result


def for_seconds(seconds: float) -> Callable[[], bool]:
    deadline = time.perf_counter() + seconds
    return lambda: time.perf_counter() > deadline


def post(path: str, body: Any) -> bytes:
    """The bytes of a request."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def true_tenths(artifact: Artifact) -> tuple[npt.NDArray[np.float32], str]:
    """Unit vectors of the items, and the version."""
    table = artifact.table("item")
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), artifact.manifest.version


def recall(asked: Sequence[int], answers: Load, unit: dict[str, npt.NDArray[np.float32]]) -> tuple[float, int]:
    """Recall@10 over a sample, and how many answers were not of the one version that they name."""
    found, mixed, sample = 0, 0, answers.bodies[:: max(1, len(answers.bodies) // 400)]
    for number, body in sample:
        answer = json.loads(body)
        vectors = unit[answer["version"]]
        scores = vectors @ vectors[asked[number]]
        given = np.array([row["score"] for row in answer["results"]])
        ids = [row["id"] for row in answer["results"]]
        mixed += not np.allclose(given, scores[ids], atol=1e-4)
        scores[asked[number]] = -2
        found += int((given >= np.partition(scores, -10)[-10] - 1e-6).sum())
    return found / (10 * len(sample)), mixed


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--publishes", type=int, default=10)
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        measure(folder, options)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, options: argparse.Namespace) -> None:
    repo = init_repo(folder / "repo")
    versions = [make_version(repo, options.items, options.dim, seed) for seed in (0, 1)]
    feature_store = repo.feature_store()
    feature_store.apply(list(embedding_views("shop", repo.data).by_name().values()))
    for version in versions:
        publish_artifact(feature_store, version, gates=_ANY)
    unit = {version: vectors for vectors, version in map(true_tenths, versions)}
    rng = np.random.default_rng(0)
    asked = rng.choice(options.items, 5000).tolist()
    similar = [post("/v1/models/shop/similar_items", {"item_id": id}) for id in asked]
    hundreds = [rng.choice(options.items, 100, replace=False).tolist() for _ in range(50)]
    embeddings = [
        post("/v1/models/shop/create_item_embedding", {"item_ids": ids, "encoding": "base64"}) for ids in hundreds
    ]
    store = EmbeddingStore(feature_store, "shop")
    print(f"load average {os.getloadavg()}", flush=True)

    port = free_port()
    serve = [BIN / "feast-embeddings", "serve", "--repo", repo.path, "--port", port, "--workers", options.workers]
    with serving([*serve, "--no-access-log"], port, "/readyz") as server:
        load(port, similar, options.connections, for_seconds(2))
        before = memory(server)
        result = load(port, similar, options.connections, for_seconds(options.seconds))
        found, mixed = recall(asked, result, unit)
        print(
            f"similar_items: {result}; recall@10 {found:.4f}, {mixed} mixed   (bar: 1,000/s, p99 25 ms, recall 0.99)",
            flush=True,
        )

        done = threading.Event()

        def publish() -> None:
            for number in range(options.publishes):
                publish_artifact(feature_store, versions[number % 2], gates=_ANY)
            done.set()

        thread = threading.Thread(target=publish)
        thread.start()
        result = load(port, similar, options.connections, done.is_set)
        thread.join()
        _, mixed = recall(asked, result, unit)
        print(f"the same through {options.publishes} publishes: {result}; {mixed} mixed   (bar: 0 and 0)", flush=True)

        python = []
        for ids in hundreds * 4:
            started = time.perf_counter()
            store.item_embeddings(ids)
            python.append(time.perf_counter() - started)
        call = 1000 * float(np.median(python))
        one = load(port, embeddings, 1, for_seconds(options.seconds / 4))
        many = load(port, embeddings, options.connections, for_seconds(options.seconds / 2))
        ours = len(many.seconds) / many.elapsed
        ratio = 1000 * np.median(one.seconds) / call
        print(f"create_item_embedding of 100 ids: {one}")
        print(f"  the Python call p50 {call:.2f} ms, ratio {ratio:.2f}   (bar: 1.5)")
        print(f"memory of all processes: {before:.0f} -> {memory(server):.0f} MiB", flush=True)

    port = free_port()
    body = {"features": ["shop_item_embeddings:embedding"]}
    online = [post("/get-online-features", {**body, "entities": {"item_id": ids}}) for ids in hundreds]
    feast = [
        BIN / "feast",
        "-c",
        repo.path,
        "serve",
        "-p",
        port,
        "-w",
        options.workers,
        "--no-access-log",
        "--max-requests",
        0,
    ]
    with serving(feast, port, "/health"):
        load(port, online, options.connections, for_seconds(2))
        theirs = load(port, online, options.connections, for_seconds(options.seconds / 2))
        rate = len(theirs.seconds) / theirs.elapsed
        print(f"feast serve /get-online-features of the same ids: {theirs}")
        print(f"  ours over as many connections {ours:,.0f}/s, {ours / rate:.1f} times as many   (bar: 3)")
    print(f"load average {os.getloadavg()}", flush=True)


if __name__ == "__main__":
    main()
