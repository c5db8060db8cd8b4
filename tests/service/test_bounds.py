"""What a request may cost: the sizes of answers, of heads and of bodies, places, threads and time, and bad values."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from tests.support.asking import Asking
from tests.support.listening import listening
from tests.support.serving import service_of
from tests.support.shop import Shop

from feast_embeddings.errors import EngineError
from feast_embeddings.query.deadline import check_time
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.service.models import Models
from feast_embeddings.service.server import connection

MODEL = "/v1/models/shop"
JSON = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def shop(common_shop: Shop) -> Shop:
    """A published shop; tests only read from it."""
    return common_shop


@pytest.fixture(scope="module")
def service(shop: Shop) -> Asking:
    """Its service, as it is by default."""
    return Asking(service_of(shop, access_log=False))


N = 9_000
NAMES = ", ".join(f'"f{i}": 1' for i in range(N))


@pytest.mark.parametrize(
    ("path", "body", "errors"),
    [
        ("create_item_embedding", json.dumps({"item_ids": [True] * N}), 2),
        ("create_item_embedding", json.dumps({"item_ids": [[]] * N}), 2),
        ("create_item_embedding", json.dumps({"item_ids": ["x" * 1025] * 1000}), 2),
        ("rank", json.dumps({"user_id": "u", "item_ids": [{}] * N}), 2),
        ("rank", json.dumps({"interactions": [{}] * N}), 1),
        ("rank", json.dumps({"user_id": "u", "max_per": {f"a{i}": 0 for i in range(N)}}), 1),
        ("rank/batch", json.dumps({"interactions": [[{}] * 20] * 200}), 1),
        ("users_for_item", json.dumps({"user_ids": [None] * N}), 2),
        ("similar_items", "{" + NAMES + "}", 3),
        ("rank", '{"interactions": [{"item_id": 1, ' + NAMES + "}]}", 3),
        ("similar_items", '{"' + "n" * 1_000_000 + '": 1}', 1),
        ("similar_items", json.dumps({"item_id": {str(i): i for i in range(N)}}), 2),
        ("retrieve", json.dumps({"entity": "x" * 100_000}), 1),
        ("similar_items", json.dumps({"item_id": "sku-1", "filter": "x" * 65_000}), 1),
    ],
)
def test_an_error_is_told_in_few_words(service: Asking, path: str, body: str, errors: int) -> None:
    """However much is wrong, the first few are named."""
    answer = service.post(f"{MODEL}/{path}", content=body, headers=JSON)
    assert answer.status_code == 422
    assert len(answer.json()["errors"]) == errors
    assert len(answer.content) < 5_000


def test_a_batch_has_a_bound(shop: Shop) -> None:
    """By its queries, by ids, and by the results that all of them may have."""
    service = Asking(service_of(shop, max_queries=3, max_results=20, max_ids=4))
    for body, status in [
        ({"item_ids": ["sku-1"] * 2, "limit": 10}, 200),
        ({"item_ids": ["sku-1"] * 2, "limit": 11}, 413),
        ({"item_ids": ["sku-1"] * 3}, 413),
        ({"item_ids": ["sku-1"] * 4, "limit": 1}, 413),
    ]:
        assert service.post(f"{MODEL}/similar_items/batch", body).status_code == status
    for histories, status in [([2, 3], 413), ([3, 1], 422)]:
        body = {"interactions": [[{"item_id": "x", "weight": 0}] * n for n in histories], "limit": 1}
        assert service.post(f"{MODEL}/rank/batch", body).status_code == status


def test_values_are_counted_before_they_are_read(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any kind and wherever they are, but not what is inside a string; the largest requests pass."""
    service = Asking(service_of(shop, max_ids=50, max_queries=20, access_log=False))
    marks = '[{,"\\\\' * 150
    largest = {
        "interactions": [[{"item_id": "sku-1", "weight": 2}] * (16 if n < 2 else 1) for n in range(20)],
        "item_ids": [f"{n},[{{" for n in range(50)],
    }
    for path, body, status in [
        # There is no fold-in for the trainer of this model.
        ("rank/batch", {**largest, "limit": 1, "filter": None, "return_metadata": False, "exclude_seen": True}, 409),
        ("rank", {"user_id": marks}, 200),
        ("rank", {"user_id": "u-1", "filter": f"category = '{marks}'"}, 200),
        ("create_item_embedding", {"item_ids": [marks] * 50}, 200),
    ]:
        assert service.post(f"{MODEL}/{path}", body).status_code == status, path

    read: list[object] = []
    monkeypatch.setattr("feast_embeddings.service.limits.orjson.loads", read.append)
    for path, text in [
        ("create_item_embedding", '{"item_ids": [' + ", ".join([each] * 400) + "]}")
        for each in ("true", "[]", "{}", '""', '"\\\\"', "null", '{"a": "\\""}')
    ] + [
        ("similar_items", "{" + ", ".join(f'"f{n}": 1' for n in range(400)) + "}"),
        ("similar_items", '{"item_id": ' + "[" * 400 + "]" * 400 + "}"),
        ("similar_items", '{"item_id": ' + '{"a": ' * 400 + "1" + "}" * 400 + "}"),
    ]:
        answer = service.post(f"{MODEL}/{path}", content=text, headers=JSON)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (413, "body"), text[:40]
    assert read == []


def cursor(*of: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(of).encode()).decode()


UUID = "00000000-0000-0000-0000-000000000000"
BAD = [
    *(("cursor", f'"{text}"') for text in ("x", "AAAA", "W10", "bnVsbA", "=", "\u00e9", "[" * 1000)),
    *(("cursor", f'"{cursor("v", start)}"') for start in (2**64, -1, 10**300, "x", True, None, 1.5, [UUID], "")),
    ("cursor", f'"{cursor(1, UUID)}"'),
    ("cursor", f'"{cursor("v", UUID)}"'),
    ("cursor", f'"{base64.urlsafe_b64encode(b"[" * 760).decode()}"'),
    *(("filter", f'"price < {text}"') for text in ("1e", "1_", "1e+", "0x", "1.e", "\u00b2", "1e999", "9" * 5000)),
    *(("filter", f'"price = {text}"') for text in ("1e", "-1e", "9" * 5000, "0x1", "1__2", "\u0661")),
    *(("limit", text) for text in (str(2**63), str(2**64), "9" * 100, "-1", "1.5", "1e3", "true", '"1"', "null")),
]


@pytest.mark.parametrize(("field", "value"), BAD, ids=[f"{field}-{value[:12]}" for field, value in BAD])
def test_values_of_no_use_are_named(service: Asking, field: str, value: str) -> None:
    """Whatever they are, the field is to blame, and nothing fails inside."""
    body = f'{{"entity": "item", "{field}": {value}}}'
    answer = service.post(f"{MODEL}/retrieve", content=body.encode(), headers=JSON)
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, field), answer.text


def test_a_filter_may_have_as_many_values_as_a_request_has_ids(service: Asking) -> None:
    """10,000 ids in one IN, within the bound of a body; beyond the filter's own bounds it is a 422."""
    ids = ["sku-1", "sku-2", *(f"{n:036d}" for n in range(9_998))]
    body: dict[str, Any] = {"entity": "item", "filter": f"item_id IN ({', '.join(map(repr, ids))})"}
    answer = service.post(f"{MODEL}/retrieve", body)
    assert sorted(row["id"] for row in answer.json()["rows"]) == ["sku-1", "sku-2"]
    for text in ("price IN (" + "1," * 20_000 + "1)", "price = 1 OR " * 10_000 + "price = 1", "(" * 500_000):
        answer = service.post(f"{MODEL}/retrieve", body | {"filter": text})
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "filter")


@pytest.mark.parametrize("number", ["9" * 400, "9" * 5000, "1e999", "-" + "9" * 5000])
def test_numbers_that_are_no_numbers(service: Asking, number: str) -> None:
    """Not one that JSON readers agree about."""
    for field in ("item_id", "limit"):
        answer = service.post(f"{MODEL}/similar_items", content=f'{{"{field}": {number}}}', headers=JSON)
        assert answer.status_code == 422


def test_no_more_at_once_than_there_are_places(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that are too many hear of it at once, and health does not wait; a place that is free is used again."""
    begun, over = threading.Semaphore(0), threading.Event()

    def wait(*_: Any, **__: Any) -> Any:
        begun.release()
        over.wait(60)
        raise EngineError("it is over")

    monkeypatch.setattr(EmbeddingStore, "rank_batch", wait)
    app = service_of(shop, max_requests=2)

    async def ask() -> tuple[list[int], httpx.Response, int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            one = [asyncio.create_task(http.post(f"{MODEL}/rank", json={"user_id": "u-1"})) for _ in range(2)]
            await asyncio.gather(*(asyncio.to_thread(begun.acquire) for _ in one))
            refused = await http.post(f"{MODEL}/rank", json={"user_id": "u-1"})
            health = await http.get("/healthz")
            over.set()
            return [answer.status_code for answer in await asyncio.gather(*one)], refused, health.status_code

    answered, refused, health = asyncio.run(ask())
    assert (answered, refused.status_code, health) == ([503, 503], 503, 200)
    assert refused.headers["retry-after"] == "1"
    assert "too many requests" in refused.json()["detail"]
    monkeypatch.undo()
    assert Asking(app).post(f"{MODEL}/rank", {"user_id": "u-1"}).status_code == 200


def test_work_ends_with_its_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A query that has begun ends at its next part, so that its thread is free for others."""
    threads, begun, ended = 2, threading.Semaphore(0), threading.Semaphore(0)
    monkeypatch.setattr("os.cpu_count", lambda: threads)

    def work(*_: Any, **__: Any) -> Any:
        begun.release()
        try:
            while True:
                check_time()
        finally:
            ended.release()

    monkeypatch.setattr(EmbeddingStore, "rank_batch", work)
    app = service_of(shop, time_limit=0.5)

    async def ask() -> list[int]:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
            asked = (http.post(f"{MODEL}/rank", json={"user_id": "u-1"}) for _ in range(5 * threads))
            return [answer.status_code for answer in await asyncio.gather(*asked)]

    assert set(asyncio.run(ask())) == {504}
    monkeypatch.undo()
    # The threads are free again: this one is answered.
    assert Asking(app).post(f"{MODEL}/rank", {"user_id": "u-1"}).status_code in (200, 504)
    n = sum(begun.acquire(blocking=False) for _ in range(5 * threads))
    assert n >= threads
    assert [ended.acquire(timeout=60) for _ in range(n)] == [True] * n


@contextmanager
def connected(shop: Shop) -> Iterator[socket.socket]:
    """A connection to the service on a socket, which has to end by itself."""
    with (
        listening(service_of(shop)) as address,
        socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=60) as made,
    ):
        yield made


def ends(connection: socket.socket) -> bytes:
    """What comes until the service closes the connection."""
    got = b""
    try:
        while part := connection.recv(65_536):
            got += part
    except ConnectionResetError:
        pass
    return got


@pytest.mark.parametrize("sent", [b"", b"G", b"POST /v1/models/shop/rank HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_head_has_to_come_in_time(shop: Shop, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    """Also the first one of a connection, and one of which the half came."""
    monkeypatch.setattr(connection, "LOOK_SECONDS", 0.2)
    with connected(shop) as made:
        made.sendall(sent)
        assert ends(made) == b""


def test_a_connection_in_use_stays(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is worked on is not ended by the look at connections."""
    looks = threading.Semaphore(0)
    look = connection.BoundedConnection._look

    def looking(self: connection.BoundedConnection) -> None:
        look(self)
        looks.release()

    def slow(*_: Any, **__: Any) -> Any:
        assert all(looks.acquire(timeout=60) for _ in range(5))
        raise EngineError("it is over")

    monkeypatch.setattr(connection, "LOOK_SECONDS", 0.05)
    monkeypatch.setattr(connection.BoundedConnection, "_look", looking)
    monkeypatch.setattr(EmbeddingStore, "rank_batch", slow)
    with listening(service_of(shop)) as address:
        assert httpx.post(f"{address}{MODEL}/rank", json={"user_id": "u-1"}, timeout=60).status_code == 503


@pytest.mark.parametrize("endless", [b"x" * 10_000, b"X: x\r\n" * 1_000])
def test_a_head_has_a_bound(shop: Shop, endless: bytes) -> None:
    """One header without an end, and headers without one."""
    with connected(shop) as made:
        made.sendall(b"POST /v1/models/shop/rank HTTP/1.1\r\nHost: localhost\r\nX: ")
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            made.sendall(endless * 10_000)


@pytest.mark.parametrize("in_parts", [False, True])
@pytest.mark.parametrize(("size", "status"), [(20_000, 200), (40_000, 400)])
def test_a_whole_head_has_the_same_bound(shop: Shop, size: int, status: int, in_parts: bool) -> None:
    """In one packet or several, and the next head of the connection is counted from 0."""
    head = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * size + b"\r\n"
    with connected(shop) as made:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for end in (b"\r\n", b"Connection: close\r\n\r\n"):
            for part in (head[: size // 2], head[size // 2 :], end) if in_parts else (head + end,):
                made.sendall(part)
            if status == 400:
                break
        answers = ends(made)
    assert answers.count(b"HTTP/1.1 %d " % status) == (2 if status == 200 else 1)
    assert answers.count(b"HTTP/1.1 ") == (2 if status == 200 else 1)
    assert (b"at most 32,768 bytes" in answers or b"Invalid HTTP request" in answers) == (status == 400)


@pytest.mark.parametrize(
    "head",
    [
        b"POST /v1/models/shop/rank HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /v1/models/shop/rank HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n{}",
        b"POST /v1/models/shop/rank HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"no request\r\n\r\n",
    ],
    ids=["no host", "two lengths", "negative length", "no request"],
)
def test_what_is_no_request_gets_400(shop: Shop, head: bytes) -> None:
    """Also where two readers could see two different requests."""
    with connected(shop) as made:
        made.sendall(head)
        made.shutdown(socket.SHUT_WR)
        assert ends(made).startswith(b"HTTP/1.1 400 ")


def test_readyz_says_what_is_wrong(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store, the registry, or that nothing is live; and without the registry it goes on with what it knows."""
    app = service_of(shop)
    service = Asking(app)

    def fail(*_: Any) -> Any:
        raise EngineError("no route to /secret")

    with monkeypatch.context() as patch:
        patch.setattr(Models, "_registered", fail)
        answer = service.get("/readyz")
        assert (answer.status_code, "feature views" in answer.json()["detail"]) == (503, True)
    service = Asking(service_of(shop))
    assert service.get("/readyz").status_code == 200
    monkeypatch.setattr(Models, "_registered", fail)
    monkeypatch.setattr("feast_embeddings.service.models._LIST_SECONDS", 0)
    assert service.get("/readyz").status_code == 200
    assert [model["name"] for model in service.get("/v1/models").json()["models"]] == ["shop"]
    assert service.post(f"{MODEL}/similar_items", {"item_id": "sku-1"}).json()["results"]
    monkeypatch.setattr(EmbeddingStore, "live", fail)
    answer = service.get("/readyz")
    assert (answer.status_code, answer.json()["detail"]) == (503, "the vector store cannot be reached")
