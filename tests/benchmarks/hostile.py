"""What small requests that mean harm cost the service: its memory, and how long `/healthz` waits meanwhile.

    python -m tests.benchmarks.hostile

One worker; everything is sent with a read key, or with none. A line for each kind of request: what was answered, how
many bytes came back, by how much the worker's memory grew at most, and the longest wait for `/healthz` during it.
"""

from __future__ import annotations

import argparse
import base64
import collections
import functools
import http.client
import json
import multiprocessing
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import psutil

from feast_embeddings import embedding_views
from feast_embeddings.publish.run import publish_artifact
from feast_embeddings.repo import init_repo
from feast_embeddings.service.api_keys import new_key

from .load import _ANY, BIN, free_port, make_version, serving

MODEL = "/v1/models/shop"
_PATIENCE = 60  # s that a connection is watched


def look(port: int, told: Connection) -> None:
    """Tell the longest wait for `/healthz` in ms, when asked to end; from another process than the busy clients."""
    connection, longest = http.client.HTTPConnection("127.0.0.1", port, timeout=120), 0.0
    told.send(None)
    asking = True
    while asking:
        started = time.perf_counter()
        connection.request("GET", "/healthz")
        if connection.getresponse().read() != b'{"status":"ok"}':
            raise SystemExit("healthz did not say that it is well")
        longest = max(longest, (time.perf_counter() - started) * 1000)
        asking = not told.poll(0.01)
    connection.close()
    told.send(longest)


@dataclass
class Watch:
    """What was seen of the service while something went on."""

    memory: float = 0
    health: float = 0


class Service:
    """A running one, as those see it who mean harm."""

    def __init__(self, port: int, key: str, process: psutil.Process) -> None:
        self.port, self._process = port, process
        limits = httpx.Limits(max_connections=None)
        headers = {"X-API-Key": key, "Content-Type": "application/json"}
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=120, limits=limits)

    def connect(self) -> socket.socket:
        """A connection on which nothing was sent yet."""
        return socket.create_connection(("127.0.0.1", self.port), timeout=_PATIENCE)

    @contextmanager
    def watched(self) -> Iterator[Watch]:
        """Memory (MiB above that at the start) and the wait for health (ms), at their highest."""
        seen, over, before = Watch(), threading.Event(), self._process.memory_info().rss

        def measure() -> None:
            while not over.wait(0.002):
                seen.memory = max(seen.memory, (self._process.memory_info().rss - before) / 2**20)

        told, telling = multiprocessing.Pipe()
        looking = multiprocessing.get_context("spawn").Process(target=look, args=(self.port, telling), daemon=True)
        looking.start()
        telling.close()  # so that its end is an error here
        told.recv()
        measuring = threading.Thread(target=measure)
        measuring.start()
        try:
            yield seen
        finally:
            over.set()
            measuring.join()
            told.send(None)
            seen.health = told.recv()
            looking.join()

    def told(self, what: str, do: Callable[[], str]) -> None:
        """Print a line about it."""
        with self.watched() as seen:
            result = do()
        print(f"{what:38} {result:60} {seen.memory:7.0f} MiB {seen.health:7.0f} ms", flush=True)

    def post(self, path: str, body: str) -> str:
        """Ask once; the status and the size of the answer."""
        answer = self.client.post(f"{MODEL}/{path}", content=body)
        return f"{len(body):,} bytes: {answer.status_code}, {len(answer.content):,} bytes"

    def until_closed(self, sent: bytes, more: bytes = b"") -> str:
        """Send something, and then this again and again; how long the connection stayed."""
        started, n = time.perf_counter(), len(sent)
        with self.connect() as connection:
            connection.sendall(sent)
            connection.settimeout(0.001 if more else 0.5)
            while time.perf_counter() - started < _PATIENCE:
                try:
                    if more:
                        connection.sendall(more)
                        n += len(more)
                    if not connection.recv(65_536):
                        return f"closed after {time.perf_counter() - started:.1f} s, {n:,} bytes"
                except TimeoutError:
                    continue
                except OSError:
                    return f"closed after {time.perf_counter() - started:.1f} s, {n:,} bytes"
        return f"NOT closed in {_PATIENCE} s, {n:,} bytes"


def nothing() -> str:
    """What is measured when nothing goes on."""
    time.sleep(1)
    return ""


def flood(service: Service, n: int) -> str:
    """Many large requests at once; and how long an ordinary one is not answered after they have ended."""
    body = json.dumps({"item_ids": list(range(50)), "limit": 1000})

    def ask(_: int) -> str:
        return str(service.client.post(f"{MODEL}/users_for_item/batch", content=body).status_code)

    with ThreadPoolExecutor(n) as pool:
        statuses = collections.Counter(pool.map(ask, range(n)))
    ended = time.perf_counter()
    with httpx.Client(headers=service.client.headers, timeout=120) as client:  # on a connection of its own
        while client.post(f"http://127.0.0.1:{service.port}{MODEL}/rank", content='{"user_id": 1}').status_code != 200:
            pass
    return f"{dict(statuses)}, rank again after {time.perf_counter() - ended:.1f} s"


def bad_values(service: Service) -> str:
    """The statuses of values that are of no use."""
    bodies: list[tuple[str, Any]] = []
    bodies += [
        ("retrieve", {"entity": "item", "cursor": cursor}) for cursor in ("x", "AAAA", "W10", "bnVsbA", "é", "=")
    ]
    filters = ["item_id < 1e", "item_id < " + "9" * 5000, "item_id = 1e", "item_id = 0x", "item_id < 1_", "item_id < ²"]
    bodies += [("similar_items", {"item_id": 1, "filter": text}) for text in filters]
    sent = [(path, json.dumps(body)) for path, body in bodies]
    for each in (["", 2**64], ["", -1], ["", "x"], ["", 10**300]):
        cursor = base64.urlsafe_b64encode(json.dumps(each).encode()).decode()
        sent.append(("retrieve", json.dumps({"entity": "item", "cursor": cursor})))
    for number in (2**63, 2**64, 10**400, -1):
        sent.append(("similar_items", f'{{"item_id": 1, "limit": {number}}}'))
        sent.append(("similar_items", f'{{"item_id": {number}, "limit": 0}}'))
    sent += [("similar_items", f'{{"item_id": {"9" * 5000}}}'), ("similar_items", f'{{"limit": {"9" * 5000}}}')]
    found = [service.client.post(f"{MODEL}/{path}", content=body).status_code for path, body in sent]
    return str(dict(collections.Counter(found)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--requests", type=int, default=270)
    arguments = parser.parse_args()
    key, kept = new_key("reader", "read")
    with tempfile.TemporaryDirectory() as folder:
        repo = init_repo(Path(folder) / "repo")
        feature_store = repo.feature_store()
        artifact = make_version(repo, arguments.items, 64, 0)
        feature_store.apply(list(embedding_views("shop", repo.data).by_name().values()))
        publish_artifact(feature_store, artifact, gates=_ANY)
        del feature_store
        (Path(folder) / "keys").write_text(kept.line)
        port = free_port()
        command = [BIN / "feast-embeddings", "serve", "--repo", repo.path, "--port", port, "--time-limit", 2]
        os.environ["PYTHONUNBUFFERED"] = "1"
        with serving([*command, "--key-file", Path(folder) / "keys"], port, "/readyz") as process:
            service = Service(port, key, process)
            service.post("rank", '{"user_id": 1}')
            service.told("nothing", nothing)
            for size in (600_000, 2_000_000):
                wrong = '{"item_ids": [' + ",".join(["true"] * (size // 5)) + "]}"
                service.told("wrong ids", functools.partial(service.post, "create_item_embedding", wrong))
                right = '{"item_ids": [' + ",".join(["1"] * (size // 2)) + "]}"
                service.told("too many ids", functools.partial(service.post, "create_item_embedding", right))
                lists = '{"item_ids": [' + ",".join(["[]"] * (size // 3)) + "]}"
                service.told("lists instead of ids", functools.partial(service.post, "create_item_embedding", lists))
                names = "{" + ",".join(f'"f{i}": 1' for i in range(size // 12)) + "}"
                service.told("unknown fields", functools.partial(service.post, "similar_items", names))
                inner = '{"interactions": [{"item_id": 1, ' + names[1:] + "]}"
                service.told("unknown fields within", functools.partial(service.post, "rank", inner))
                name = '{"' + "n" * (size - 10) + '": 1}'
                service.told("a long name", functools.partial(service.post, "similar_items", name))
                digits = '{"item_id": ' + "9" * (size - 20) + "}"
                service.told("a long number", functools.partial(service.post, "similar_items", digits))
                deep = '{"item_id": ' + "[" * (size - 20)
                service.told("deep lists", functools.partial(service.post, "similar_items", deep))
                items = '{"user_id": 1, "filter": "item_id IN (' + ",".join(["1"] * 32_000) + ')"}'
            service.told("a long filter", lambda: service.post("rank", items))
            service.told("bad values", lambda: bad_values(service))
            head = b"POST /v1/models/shop/rank HTTP/1.1\r\nHost: localhost\r\n"
            service.told("idle connection", lambda: service.until_closed(b""))
            service.told("half a head", lambda: service.until_closed(head))
            service.told("endless header", lambda: service.until_closed(head + b"X: ", b"x" * 65_536))
            service.told("endless headers", lambda: service.until_closed(head, b"X: x\r\n" * 1000))
            keyed = head + f"X-API-Key: {key}\r\nContent-Type: application/json\r\n".encode()
            service.told("half a body", lambda: service.until_closed(keyed + b"Content-Length: 100\r\n\r\n{"))
            service.told("half a body, no key", lambda: service.until_closed(head + b"Content-Length: 100\r\n\r\n{"))
            service.told(f"{arguments.requests} large requests", lambda: flood(service, arguments.requests))


if __name__ == "__main__":
    main()
