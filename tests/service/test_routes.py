"""Each route of the service, in each spelling and by each method, asked without a key, with one that may read and with
one that may write; and who may ask where there are no keys."""

from __future__ import annotations

import asyncio
import re
import socket
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import unquote

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import Message
from tests.support.asking import Asking
from tests.support.listening import listening
from tests.support.maps import save_any_map
from tests.support.serving import service_of
from tests.support.shop import Shop

from feast_embeddings.artifact.saved_map import map_path
from feast_embeddings.service.access import GuardedRoute
from feast_embeddings.service.api_keys import ENVIRONMENT, new_key

FILES = ("client/index.js", "drawing/map.js")
OPEN = {"/", "/healthz", "/readyz", "/docs", "/openapi.json", "/page/{path:path}"}
OPEN |= {f"/page/{file.split('/')[0]}/{{path:path}}" for file in FILES}
WRITES = {
    f"/v1/models/{{model}}/{name}"
    for name in ("forget", "hide", "interactions", "items", "publish", "rollback", "unhide", "users")
}
PUBLISH = "/v1/models/shop/publish"
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "post", "PUBLISH"]
BODY = b'{"user_id": "u-1"}'


@pytest.fixture(scope="module")
def shop(common_shop: Shop) -> Iterator[Shop]:
    """A published shop, with a map while these tests run; nothing else is written to it."""
    save_any_map(common_shop.artifact, "item")
    yield common_shop
    map_path(common_shop.artifact.path, "item").unlink()


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What would have been written."""
    calls: list[str] = []
    for name in ("versions_of", "roll_back"):

        def noting(*_: Any, name: str = name) -> None:
            calls.append(name)
            raise RuntimeError(name)

        monkeypatch.setattr(f"feast_embeddings.service.routes.versions.{name}", noting)
    return calls


def spellings(path: str) -> set[str]:
    """Ways to write a path, of which most are other paths."""
    head, _, last = path.rpartition("/")
    encoded = f"{head}/%{ord(last[0]):02x}{last[1:]}" if last else path
    ends = [
        "",
        "/",
        "//",
        "%0a",
        "%0A%0a",
        "%0d",
        "%00",
        "%20",
        "%2f",
        "/.",
        "/x/..",
        ";a=b",
        "?project=x",
        "%3f",
        "\n",
    ]
    return {
        *(path + end for end in ends),
        *(encoded + end for end in ("", "%0a")),
        *(f"/{path}", f"/.{path}", f"/x/..{path}", path.replace("/", "//"), path.replace("/", "%2f")),
        *(f"{head}%2f{last}", f"{head}//{last}", f"{head}/./{last}", f"{head}\\{last}", path.upper(), f"/%0a{path}"),
    }


def statuses(app: FastAPI, asked: list[tuple[str, str, str | None]]) -> list[int]:
    """What each of (method, path as sent, key) gets, straight from the app, as uvicorn would hand it on."""

    async def ask(method: str, sent: str, key: str | None) -> int:
        path, _, query = sent.partition("?")
        headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        headers += [] if key is None else [(b"x-api-key", key.encode())]
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "scheme": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 80),
        }
        found: list[int] = []

        received: list[Message] = [{"type": "http.disconnect"}, {"type": "http.request", "body": BODY}]

        async def receive() -> Message:
            return received.pop() if received else {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == "http.response.start":
                found.append(message["status"])

        await app(scope, receive, send)
        (status,) = found
        return status

    async def all_of_them() -> list[int]:
        return [await ask(*each) for each in asked]

    return asyncio.run(all_of_them())


def routes_of(app: FastAPI) -> list[APIRoute]:
    """Those of the app; there are no others, and none without a guard."""
    routes = [route for route in app.routes if isinstance(route, GuardedRoute)]
    assert len(routes) == len(app.routes)
    return [*routes]


def test_no_spelling_opens_a_route(shop: Shop, written: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is opened by name answers without a key, and only a write key writes."""
    (read, reader), (write, writer) = new_key("reader", "read"), new_key("writer", "write")
    monkeypatch.setenv(ENVIRONMENT, f"{reader.line},{writer.line}")
    app = service_of(shop, access_log=False)
    routes = routes_of(app)
    assert len(routes) > 20
    assert {route.path for route in routes} > OPEN | WRITES
    for route in routes:
        plain = route.path.replace("{model}", "shop").replace("{entity}", "item")
        for file in FILES:
            plain = plain.replace(f"{file.split('/')[0]}/{{path:path}}", file)
        plain = plain.replace("{path:path}", "page.js")
        asked = [(method, spelling) for spelling in sorted(spellings(plain)) for method in METHODS]
        found = {
            key: dict(zip(asked, statuses(app, [(*each, key) for each in asked]), strict=True)) for key in (None, read)
        }
        if route.path not in OPEN:
            assert set(found[None].values()) <= {401, 404, 405}, found[None]
            assert 401 in found[None].values()
        if route.path in WRITES:
            assert set(found[read].values()) <= {403, 404, 405}, found[read]
            assert 403 in found[read].values()
        if route.path not in WRITES:
            method = min(route.methods or ())
            assert found[read][method, plain] not in (401, 403, 404, 405), plain
        # Nothing is a way round: no answer sends the client elsewhere.
        assert not {status for each in found.values() for status in each.values() if 300 <= status < 400}
    assert written == []
    assert statuses(app, [("POST", PUBLISH.replace("publish", name), write) for name in ("rollback", "publish")])
    assert statuses(app, [("POST", PUBLISH + "%0a", write)])


@pytest.mark.parametrize("key", [None, "read", "write"])
def test_a_write_reaches_the_library_with_a_write_key_only(
    shop: Shop, written: list[str], monkeypatch: pytest.MonkeyPatch, key: Any
) -> None:
    """By the plain path and by the one with a line feed at its end, which the routes take for the same."""
    made = new_key("somebody", key or "read")
    app = service_of(shop, made[1])
    sent = made[0] if key else None
    for path in (PUBLISH, f"{PUBLISH}%0a"):
        Asking(app).post(path, {}, headers={"x-api-key": sent} if sent else {})
    assert written == (["versions_of"] * len(written) if key == "write" else [])
    assert bool(written) == (key == "write")


def test_a_route_that_says_nothing_is_closed(shop: Shop) -> None:
    """Also one that is added to the app later."""
    app = service_of(shop, new_key("reader", "read")[1])
    app.add_api_route("/later", lambda: "open")
    assert Asking(app).get("/later").status_code == 401


def test_over_a_socket(shop: Shop, written: list[str]) -> None:
    """As a client sends it: the bytes of a request line."""
    key, kept = new_key("reader", "read")
    app = service_of(shop, kept)
    with listening(app) as address:
        for target in (f"{PUBLISH}%0a", PUBLISH, f"http://x{PUBLISH}%0A", f"{PUBLISH}%0a?x"):
            with socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), timeout=60) as connection:
                head = f"POST {target} HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\nContent-Type: application/json\r\n"
                connection.sendall(f"{head}Content-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode())
                status = int(connection.makefile("rb").readline().split()[1])
            assert status in (400, 403, 404)
    assert written == []


def test_the_scheme_of_a_key_is_of_any_case(shop: Shop) -> None:
    """As RFC 9110 has it."""
    key, kept = new_key("reader", "read")
    service = Asking(service_of(shop, kept))
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert service.get("/v1/models", headers={"authorization": f"{scheme} {key}"}).status_code == 200
    for other in (f"Basic {key}", key, f"Bearer{key}"):
        assert service.get("/v1/models", headers={"authorization": other}).status_code == 401


def test_without_keys_nothing_is_written(shop: Shop, written: list[str]) -> None:
    """Unless the service is told so."""
    for name in ("publish", "rollback"):
        answer = Asking(service_of(shop)).post(f"/v1/models/shop/{name}", {})
        assert (answer.status_code, written) == (403, [])
        assert "scope write" in answer.json()["detail"]
    Asking(service_of(shop, allow_writes=True)).post("/v1/models/shop/rollback", {})
    assert written == ["roll_back"]


def test_a_line_feed_is_part_of_a_path(shop: Shop) -> None:
    """None of the routes leaves one out at the end."""
    app = service_of(shop, allow_writes=True)
    paths = [
        (method, re.sub(r"\{path:path\}", "page.js", route.path).replace("{model}", "shop").replace("{entity}", "item"))
        for route in routes_of(app)
        for method in sorted(route.methods or ())
    ]
    assert {("GET", "/healthz"), ("POST", "/v1/models/shop/rank"), ("GET", "/page/page.js")} < set(paths)
    found = statuses(app, [(method, f"{path}%0a", None) for method, path in paths])
    # An entity with a line feed is none.
    assert found == [422 if path.endswith("/map/item") else 404 for _, path in paths]
    assert statuses(app, [("GET", "/v1/models/shop%0a/versions", None)]) == [404]


@pytest.fixture
def status(shop: Shop) -> Callable[..., int]:
    """What a request with these headers gets, of a service without keys unless one is made."""

    def ask(path: str = "/v1/models", *, settings: dict[str, Any] | None = None, **headers: str) -> int:
        return Asking(service_of(shop, **(settings or {}))).get(path, headers=headers).status_code

    return ask


def test_without_keys_only_this_machine_is_answered(status: Callable[..., int], shop: Shop) -> None:
    """By its names, with any port; not under the name of a page that was given this machine's address."""
    for host in ("localhost", "localhost:8080", "127.0.0.1:1", "[::1]", "[::1]:8080", "LOCALHOST"):
        assert status(host=host) == 200, host
    for host in ("evil.example", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1"):
        for path in ("/v1/models", "/healthz", "/docs", "/nowhere"):
            assert status(path, host=host) == 400, host
    refused = Asking(service_of(shop)).get("/v1/models", headers={"host": "evil.example"})
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["status"] == 400
    assert "--allowed-host" in refused.json()["detail"]
    assert "evil" not in refused.text
    assert status(host="shop.example", settings={"allowed_hosts": ("shop.example",)}) == 200
    assert status(host="localhost", settings={"allowed_hosts": ("shop.example",)}) == 400


def test_without_keys_only_own_pages_ask(status: Callable[..., int]) -> None:
    """A browser says which page a request is from."""
    for origin in ("http://localhost:8080", "https://localhost:8080"):
        assert status(host="localhost:8080", origin=origin) == 200
    for origin in ("http://evil.example", "http://localhost:9", "http://localhost", "null", "http://[", ""):
        assert status(host="localhost:8080", origin=origin) == 403, origin
    shop = "https://shop.example"
    assert status(host="localhost:8080", origin=shop, settings={"cors_origins": (shop,)}) == 200


def test_with_keys_any_name_will_do(shop: Shop) -> None:
    """As behind a proxy; the key is what counts."""
    key, kept = new_key("reader", "read")
    headers = {"x-api-key": key, "host": "shop.example", "origin": "https://page.example"}
    assert Asking(service_of(shop, kept)).get("/v1/models", headers=headers).status_code == 200


def test_pages_name_what_they_may_load(shop: Shop) -> None:
    """The style of the documentation by its hash, which is that of the page."""
    import base64
    import hashlib

    answer = Asking(service_of(shop)).get("/docs")
    style = answer.text.partition("<style>")[2].partition("</style>")[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert f"style-src 'sha256-{digest}';" in policy
    assert answer.headers["x-content-type-options"] == "nosniff"
