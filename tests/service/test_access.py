"""Who may ask the service, how much and how long, and what is written down about it."""

from __future__ import annotations

import json
import logging
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.types import Receive, Scope, Send
from tests.conftest import Command
from tests.support.asking import Asking
from tests.support.serving import service_of
from tests.support.shop import Shop, served_shop

from feast_embeddings.errors import EngineError, InputError
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.service import ServiceSettings
from feast_embeddings.service.api_keys import ENVIRONMENT, KeyRing, new_key
from feast_embeddings.service.server.logs import JsonLines

RANK = "/v1/models/shop/rank"
BODY = {"user_id": "u-1", "limit": 1}


@pytest.fixture(scope="module", params=["embedded"])
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A published shop; tests only read from it."""
    yield from served_shop(request, tmp_path_factory.mktemp("shop"))


Make = Callable[..., Asking]


@pytest.fixture
def make(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Makes services of the shop, with settings by name."""
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    return lambda **settings: Asking(service_of(shop, **settings))


def test_only_valid_keys_are_let_in(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the file and of the environment, several at once, in either header; nothing tells a wrong key from none."""
    (reader, read), (writer, write), (other, third) = (
        new_key("reader", "read"),
        new_key("writer", "write"),
        new_key("other", "read"),
    )
    file = tmp_path / "keys"
    file.write_text(f"# of the shop\n\n{read.line}\n{write.line}\n")
    monkeypatch.setenv(ENVIRONMENT, f"{third.line},")
    service = make(key_file=file)
    for sent in ({}, {"x-api-key": "fe_wrong"}, {"x-api-key": read.digest}, {"authorization": "Bearer "}):
        answer = service.post(RANK, BODY, headers=sent)
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"] == "Bearer"
        assert "results" not in answer.text
    for sent in ({"x-api-key": reader}, {"authorization": f"Bearer {writer}"}, {"authorization": f"Bearer {other}"}):
        assert service.post(RANK, BODY, headers=sent).status_code == 200
    for path, status in [("/healthz", 200), ("/readyz", 200), ("/docs", 200), ("/metrics", 401), ("/v1/models", 401)]:
        assert service.get(path).status_code == status
    publish = "/v1/models/shop/publish"
    assert service.post(publish, {}, headers={"x-api-key": reader}).status_code == 403
    assert service.post(publish, {}, headers={"x-api-key": writer}).json()["changed"] is False


def test_a_key_goes_with_its_line(make: Make, tmp_path: Path) -> None:
    """The file is read again when it changes; one that cannot be used admits no one."""
    (first, kept), (second, added) = new_key("first", "read"), new_key("second", "read")
    file = tmp_path / "keys"
    file.write_text(kept.line)
    service = make(key_file=file)

    def ask(key: str) -> int:
        return service.post(RANK, BODY, headers={"x-api-key": key}).status_code

    assert (ask(first), ask(second)) == (200, 401)
    file.write_text(f"{kept.line}\n{added.line}\n")
    assert (ask(first), ask(second)) == (200, 200)
    file.write_text(added.line)
    assert (ask(first), ask(second)) == (401, 200)
    file.write_text("not a key")
    assert ask(second) == 401
    file.unlink()
    assert ask(second) == 401


def test_keys_are_kept_as_hashes(command: Command, tmp_path: Path) -> None:
    """What is kept lets its key in, and does not hold it; a wrong line is named by number, not shown."""
    made = json.loads(command("api-key", "web", "--scope", "write", "--json").out)
    assert made["key"] not in made["line"]
    file = tmp_path / "keys"
    file.write_text(made["line"])
    found = KeyRing(file).find(made["key"])
    assert found is not None
    assert (found.name, found.scope) == ("web", "write")
    assert KeyRing(file).find(made["key"] + "x") is None
    printed = command("api-key", "web").out
    assert "fe_" in printed
    assert ":read:" in printed
    assert command("api-key", "a b").code == 2
    file.write_text(f"\n{made['key']}\n")
    with pytest.raises(InputError, match="line 2: expected name:scope:hash") as error:
        KeyRing(file)
    assert made["key"] not in str(error.value)
    with pytest.raises(InputError, match="cannot be read: No such file"):
        KeyRing(tmp_path / "nothing")


def test_without_keys_only_this_machine_is_served(
    command: Command, shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address that others reach needs keys; nothing has been started."""
    monkeypatch.delenv(ENVIRONMENT, raising=False)
    monkeypatch.setattr("uvicorn.run", lambda *_, **__: pytest.fail("it was started"))
    for host in ("0.0.0.0", "192.0.2.1", "::", "example.com"):  # noqa: S104
        answer = command("serve", "--repo", shop.repo.path, "--host", host)
        assert answer.code == 2
        assert "API keys are needed" in answer.err


def test_the_log_has_no_keys(make: Make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line of JSON a request, with the name of the key; not the key, nor the query, nor what was asked."""
    key, kept = new_key("web", "read")
    (tmp_path / "keys").write_text(kept.line)
    service = make(key_file=tmp_path / "keys")
    with caplog.at_level(logging.INFO, "feast_embeddings.access"):
        answer = service.post(f"{RANK}?api_key={key}", BODY, headers={"x-api-key": key})
    (record,) = caplog.records
    text = JsonLines().format(record)
    line = json.loads(text)
    assert key not in text
    assert (line["method"], line["path"], line["status"], line["key"]) == ("POST", RANK, 200, "web")
    assert line["request_id"] == answer.headers["x-request-id"]
    caplog.clear()
    with caplog.at_level(logging.INFO):
        make(access_log=False).post(RANK, BODY)
    assert not [record for record in caplog.records if record.name == "feast_embeddings.access"]


TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


@pytest.mark.parametrize(
    ("sent", "kept"),
    [("a-1", True), ("x" * 128, True), ("x" * 129, False), ("", False), ("a b", False), ("a\tb", False), ("ä", False)],
)
def test_a_callers_request_id_is_kept(make: Make, caplog: pytest.LogCaptureFixture, sent: str, kept: bool) -> None:
    """In the answer and in the log, if it is visible ASCII and not too long; else there is a new one."""
    with caplog.at_level(logging.INFO, "feast_embeddings.access"):
        answer = make().post(RANK, BODY, headers={"x-request-id": sent.encode()})
    (record,) = caplog.records
    found = answer.headers["x-request-id"]
    assert json.loads(JsonLines().format(record))["request_id"] == found
    assert (found == sent) == kept
    assert kept or re.fullmatch("[0-9a-f]{32}", found)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        (f"00-{TRACE}-{SPAN}-01", True),
        (f"cc-{TRACE}-{SPAN}-01-more", True),
        (f"00-{TRACE}-{SPAN}-01-more", False),
        (f"ff-{TRACE}-{SPAN}-01", False),
        (f"00-{TRACE.upper()}-{SPAN}-01", False),
        (f"00-{'0' * 32}-{SPAN}-01", False),
        (f"00-{TRACE}-{'0' * 16}-01", False),
        (f"00-{TRACE}-{SPAN}", False),
    ],
)
def test_a_callers_trace_is_in_the_log(make: Make, caplog: pytest.LogCaptureFixture, sent: str, kept: bool) -> None:
    """If it is as W3C Trace Context has it; later versions may have more parts."""
    with caplog.at_level(logging.INFO, "feast_embeddings.access"):
        make().post(RANK, BODY, headers={"traceparent": sent})
    (record,) = caplog.records
    assert json.loads(JsonLines().format(record))["trace_id"] == (TRACE if kept else None)


def test_what_fails_inside_stays_inside(
    make: Make, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The reason is in the log under the request's number, not in the answer."""
    for error, status in [(EngineError("no file /secret/path"), 503), (RuntimeError("a bug at /secret/path"), 500)]:

        def fail(*_: object, error: Exception = error, **__: object) -> None:
            raise error

        with monkeypatch.context() as patch:
            patch.setattr(EmbeddingStore, "rank_batch", fail)
            answer = make().post(RANK, BODY, headers={"x-request-id": "a-1", "traceparent": f"00-{TRACE}-{SPAN}-01"})
        assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json")
        assert "/secret/path" not in answer.text
        lines = [JsonLines().format(record) for record in caplog.records if record.levelno >= logging.ERROR]
        assert "/secret/path" in "".join(lines)
        assert {(line["request_id"], line["trace_id"]) for line in map(json.loads, lines)} == {("a-1", TRACE)}
        assert status == 503 or "logged as request a-1" in answer.json()["detail"]
        caplog.clear()


def test_a_request_has_a_time_limit(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What takes longer is answered with a problem, although the thread is still at it."""
    over = threading.Event()
    monkeypatch.setattr(EmbeddingStore, "rank_batch", lambda *_, **__: over.wait(60))
    try:
        answer = make(time_limit=0.2).post(RANK, BODY)
    finally:
        over.set()
    assert answer.status_code == 504
    assert "too long" in answer.json()["detail"]


def test_browsers_of_other_origins_are_let_in_when_named(make: Make) -> None:
    """No CORS headers by default; with an origin named, for that one."""
    asking = {"origin": "https://shop.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in make().request("OPTIONS", RANK, headers=asking).headers
    service = make(cors_origins=("https://shop.example",))
    answer = service.request("OPTIONS", RANK, headers=asking)
    assert answer.headers["access-control-allow-origin"] == "https://shop.example"
    answer = service.post(RANK, BODY, headers={"origin": "https://shop.example"})
    assert answer.headers["access-control-expose-headers"] == "X-Request-ID"
    answer = service.post(RANK, BODY, headers={"origin": "https://other.example"})
    assert "access-control-allow-origin" not in answer.headers


def test_mounted_on_another_app(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Under its path everything is there, and knows where it is; the other app's paths stay."""
    from fastapi import FastAPI

    from feast_embeddings.service import mount

    monkeypatch.setattr("feast_embeddings.repo.Repo.feature_store", lambda _: shop.feature_store)
    app = FastAPI()
    app.add_api_route("/health", lambda: "here")
    mount(app, shop.repo.path)
    service = Asking(app)
    assert service.get("/health").json() == "here"
    assert service.post(f"/embeddings{RANK}", BODY).json()["results"]
    assert "/embeddings/v1/models" in service.get("/embeddings/docs").text
    assert service.get("/embeddings/readyz").status_code == 200
    assert service.post(RANK, BODY).status_code == 404


def test_sockets_and_lifespans_pass(make: Make) -> None:
    """The gate is for HTTP only."""
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["type"])

    import asyncio

    from feast_embeddings.service.middleware import Gate

    gate = Gate(app, ServiceSettings(repo=Path()))
    none: Any = None
    asyncio.run(gate({"type": "lifespan"}, none, none))
    assert seen == ["lifespan"]
