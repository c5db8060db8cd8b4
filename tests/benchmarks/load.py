"""The service under load: requests a second, latency, recall, publishes meanwhile, memory; next to `feast serve`.

    python -m tests.benchmarks.load
    python -m tests.benchmarks.load --fresh --requests 500000      # takes half an hour

Client and server share the machine. Latencies and rates are those that `tests.benchmarks.http_load` measures, with wrk
where it is installed. Answers during publishes are collected from Python, to check each; one request at a time is
asked from Python too, in turn with the Python call.

Ids are drawn in three ways: as people ask, some items more than others by Zipf's law; all alike; and each item in its
turn, so that caches of the processor are of no use.
"""

from __future__ import annotations

import argparse
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
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa

from feast_embeddings import embedding_views
from feast_embeddings.artifact import Artifact, EmbeddingTable, TrainerInfo, write_artifact
from feast_embeddings.publish.gates import Gates
from feast_embeddings.publish.run import publish_artifact
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import Repo, init_repo

from .http_load import CLIENT, Connection, ask, for_seconds, load, prepared

BIN = Path(sys.executable).parent
NOW = datetime(2026, 1, 1, tzinfo=UTC)
CLUSTERS = 500
PATH = "/v1/models/shop/"
_ANY = Gates(allow_worse=True, allow_shrink=True, allow_new_space=True)
# Memory is looked at after each so many requests.
_STEP = 50_000


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
            time.sleep(5)  # the other worker
            yield psutil.Process(process.pid)
        finally:
            process.terminate()
            process.wait()


def memory(server: psutil.Process) -> tuple[float, float]:
    """MiB of the server's processes: what they hold (with mapped files, RSS), and what is theirs alone (USS)."""
    found = [process.memory_full_info() for process in [server, *server.children(recursive=True)]]
    return sum(info.rss for info in found) / 2**20, sum(info.uss for info in found) / 2**20


def unit_vectors(artifact: Artifact) -> npt.NDArray[np.float32]:
    """The items' vectors at length one."""
    table = artifact.table("item")
    vectors = table["embedding"].combine_chunks().flatten().to_numpy().reshape(table.num_rows, -1)
    unit: npt.NDArray[np.float32] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


def wrong(
    asked: Sequence[int], answers: Sequence[tuple[int, bytes]], unit: dict[str, npt.NDArray[np.float32]]
) -> tuple[int, set[str]]:
    """How many answers are not ten others, best first, with the scores of the one version that they name."""
    found, versions = 0, set()
    for number, body in answers:
        answer, query = json.loads(body), asked[number]
        vectors = unit[answer["version"]]
        versions.add(answer["version"])
        ids = [row["id"] for row in answer["results"]]
        scores = np.array([row["score"] for row in answer["results"]])
        found += not (
            len(set(ids) - {query}) == len(ids) == 10
            and (np.diff(scores) <= 0).all()
            and np.allclose(scores, vectors[ids] @ vectors[query], atol=1e-4)
        )
    return found, versions


def recall(
    asked: Sequence[int], answers: Sequence[tuple[int, bytes]], unit: dict[str, npt.NDArray[np.float32]]
) -> float:
    """Recall@10 against brute force."""
    found = 0
    for number, body in answers:
        answer = json.loads(body)
        vectors = unit[answer["version"]]
        scores = vectors @ vectors[asked[number]]
        scores[asked[number]] = -2
        given = np.array([row["score"] for row in answer["results"]])
        found += int((given >= np.partition(scores, -10)[-10] - 1e-6).sum())
    return found / (10 * len(answers))


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--publishes", type=int, default=10)
    parser.add_argument("--fresh", action="store_true", help="load a new version with each publish, not the first only")
    parser.add_argument("--requests", type=int, default=0, help=f"then so many more, memory after each {_STEP:,}")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        measure(folder, options)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path, options: argparse.Namespace) -> None:
    repo = init_repo(folder / "repo")
    n_versions = 1 + (options.publishes if options.fresh else min(1, options.publishes))
    versions = [make_version(repo, options.items, options.dim, seed) for seed in range(n_versions)]
    feature_store = repo.feature_store()
    feature_store.apply(list(embedding_views("shop", repo.data).by_name().values()))
    publish_artifact(feature_store, versions[0], gates=_ANY)
    unit = {version.manifest.version: unit_vectors(version) for version in versions}
    rng = np.random.default_rng(0)
    asked = rng.choice(options.items, 5000).tolist()
    spreads = {
        "popular": popular(rng, options.items),
        "at random": at_random(rng, options.items),
        "in turn": in_turn(rng, options.items),
    }
    store = EmbeddingStore(feature_store, "shop")
    print(f"client {CLIENT}, load average {os.getloadavg()}", flush=True)

    port = free_port()
    serve = [BIN / "feast-embeddings", "serve", "--repo", repo.path, "--port", port, "--workers", options.workers]
    with serving([*serve, "--no-access-log"], port, "/readyz") as server:
        similar(port, asked, unit, options)
        for spread, hundreds in spreads.items():
            embeddings(port, store, spread, hundreds, options)
        beside_feast(port, repo, spreads, options)
        if options.publishes:
            publishes(port, repo, versions, asked, unit, options)
        if options.requests:
            similar_bodies = [{"item_id": id} for id in asked]
            remember(port, server, "similar_items", similar_bodies, options.requests, options)
            # Of each a hundred.
            of_hundreds = [{"item_ids": ids} for ids in spreads["at random"]]
            remember(port, server, "create_item_embedding", of_hundreds, options.requests // 10, options)
    print(f"load average {os.getloadavg()}", flush=True)


def similar(port: int, asked: list[int], unit: dict[str, npt.NDArray[np.float32]], options: argparse.Namespace) -> None:
    """Rate, latency and recall of similar_items."""
    bodies = [{"item_id": id} for id in asked]
    load(port, PATH + "similar_items", bodies, options.connections, 3)
    result = load(port, PATH + "similar_items", bodies, options.connections, options.seconds)
    _, answers = ask(port, PATH + "similar_items", bodies, 1, for_seconds(2))
    n_wrong, _ = wrong(asked, answers[:500], unit)
    print(f"similar_items: {result}   (bar: 1,000/s, p99 25 ms)")
    print(f"  recall@10 {recall(asked, answers[:500], unit):.4f} of 500, {n_wrong} wrong   (bar: 0.99)", flush=True)


def popular(rng: np.random.Generator, n_items: int) -> list[list[int]]:
    """Hundreds of items, the most popular one drawn twice as often as the second, three times as often as the third."""
    items, chances = rng.permutation(n_items), np.cumsum(1 / np.arange(1, n_items + 1))
    draws = (items[np.searchsorted(chances, chances[-1] * rng.random(1000))].tolist() for _ in range(n_items // 10))
    return [list(dict.fromkeys(drawn))[:100] for drawn in draws]


def at_random(rng: np.random.Generator, n_items: int) -> list[list[int]]:
    """As many hundreds of items, each item as likely as any other."""
    return [rng.choice(n_items, 100, replace=False).tolist() for _ in range(n_items // 10)]


def in_turn(rng: np.random.Generator, n_items: int) -> list[list[int]]:
    """All items, each once, in hundreds."""
    hundreds: list[list[int]] = rng.permutation(n_items)[: n_items // 100 * 100].reshape(-1, 100).tolist()
    return hundreds


def embeddings(
    port: int, store: EmbeddingStore, spread: str, hundreds: list[list[int]], options: argparse.Namespace
) -> None:
    """create_item_embedding of 100 ids next to the Python call."""
    path, block = PATH + "create_item_embedding", 10
    connection = Connection(port)
    for encoding in ("float", "base64", "numpy"):
        requests = [prepared(path, {"item_ids": ids, "encoding": encoding}) for ids in hundreds]
        pairs = []
        for request in requests[: len(requests) // 2]:
            connection.seconds(request)  # so that both have warmed up
        # In turn, some milliseconds of each: the machine is not as fast in one second as in the next.
        for turn in range(30 + int(20 * options.seconds)):
            chosen = [(len(requests) // 2 + turn * block + i) % len(requests) for i in range(block)]
            http = [connection.seconds(requests[i]) for i in chosen]
            pairs.append((np.median(http), np.median([_seconds(store, hundreds[i]) for i in reversed(chosen)])))
        measured = np.array(pairs[30:])  # after both have warmed up
        http, call = 1000 * np.median(measured, axis=0)
        ratios = np.percentile(measured[:, 0] / measured[:, 1], [10, 50, 90])
        print(
            f"create_item_embedding of 100 ids, {spread}, {encoding}: p50 {http:.2f} ms, the Python call {call:.2f} ms,"
            f" ratio {ratios[1]:.2f}, in 8 of 10 pairs {ratios[0]:.2f} to {ratios[2]:.2f}   (bar: 2)",
            flush=True,
        )
    connection.close()


def _seconds(store: EmbeddingStore, ids: list[int]) -> float:
    """How long the Python call takes."""
    started = time.perf_counter()
    store.item_embeddings(ids)
    return time.perf_counter() - started


def beside_feast(ours: int, repo: Repo, spreads: dict[str, list[list[int]]], options: argparse.Namespace) -> None:
    """create_item_embedding and the same ids from `feast serve`, in turn."""
    path, theirs, seconds = PATH + "create_item_embedding", free_port(), options.seconds / 5
    feast = [BIN / "feast", "-c", repo.path, "serve", "-p", theirs, "-w", options.workers]
    with serving([*feast, "--no-access-log", "--max-requests", 0], theirs, "/health"):
        for spread, hundreds in spreads.items():
            online = [
                {"features": ["shop_item_embeddings:embedding"], "entities": {"item_id": ids}} for ids in hundreds
            ]
            asked: dict[str, tuple[int, str, list[Any]]] = {
                "float": (ours, path, [{"item_ids": ids} for ids in hundreds]),
                "base64": (ours, path, [{"item_ids": ids, "encoding": "base64"} for ids in hundreds]),
                "feast serve": (theirs, "/get-online-features", online),
            }
            rates: dict[str, list[float]] = {name: [] for name in asked}
            for turn in range(6):
                for name, (port, where, bodies) in asked.items():
                    result = load(port, where, bodies, options.connections, seconds)
                    if turn:  # after all have warmed up
                        rates[name].append(result.rate)
                    if result.failed:
                        print(f"{name}: {result}")
            medians = {name: float(np.median(found)) for name, found in rates.items()}
            told = ", ".join(f"{n} {r:,.0f}/s ({r / medians['feast serve']:.1f} times)" for n, r in medians.items())
            print(f"100 ids over {options.connections} connections, {spread}: {told}   (bar: 3 times)", flush=True)


def publishes(
    port: int,
    repo: Repo,
    versions: list[Artifact],
    asked: list[int],
    unit: dict[str, npt.NDArray[np.float32]],
    options: argparse.Namespace,
) -> None:
    """similar_items while versions are published, each from a process of its own; each answer is checked."""
    done, seconds = threading.Event(), []
    command = [
        BIN / "feast-embeddings",
        "publish",
        "--repo",
        repo.path,
        "--model",
        "shop",
        "--quiet",
        "--allow-new-space",
    ]

    def publish() -> None:
        try:
            for number in range(options.publishes):
                version = versions[(number + 1) % len(versions)].manifest.version
                started = time.perf_counter()
                subprocess.run([*map(str, command), "--version", version], check=True, stdout=subprocess.DEVNULL)
                seconds.append(round(time.perf_counter() - started, 1))
        finally:
            done.set()

    thread = threading.Thread(target=publish)
    thread.start()
    result, answers = ask(
        port, PATH + "similar_items", [{"item_id": id} for id in asked], options.connections, done.is_set
    )
    thread.join()
    n_wrong, seen = wrong(asked, answers, unit)
    print(
        f"the same through {len(seconds)} of {options.publishes} publishes of {len(versions)} versions, which took "
        f"{seconds} s, asked and checked by asyncio: {result}; {n_wrong} of {len(answers):,} wrong, from {len(seen)} "
        "versions   (bar: 0 failed, 0 wrong)",
        flush=True,
    )


def remember(
    port: int, server: psutil.Process, name: str, bodies: list[Any], n_requests: int, options: argparse.Namespace
) -> None:
    """Memory over many requests."""
    counts, sizes, failed = [0], [memory(server)], 0
    print(f"{name}, memory of all processes, MiB, RSS (USS): {sizes[0][0]:.0f} ({sizes[0][1]:.0f})", end="")
    seconds = 10.0
    while counts[-1] < n_requests:
        result = load(port, PATH + name, bodies, options.connections, seconds)
        failed += result.failed
        counts.append(counts[-1] + result.requests)
        sizes.append(memory(server))
        seconds = min(_STEP, n_requests // 4) / result.rate
        print(f", {counts[-1]:,}: {sizes[-1][0]:.0f} ({sizes[-1][1]:.0f})", end="", flush=True)
    slopes = np.polyfit(counts, np.array(sizes), 1)[0] * 100_000
    print(f"\n  slope in 100,000 requests {slopes[0]:+.2f} ({slopes[1]:+.2f}) MiB; {failed} failed   (bar: flat)")


if __name__ == "__main__":
    main()
