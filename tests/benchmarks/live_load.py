"""Interactions and rankings at once, at rates of our choice: latency, time to a changed answer, and SIGKILLs.

    python -m tests.benchmarks.live_load [--events 200] [--ranks 500] [--seconds 300] [--gather 0.05]
    QDRANT_URL=http://localhost:6333 python -m tests.benchmarks.live_load

An open loop: each request has a time, whether or not the ones before it are answered, and its latency counts from that
time. The client gathers events for a while and sends them as one request. One event in ten is of a user whom the
training did not know, who is ranked until the answer is personal; one in ten is of a known user with the best item of
their answer, who is ranked until that item is gone. Then all processes of the service are killed while events come; a
client sends again what was not acknowledged, and the event log has each event once. Client and server share the
machine.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import yaml

from feast_embeddings import embedding_views
from feast_embeddings.artifact import EmbeddingTable, TrainerInfo, write_artifact
from feast_embeddings.events import event_log_of
from feast_embeddings.publish.run import publish_artifact
from feast_embeddings.repo import Repo, init_repo

from .http_load import prepared
from .load import BIN, CLUSTERS, free_port

_DIM, _HISTORY = 64, 20
_PATH = "/v1/models/shop/"
_CONNECTIONS = 64
_GIVE_UP_SECONDS = 10.0
_WARM_SECONDS = 10
_IDLE_SECONDS = 2.0


def make_repo(folder: Path, n_users: int, n_items: int) -> Repo:
    """A live version in overlapping clusters, as trained ones are, said to be of a trainer that can fold in."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((CLUSTERS, _DIM), dtype=np.float32)
    items = pa.array([f"sku-{i}" for i in range(n_items)])
    seen = items.take(pa.array(rng.integers(0, n_items, n_users * _HISTORY)))
    lists = pa.ListArray.from_arrays(np.arange(0, len(seen) + 1, _HISTORY, dtype=np.int32), seen)

    def table(ids: pa.Array, seen_items: pa.Array | None = None) -> EmbeddingTable:
        vectors = centres[rng.integers(CLUSTERS, size=len(ids))] + rng.standard_normal((len(ids), _DIM), np.float32)
        return EmbeddingTable(ids, vectors / np.float32(8), np.arange(1, len(ids) + 1), seen_items=seen_items)

    repo = init_repo(folder)
    if url := os.environ.get("QDRANT_URL"):
        path = repo.path / "feature_store.yaml"
        settings = yaml.safe_load(path.read_text())
        settings["online_store"] = {"type": settings["online_store"]["type"], "url": url}
        path.write_text(yaml.safe_dump(settings))
    artifact = write_artifact(
        repo.data,
        "shop",
        users=table(pa.array([f"u-{i}" for i in range(n_users)]), lists),
        items=table(items),
        as_of=datetime(2026, 1, 1, tzinfo=UTC),
        trainer=TrainerInfo(name="als", config={"factors": _DIM, "alpha": 1.0}),
        seed=None,
        metrics={},
        fingerprint="",
        n_interactions=n_users * _HISTORY,
    )
    feature_store = repo.feature_store()
    feature_store.apply(list(embedding_views("shop", repo.data).by_name().values()))
    publish_artifact(feature_store, artifact)
    return repo


class Service:
    """The processes of `serve`, which can be killed and started again."""

    def __init__(self, repo: Repo, workers: int) -> None:
        self.port = free_port()
        serve: list[object] = [BIN / "feast-embeddings", "serve", "--repo", repo.path, "--port", self.port]
        self._command = [*map(str, serve), "--workers", str(workers), "--allow-writes", "--no-access-log"]
        self._process: psutil.Process | None = None

    def start(self) -> None:
        self._process = psutil.Process(subprocess.Popen(self._command, stderr=subprocess.DEVNULL).pid)

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of its processes if it is SIGKILL, else to the first."""
        assert self._process is not None
        children = self._process.children(recursive=True) if number is signal.SIGKILL else []
        for process in (self._process, *children):
            process.send_signal(number)
        psutil.wait_procs([self._process, *children])

    def cpu_seconds(self) -> float:
        """What its processes have used."""
        assert self._process is not None
        times = [each.cpu_times() for each in (self._process, *self._process.children(recursive=True))]
        return float(sum(each.user + each.system for each in times))


class Client:
    """Connections that are kept open; a request takes one that is free, or opens one more."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._free: list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]] = []
        self._at_once = asyncio.Semaphore(_CONNECTIONS)

    async def post(self, path: str, body: Any) -> dict[str, Any]:
        """Return the answer.

        Raises:
            OSError, EOFError: it is not 200, or none came.
        """
        async with self._at_once:
            reader, writer = await self._connection()
            try:
                writer.write(prepared(_PATH + path, body))
                head = await reader.readuntil(b"\r\n\r\n")
                length = head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]
                answer = await reader.readexactly(int(length))
            except BaseException:
                writer.close()
                raise
            self._free.append((time.perf_counter(), reader, writer))
        if not head.startswith(b"HTTP/1.1 200"):
            raise OSError(f"{path}: {head.splitlines()[0]!r} {answer[:200]!r}")
        found: dict[str, Any] = json.loads(answer)
        return found

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        while self._free:
            since, reader, writer = self._free.pop()
            # The service ends connections without a request.
            if time.perf_counter() - since < _IDLE_SECONDS:
                return reader, writer
            writer.close()
        return await asyncio.open_connection("127.0.0.1", self._port)

    async def until_up(self) -> None:
        """Wait until an answer comes."""
        until = time.perf_counter() + 120
        while time.perf_counter() < until:
            try:
                await self.post("rank", {"user_id": "u-0", "limit": 1})
            except (OSError, EOFError):
                await asyncio.sleep(0.1)
            else:
                return
        raise SystemExit("the service did not come up")


async def open_loop(rate: float, seconds: float, request: Callable[[int, float], Coroutine[Any, Any, None]]) -> None:
    """Start the requests of a rate, each at its time, and wait for all."""
    started = time.perf_counter()
    tasks = set()
    for number in range(round(rate * seconds)):
        due = started + number / rate
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        tasks.add(asyncio.create_task(request(number, due)))
    await asyncio.gather(*tasks)


class Load:
    """Events and rankings, what they took in seconds, and which events were acknowledged."""

    def __init__(self, client: Client, options: argparse.Namespace, name: str) -> None:
        self._client, self._options, self._name = client, options, name
        self._rng = np.random.default_rng(1)
        self.took: dict[str, list[float]] = {name: [] for name in ("event", "rank", "new user", "known user")}
        self.errors: Counter[str] = Counter()
        self.sent: set[str] = set()
        self.waiting: dict[str, dict[str, Any]] = {}
        self._gathered: list[dict[str, Any]] = []
        self._sending: asyncio.Task[None] | None = None

    async def run(self, seconds: float) -> None:
        """Both at once."""
        self.started = time.perf_counter()
        await asyncio.gather(
            open_loop(self._options.events, seconds, self._event),
            open_loop(self._options.ranks, seconds, self._rank),
        )

    def _some(self, prefix: str, count: int) -> str:
        return f"{prefix}-{self._rng.integers(count)}"

    async def _rank(self, _: int, due: float) -> None:
        try:
            await self._client.post("rank", {"user_id": self._some("u", self._options.users), "limit": 10})
        except (OSError, EOFError) as error:
            self.errors[f"rank: {error!r:.80}"] += 1
        else:
            self.took["rank"].append(time.perf_counter() - due)

    async def _event(self, number: int, due: float) -> None:
        kind = {0: "new user", 1: "known user"}.get(number % 10)
        user = f"new-{self._name}-{number}" if kind == "new user" else self._some("u", self._options.users)
        item = self._some("sku", self._options.items)
        try:
            if kind == "known user":
                item = (await self._client.post("rank", {"user_id": user, "limit": 1}))["results"][0]["id"]
                due = time.perf_counter()
            await self.send({"user_id": user, "item_id": item, "event_id": f"{self._name}-{number}"})
            self.took["event"].append(time.perf_counter() - due)
            if kind is not None:
                await self._changed(user, item if kind == "known user" else None)
                self.took[kind].append(time.perf_counter() - due)
        except (OSError, EOFError) as error:
            self.errors[f"event: {error!r:.80}"] += 1

    async def send(self, event: dict[str, Any]) -> None:
        """Post an event, with those that come soon; it waits to be sent again until it is acknowledged."""
        self.waiting[event["event_id"]] = event
        self.sent.add(event["event_id"])
        self._gathered.append(event)
        if self._sending is None:
            self._sending = asyncio.create_task(self._post())
        await self._sending

    async def _post(self) -> None:
        await asyncio.sleep(self._options.gather)
        events, self._gathered, self._sending = self._gathered, [], None
        answer = await self._client.post("interactions", {"interactions": events})
        if answer["added"] + answer["duplicates"] == len(events):
            for event in events:
                del self.waiting[event["event_id"]]

    async def _changed(self, user: str, item: str | None) -> None:
        """Rank until the answer is not that of popular items, or not with this item."""
        asked = {"user_id": user, "limit": 10, "fallback": "popular"}
        until = time.perf_counter() + _GIVE_UP_SECONDS
        while time.perf_counter() < until:
            answer = await self._client.post("rank", asked)
            if answer["fallback"] is None and item not in [row["id"] for row in answer["results"]]:
                return
        raise OSError("the answer did not change")


def once_each(repo: Repo, load: Load) -> str:
    """Count the events in the log, and say how many that were acknowledged are not there once."""
    there = Counter(event.event_id for batch in event_log_of(repo.data, "shop").batches() for event in batch)
    acknowledged = load.sent - load.waiting.keys()
    lost = sum(there[id] == 0 for id in acknowledged)
    twice = sum(count > 1 for count in there.values())
    return f"{len(acknowledged):,} of {len(load.sent):,} acknowledged, {lost} of these lost, {twice} there twice"


async def measure(repo: Repo, options: argparse.Namespace) -> None:
    service = Service(repo, options.workers)
    service.start()
    try:
        client = Client(service.port)
        await client.until_up()
        await Load(client, options, "warm").run(_WARM_SECONDS)
        load = Load(client, options, "load")
        cpu, own = service.cpu_seconds(), time.process_time()
        started = time.perf_counter()
        await load.run(options.seconds)
        elapsed = time.perf_counter() - started
        print(
            f"{len(load.took['event']) / elapsed:.1f} events/s of {options.events:g} next to "
            f"{len(load.took['rank']) / elapsed:.1f} ranks/s of {options.ranks:g}, {elapsed:.0f} s; "
            f"processors: service {(service.cpu_seconds() - cpu) / elapsed:.2f}, "
            f"client {(time.process_time() - own) / elapsed:.2f}"
        )
        for name, took in load.took.items():
            p50, p99 = np.percentile(np.array(took or [np.nan]) * 1000, [50, 99])
            what = f"{name}: answered" if name in ("event", "rank") else f"{name}: event to changed answer"
            bar = "   (bar: p99 1,000 ms)" if name == "new user" else ""
            print(f"  {what} p50 {p50:.1f} ms, p99 {p99:.1f} ms, most {max(took, default=np.nan) * 1000:.0f} ms{bar}")
        print(f"  errors {sum(load.errors.values())} {dict(load.errors) or ''}   (bar: 0)")
        print(f"  log: {once_each(repo, load)}", flush=True)
        await kills(repo, service, options)
    finally:
        service.signal(signal.SIGTERM)


async def kills(repo: Repo, service: Service, options: argparse.Namespace) -> None:
    """Kill all processes while events come, some times, and send again what was not acknowledged."""
    load = Load(Client(service.port), options, "kill")
    rng = np.random.default_rng(2)
    numbers = itertools.count()

    async def stream() -> None:
        for number in numbers:
            try:
                await load.send({"user_id": f"u-{number}", "item_id": "sku-1", "event_id": f"kill-{number}"})
            except (OSError, EOFError):
                return

    for _ in range(options.kills):
        streams = [asyncio.create_task(stream()) for _ in range(8)]
        await asyncio.sleep(1 + rng.random())
        service.signal(signal.SIGKILL)
        await asyncio.gather(*streams)
        print(f"  after a SIGKILL: {once_each(repo, load)}", flush=True)
        service.start()
        load._client = Client(service.port)
        await load._client.until_up()
    for event in list(load.waiting.values()):
        await load.send(event)
    print(f"  all sent again: {once_each(repo, load)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=float, default=200, help="a second")
    parser.add_argument("--ranks", type=float, default=500, help="a second")
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--gather", type=float, default=0.05, metavar="SECONDS", help="0 sends each event at once")
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        repo = make_repo(Path(name) / "repo", options.users, options.items)
        print(f"{sys.argv[1:]}, load average {os.getloadavg()}", flush=True)
        asyncio.run(measure(repo, options))
        print(f"load average {os.getloadavg()}", flush=True)


if __name__ == "__main__":
    main()
