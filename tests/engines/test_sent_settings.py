"""Settings in the requests that are sent, over HTTP and over gRPC."""

from __future__ import annotations

import asyncio
from concurrent import futures
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
import numpy as np
import pytest
from qdrant_client import grpc as qdrant_grpc
from tests.engines.test_server_client import Failing, engine_at, failing_server

from feast_embeddings.engines.engine import CollectionSpec
from feast_embeddings.engines.server.catalog import spec_of_metadata
from feast_embeddings.engines.server.engine import ServerEngine

server = pytest.fixture(failing_server)


@pytest.mark.parametrize("datatype", ["float32", "float16"])
def test_the_default_datatype_is_not_stored(server: Failing, datatype: str) -> None:
    """Older releases refuse a spec with a field that they do not know; what is stored is read as the same spec."""
    spec = CollectionSpec(alias="a", vectors={}, payload_indexes={})
    engine_at(server.server_port, datatype=datatype).create("c", spec, [], wait_for_indexes=False)
    stored = server.bodies[server.requests.index("PUT /collections/c")]["metadata"]
    more = {} if datatype == "float32" else {"datatype": "float16"}
    assert stored["feast_embeddings"] == {
        "alias": "a",
        "view": "",
        "vectors": {},
        "payload_indexes": {},
        "version": "",
        "space": "",
        "as_of": "",
        "fingerprint": "",
        "verified": True,
        "search_ef": 0,
        "enough_ef": 0,
        **more,
    }
    assert spec_of_metadata(stored) == spec.model_copy(update={"datatype": datatype})


@pytest.mark.parametrize("asked", [2, "majority", "quorum", "all", None])
def test_reads_ask_for_the_consistency_of_the_settings(server: Failing, asked: int | str | None) -> None:
    """Every read over HTTP has it, also on an event loop; a server's default without."""
    engine = engine_at(server.server_port, read_consistency=asked)
    assert isinstance(engine, ServerEngine)
    engine.retrieve("c", [1], vectors=[])
    engine.query("c", "v", np.ones(2, dtype=np.float32), limit=1)
    list(engine.scroll("c", payload=None, vectors=[]))
    on_loop = engine.on_loop
    assert on_loop is not None

    async def retrieve() -> None:
        await on_loop.retrieve("c", [1], vectors=[])
        await on_loop.close()

    asyncio.run(retrieve())
    paths = [request.partition("?")[0] for request in server.requests]
    assert paths == [f"POST /collections/c/points{end}" for end in ("", "/query", "/scroll", "")]
    queries = [parse_qs(urlsplit(request).query).get("consistency") for request in server.requests]
    assert queries == [None if asked is None else [str(asked)]] * 4


@pytest.mark.parametrize(
    ("asked", "sent"),
    [
        (2, qdrant_grpc.ReadConsistency(factor=2)),
        ("majority", qdrant_grpc.ReadConsistency(type=qdrant_grpc.ReadConsistencyType.Majority)),
        ("quorum", qdrant_grpc.ReadConsistency(type=qdrant_grpc.ReadConsistencyType.Quorum)),
        ("all", qdrant_grpc.ReadConsistency(type=qdrant_grpc.ReadConsistencyType.All)),
    ],
)
def test_reads_over_grpc_ask_for_it_too(server: Failing, asked: int | str, sent: qdrant_grpc.ReadConsistency) -> None:
    reads: dict[str, Any] = {
        "Get": (qdrant_grpc.GetPoints, qdrant_grpc.GetResponse),
        "Query": (qdrant_grpc.QueryPoints, qdrant_grpc.QueryResponse),
        "Scroll": (qdrant_grpc.ScrollPoints, qdrant_grpc.ScrollResponse),
    }
    received: dict[str, qdrant_grpc.ReadConsistency] = {}

    def handler(name: str) -> grpc.RpcMethodHandler[Any, Any]:
        request, response = reads[name]

        def answer(asked: Any, context: object) -> Any:
            received[name] = asked.read_consistency
            return response()

        return grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=request.FromString, response_serializer=response.SerializeToString
        )

    with futures.ThreadPoolExecutor(1) as pool:
        node = grpc.server(pool)
        handlers = {name: handler(name) for name in reads}
        node.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("qdrant.Points", handlers)])
        port = node.add_insecure_port("127.0.0.1:0")
        node.start()
        engine = engine_at(server.server_port, grpc_port=port, read_consistency=asked)
        engine.retrieve("c", [1], vectors=[])
        engine.query("c", "v", np.ones(2, dtype=np.float32), limit=1)
        list(engine.scroll("c", payload=None, vectors=[]))
        engine.close()
        node.stop(None)
    assert received == dict.fromkeys(reads, sent)
