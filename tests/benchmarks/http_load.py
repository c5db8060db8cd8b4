"""Sends prepared requests to a server on this machine: with wrk where it is installed, else from here.

wrk (https://github.com/wg/wrk) is written in C and leaves almost all of the machine to the server. The client here is
asyncio on plain sockets, as a full HTTP client would cost more than the service.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["CLIENT", "Connection", "Load", "ask", "for_seconds", "load", "prepared"]

CLIENT = "wrk" if shutil.which("wrk") else "asyncio"

_SCRIPT = """
local requests, number = {}, 0
function init(args)
  for body in io.lines(args[2]) do
    requests[#requests + 1] = wrk.format("POST", args[1], {["Content-Type"] = "application/json"}, body)
  end
end
function request()
  number = number % #requests + 1
  return requests[number]
end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\\nRESULT {"requests": %d, "elapsed": %f, "p50": %f, "p99": %f, "failed": %d}\\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass
class Load:
    """What came of the requests; times in ms but `elapsed`, in s."""

    requests: int
    elapsed: float
    p50: float
    p99: float
    failed: int

    @property
    def rate(self) -> float:
        """Requests a second."""
        return self.requests / self.elapsed

    def __str__(self) -> str:
        return (
            f"{self.requests:,} requests, {self.rate:,.0f}/s, p50 {self.p50:.2f} ms, p99 {self.p99:.2f} ms, "
            f"{self.failed} failed"
        )


def load(port: int, path: str, bodies: Sequence[Any], connections: int, seconds: float) -> Load:
    """Send these requests in turn over so many connections, each as soon as the one before is answered."""
    if CLIENT == "asyncio":
        return ask(port, path, bodies, connections, for_seconds(seconds))[0]
    with tempfile.TemporaryDirectory() as folder:
        script, lines = Path(folder, "load.lua"), Path(folder, "bodies")
        script.write_text(_SCRIPT)
        lines.write_text("\n".join(map(json.dumps, bodies)))
        command = [
            "wrk",
            "-t1",
            "--timeout",
            "30s",
            f"-c{connections}",
            f"-d{max(1, round(seconds))}s",
            "-s",
            str(script),
        ]
        command += [f"http://127.0.0.1:{port}", "--", path, str(lines)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return Load(**json.loads(done.stdout.split("RESULT ")[1]))


def prepared(path: str, body: Any) -> bytes:
    """The bytes of a request."""
    content = json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    head += f"Content-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


class Connection:
    """One connection that is kept open, over which to ask and wait: as little of a client as can be."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))

    def close(self) -> None:
        self._socket.close()

    def seconds(self, request: bytes) -> float:
        """How long it took until the whole answer to a prepared request was here."""
        started = time.perf_counter()
        self._socket.sendall(request)
        answer = self._socket.recv(2**20)
        while b"\r\n\r\n" not in answer:
            answer += self._socket.recv(2**20)
        head, _, body = answer.partition(b"\r\n\r\n")
        left = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]) - len(body)
        while left:
            left -= len(self._socket.recv(left))
        seconds = time.perf_counter() - started
        if not head.startswith(b"HTTP/1.1 200"):
            raise SystemExit(f"expected an answer of status 200, got {answer[:500]!r}")
        return seconds


def ask(
    port: int, path: str, bodies: Sequence[Any], connections: int, stop: Callable[[], bool]
) -> tuple[Load, list[tuple[int, bytes]]]:
    """The same from here, with each answer and the number of the request that it is to."""
    requests = [prepared(path, body) for body in bodies]
    times: list[float] = []
    answers: list[tuple[int, bytes]] = []
    position = failed = 0

    async def one_connection() -> None:
        nonlocal position, failed
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
                failed += 1
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                continue
            times.append(time.perf_counter() - started)
            if head.startswith(b"HTTP/1.1 200"):
                answers.append((number, body))
            else:
                failed += 1
        writer.close()

    async def all_connections() -> None:
        await asyncio.gather(*(one_connection() for _ in range(connections)))

    started = time.perf_counter()
    asyncio.run(all_connections())
    elapsed = time.perf_counter() - started
    p50, p99 = np.percentile(times, [50, 99]) * 1000
    return Load(len(times), elapsed, float(p50), float(p99), failed), answers


def for_seconds(seconds: float) -> Callable[[], bool]:
    """Whether so many seconds are over."""
    deadline = time.perf_counter() + seconds
    return lambda: time.perf_counter() > deadline
