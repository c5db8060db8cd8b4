"""The short way to an endpoint against FastAPI's own way."""

from __future__ import annotations

import inspect
import json
from typing import Any

import pytest
from fastapi import APIRouter, Depends, FastAPI, Response
from fastapi.routing import APIRoute
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from feast_embeddings.service import requests
from feast_embeddings.service.calls import Model
from feast_embeddings.service.problems import ProblemError, add_handlers
from feast_embeddings.service.quick_paths import QuickPaths

from .asking import Asking

ASKED = [
    kind
    for _, kind in inspect.getmembers(requests, inspect.isclass)
    if issubclass(kind, requests.Request) and kind is not requests.Request and not kind.__name__.startswith("_")
]
# What fields hold, and what they must not hold: another type that means the same, a number out of range, nothing.
VALUES = st.recursive(
    st.sampled_from(["sku-1", "", "5", "item", "float", "arrow", "a = 'b'", "\ud800", "true", "x" * 1025])
    | st.sampled_from([0, 1, 5, 5.0, 1e2, -1, 2**63, 2**70, True, False, None, float("nan"), float("inf")])
    | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=3) | st.fixed_dictionaries({"item_id": inner}, optional={"weight": inner}),
    max_leaves=4,
)


@given(kind=st.sampled_from(ASKED), data=st.data())
def test_it_reads_what_fastapi_reads(kind: type[requests.Request], data: st.DataObject) -> None:
    """A body that the short way takes, FastAPI's takes for the same; all others go FastAPI's way."""
    required = {name: VALUES for name, field in kind.model_fields.items() if field.is_required()}
    optional = {name: VALUES for name in kind.model_fields if name not in required} | {"other": VALUES}
    body = json.dumps(
        data.draw(st.fixed_dictionaries(required, optional=optional)), ensure_ascii=data.draw(st.booleans())
    )
    adapter = TypeAdapter(kind)
    try:
        quick = adapter.validate_json(body.encode("utf-8", "surrogatepass"))
    except ValidationError:
        return
    assert repr(adapter.validate_python(json.loads(body))) == repr(quick)


async def echo(model: Model, request: requests.RankRequest, accept: str = "") -> Response:
    """An endpoint of the form that the service has."""
    if request.limit == 999:
        raise ProblemError(422, f"limit: {request.limit}")
    return Response(f"{model} {request!r}")


def make(*, quick: bool, **settings: Any) -> Asking:
    router = APIRouter(prefix="/v1/models", **settings)
    router.post("/{model}/rank")(echo)
    app = FastAPI()
    app.include_router(router)
    add_handlers(app)
    if quick:
        app.add_middleware(QuickPaths, router=router, service=app)
    return Asking(app)


JSON = {"content-type": "application/json"}
RIGHT = b'{"user_id": "u-1", "limit": 5}'


@pytest.mark.parametrize(
    ("path", "content", "headers"),
    [
        ("shop/rank", RIGHT, JSON),
        ("sh%20op/rank", RIGHT, JSON),
        ("shop/rank?limit=3", RIGHT, JSON),
        ("shop/rank", RIGHT, {"content-type": "application/json; charset=utf-8"}),
        ("shop/rank", RIGHT, {"content-type": "application/vnd.x+json"}),
        ("shop/rank", '{"user_id": "u-1"}'.encode("utf-16"), JSON),
        ("shop/rank", RIGHT, {"content-type": "text/plain"}),
        ("shop/rank", RIGHT, {}),
        ("shop/rank", b"", JSON),
        ("shop/rank", b"{", JSON),
        ("shop/rank", b"[" * 100_000, JSON),
        ("shop/rank", b'{"user_id": "u-1", "limit": "5"}', JSON),
        ("shop/rank", b'{"user_id": "u-1", "limit": 999}', JSON),
        ("m" * 61 + "/rank", RIGHT, JSON),
        ("/rank", RIGHT, JSON),
        ("a/b/rank", RIGHT, JSON),
        ("shop/rank/", RIGHT, JSON),
        ("shop/rank/rank", RIGHT, JSON),
    ],
)
def test_it_answers_as_fastapi_does(path: str, content: bytes, headers: dict[str, str]) -> None:
    """Status, headers and body are the same for what is right and for what is not."""
    short, usual = (
        make(quick=quick).post(f"/v1/models/{path}", content=content, headers=headers) for quick in (True, False)
    )
    assert (short.status_code, short.headers, short.content) == (usual.status_code, usual.headers, usual.content)


@pytest.mark.parametrize("path", ["/v1/models/shop/rank", "/v1/models", "/rank", "/"])
def test_other_methods_and_paths_are_not_its_own(path: str) -> None:
    """A GET, and a POST elsewhere, are answered as without it."""
    short, usual = make(quick=True), make(quick=False)
    assert short.get(path).status_code == usual.get(path).status_code
    assert short.post(path + "x", {}).status_code == usual.post(path + "x", {}).status_code == 404


def test_it_leaves_no_dependency_out() -> None:
    """A router with dependencies, as Feast's permissions are, goes FastAPI's way."""
    asked = []
    service = make(quick=True, dependencies=[Depends(lambda: asked.append(1))])
    assert service.post("/v1/models/shop/rank", {"user_id": "u-1"}).status_code == 200
    assert asked == [1]


def test_a_right_request_is_not_routed() -> None:
    """FastAPI's routes are looked at only for a request that something is wrong with."""
    looked = []

    class Looking(APIRoute):
        def matches(self, scope: Any) -> Any:
            looked.append(scope["path"])
            return super().matches(scope)

    service = make(quick=True, route_class=Looking)
    assert service.post("/v1/models/shop/rank", {"user_id": "u-1"}).status_code == 200
    assert not looked
    assert service.post("/v1/models/shop/rank", {"user_id": 1.5}).status_code == 422
    assert looked
