"""What the client of a server sends and repeats, over real sockets: a server that fails in every way, then answers."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from qdrant_client import grpc as qdrant_grpc

from feast_embeddings.engines.engine import CollectionSpec, Engine, VectorSpec
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.engines.server.failures import patiently
from feast_embeddings.engines.testing import make_batch
from feast_embeddings.errors import EngineError, InputError
from feast_embeddings.online.open_engine import open_engine
from feast_embeddings.online.store import QdrantEmbeddingOnlineStoreConfig

ALIASES = {"aliases": [{"alias_name": "a", "collection_name": "c"}]}
RESULTS: dict[str, Any] = {"PUT": True, "GET": ALIASES, "POST": {"points": []}}


class Failing(ThreadingHTTPServer):
    """Answers with these statuses in turn, then with one alias; 0 hangs up without an answer."""

    daemon_threads = True

    def __init__(self, statuses: list[int]) -> None:
        self.statuses = statuses
        self.requests: list[str] = []
        self.bodies: list[Any] = []
        self.may_answer = threading.Event()
        self.may_answer.set()
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: Failing

    def do_GET(self) -> None:
        self.server.requests.append(f"{self.command} {self.path}")
        self.server.bodies.append(json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "null"))
        assert self.server.may_answer.wait(timeout=60), "it was never allowed to answer"
        status = self.server.statuses.pop(0) if self.server.statuses else 200
        if not status:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        if status == 429:
            self.send_header("Retry-After", "1")
        self.end_headers()
        done = {"operation_id": 0, "status": "completed"}
        by_path: dict[str, Any] = {
            "/exists": {"exists": False},
            "/collections/aliases": True,
            "/index": done,
            "/points": [] if self.command == "POST" else done,
        }
        answers = [answer for end, answer in by_path.items() if self.path.partition("?")[0].endswith(end)]
        result = answers[0] if answers else RESULTS[self.command]
        self.wfile.write(json.dumps({"time": 0, "status": "ok", "result": result}).encode())

    do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@contextlib.contextmanager
def grpc_node(
    calls: list[str],
    code: grpc.StatusCode,
    failures: int,
    credentials: grpc.ServerCredentials | None = None,
    may_answer: threading.Event | None = None,
) -> Iterator[int]:
    """The port of a gRPC server that fails so often, and then answers with one alias."""

    def aliases(request: object, context: grpc.ServicerContext) -> qdrant_grpc.ListAliasesResponse:
        calls.append(dict(context.invocation_metadata()).get("api-key", ""))
        assert may_answer is None or may_answer.wait(timeout=60), "it was never allowed to answer"
        if len(calls) <= failures:
            context.abort(code, "not now")
        return qdrant_grpc.ListAliasesResponse(
            aliases=[qdrant_grpc.AliasDescription(alias_name="a", collection_name="c")]
        )

    handler = grpc.unary_unary_rpc_method_handler(
        aliases,
        request_deserializer=qdrant_grpc.ListAliasesRequest.FromString,
        response_serializer=qdrant_grpc.ListAliasesResponse.SerializeToString,
    )
    with futures.ThreadPoolExecutor(1) as pool:
        node = grpc.server(pool)
        node.add_generic_rpc_handlers(
            [grpc.method_handlers_generic_handler("qdrant.Collections", {"ListAliases": handler})]
        )
        address = "127.0.0.1:0"
        port = node.add_secure_port(address, credentials) if credentials else node.add_insecure_port(address)
        node.start()
        yield port
        node.stop(None)


def failing_server() -> Iterator[Failing]:
    """A server that does not fail yet."""
    with Failing([]) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


server = pytest.fixture(failing_server)


def engine_at(port: int, *, grpc_port: int | None = None, **more: Any) -> Engine:
    settings = QdrantEmbeddingOnlineStoreConfig(
        url=f"http://127.0.0.1:{port}", prefer_grpc=grpc_port is not None, grpc_port=grpc_port or 6334, **more
    )
    return open_engine(settings, Path())


@pytest.mark.parametrize("statuses", [[503], [502, 504, 503], [429], [0, 0]])
def test_a_transient_failure_is_asked_again(server: Failing, statuses: list[int]) -> None:
    """A server that is busy, restarting or hangs up gets the same request until it answers."""
    server.statuses = list(statuses)
    assert engine_at(server.server_port).aliases() == {"a": "c"}
    assert server.requests == ["GET /aliases"] * (len(statuses) + 1)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 500])
def test_what_will_not_get_better_is_not(server: Failing, status: int) -> None:
    """A wrong request, a wrong key or a bug is an error at once."""
    server.statuses = [status] * 9
    with pytest.raises(EngineError, match=f"HTTP {status}"):
        engine_at(server.server_port).aliases()
    assert len(server.requests) == 1


@pytest.mark.parametrize(("status", "message"), [(503, "HTTP 503"), (429, "Resource Exhausted")])
def test_it_gives_up(server: Failing, status: int, message: str) -> None:
    """After the number of repetitions of the settings the failure is an error of ours."""
    server.statuses = [status] * 9
    with pytest.raises(EngineError, match=message):
        engine_at(server.server_port, retries=1).aliases()
    assert len(server.requests) == 2


def test_a_collection_is_not_created_twice(server: Failing) -> None:
    """The answer may have been lost after it was made; asking again would meet it."""
    spec = CollectionSpec(alias="a", vectors={}, payload_indexes={})
    server.statuses = [200, 503]
    with pytest.raises(EngineError, match="HTTP 503"):
        engine_at(server.server_port).create("c", spec, [])
    assert server.requests == ["GET /collections/c/exists", "PUT /collections/c"]


def test_every_setting_reaches_the_server(server: Failing) -> None:
    """Of a new collection and of a search; the vector that is only read back has no graph and no quantized copy."""
    engine = engine_at(
        server.server_port,
        hnsw_m=8,
        hnsw_ef_construct=64,
        search_ef=99,
        on_disk=True,
        quantization="scalar",
        shard_number=2,
        replication_factor=3,
    )
    vectors = {
        "v": VectorSpec(size=2, distance="Dot", indexed=False),
        "w": VectorSpec(size=2, distance="Cosine", indexed=True),
    }
    spec = CollectionSpec(alias="a", vectors=vectors, payload_indexes={})
    engine.create("c", spec, [], wait_for_indexes=False)
    body = server.bodies[server.requests.index("PUT /collections/c")]
    assert (body["shard_number"], body["replication_factor"], body["on_disk_payload"]) == (2, 3, True)
    searched, read = body["vectors"]["w"], body["vectors"]["v"]
    assert searched["hnsw_config"] == {"m": 8, "ef_construct": 64, "on_disk": True}
    assert searched["quantization_config"] == {"scalar": {"type": "int8", "always_ram": True}}
    assert (searched["on_disk"], read["on_disk"]) == (True, True)
    assert (read["hnsw_config"]["m"], "quantization_config" in read) == (0, False)
    engine.query("c", "w", np.ones(2, dtype=np.float32), limit=5)
    rescored = {"rescore": True, "oversampling": 3.0}
    assert server.bodies[-1]["params"] == {"hnsw_ef": 99, "exact": False, "quantization": rescored}


def test_who_is_patient_asks_for_longer(server: Failing) -> None:
    """Also in the threads that upload; without repetitions in the settings there are none."""
    server.statuses = [503] * 4
    with patiently(60):
        assert engine_at(server.server_port, retries=1).aliases() == {"a": "c"}
    assert len(server.requests) == 5
    server.requests.clear()
    spec = CollectionSpec(
        alias="a", vectors={"v": VectorSpec(size=2, distance="Dot", indexed=False)}, payload_indexes={}
    )
    server.statuses = [200, 200, 200, 200, 503, 503, 503]
    with patiently(60):
        engine_at(server.server_port, retries=1).create(
            "c", spec, [make_batch(np.eye(2, dtype=np.float32))], wait_for_indexes=False
        )
    assert server.requests[4:] == ["PUT /collections/c/points?wait=true"] * 4
    server.statuses = [503] * 9
    server.requests.clear()
    with patiently(60), pytest.raises(EngineError, match="HTTP 503"):
        engine_at(server.server_port, retries=0).aliases()
    assert len(server.requests) == 1


def test_a_switch_that_happened_is_no_failure(server: Failing) -> None:
    """Though its answer was lost; one that did not happen is, by its own error, also when that cannot be looked up."""
    engine = engine_at(server.server_port)
    server.statuses = [200, 500]
    engine.switch({"a": "c"})
    assert server.requests == ["GET /aliases", "POST /collections/aliases", "GET /aliases"]
    for then in (200, 401):
        server.statuses = [200, 500, then]
        with pytest.raises(EngineError, match="could not switch aliases: HTTP 500"):
            engine.switch({"a": "d"})


def test_grpc_comes_back_soon_after_an_outage(server: Failing) -> None:
    """The library's own two minutes between tries to connect are set to seconds, of the client of event loops too."""
    engine = engine_at(server.server_port, grpc_port=6334)
    assert isinstance(engine, ServerEngine)
    assert engine.on_loop is not None
    for client in (engine._client, engine.on_loop._connect()):
        options = vars(client._client)["_grpc_options"]
        assert options["grpc.max_reconnect_backoff_ms"] == 2000
        assert options["grpc.keepalive_time_ms"] == 30_000
    engine.close()


def test_nobody_there() -> None:
    """An address where nothing listens is an error of ours too."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EngineError, match="Connection refused"):
        engine_at(port, retries=1).aliases()


@pytest.mark.parametrize(
    ("code", "requests"), [(grpc.StatusCode.UNAVAILABLE, 3), (grpc.StatusCode.INVALID_ARGUMENT, 1)]
)
def test_the_same_over_grpc(server: Failing, code: grpc.StatusCode, requests: int) -> None:
    """UNAVAILABLE is asked again, INVALID_ARGUMENT is not."""
    calls: list[str] = []
    with grpc_node(calls, code, failures=2) as port:
        engine = engine_at(server.server_port, grpc_port=port)
        if requests == 3:
            assert engine.aliases() == {"a": "c"}
        else:
            with pytest.raises(EngineError, match="INVALID_ARGUMENT not now"):
                engine.aliases()
        assert len(calls) == requests
        engine.close()


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_key_of_a_file_is_sent(server: Failing, tmp_path: Path, end: str) -> None:
    """As it stands there, without the line's end that an editor leaves."""
    path = tmp_path / "api_key"
    path.write_text("a-very-secret-key" + end, newline="")
    calls: list[str] = []
    with grpc_node(calls, grpc.StatusCode.OK, 0) as port:
        assert engine_at(server.server_port, grpc_port=port, api_key_file=str(path)).aliases() == {"a": "c"}
    assert calls == ["a-very-secret-key"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "cannot be read: No such file"),
        (b"", "must hold one key"),
        (b"secret one\nsecret two\n", "must hold one key"),
        ("schlüssel-secret".encode(), "cannot be read: it is not ASCII"),
    ],
)
def test_a_file_that_holds_no_key(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """It is bad input, named, before anything is sent, and what is in it is not shown."""
    path = tmp_path / "api_key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError, match=f"api_key_file {path} {reason}") as caught:
        engine_at(1, api_key_file=str(path))
    assert "secret" not in str(caught.value)
