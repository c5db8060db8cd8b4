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
from feast_embeddings.service.quick_route import QuickRoute

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
    return Response(f"{model} {request!r}")


def make(route_class: type[APIRoute], **settings: Any) -> Asking:
    router = APIRouter(prefix="/v1/models", route_class=route_class, **settings)
    router.post("/{model}/rank")(echo)
    app = FastAPI()
    app.include_router(router)
    return Asking(app)


JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("model", "content", "headers"),
    [
        ("shop", b'{"user_id": "u-1", "limit": 5}', JSON),
        ("shop", b'{"user_id": "u-1"}', {"content-type": "application/json; charset=utf-8"}),
        ("shop", b'{"user_id": "u-1"}', {"content-type": "application/vnd.x+json"}),
        ("shop", '{"user_id": "u-1"}'.encode("utf-16"), JSON),
        ("shop", b'{"user_id": "u-1"}', {"content-type": "text/plain"}),
        ("shop", b'{"user_id": "u-1"}', {}),
        ("shop", b"", JSON),
        ("shop", b"{", JSON),
        ("shop", b"[" * 100_000, JSON),
        ("shop", b'{"user_id": "u-1", "limit": "5"}', JSON),
        ("m" * 61, b'{"user_id": "u-1"}', JSON),
    ],
)
def test_it_answers_as_fastapi_does(model: str, content: bytes, headers: dict[str, str]) -> None:
    """Status and body are the same for what is right and for what is not."""
    path = f"/v1/models/{model}/rank"
    quick, usual = (make(kind).post(path, content=content, headers=headers) for kind in (QuickRoute, APIRoute))
    assert (quick.status_code, quick.content) == (usual.status_code, usual.content)


def test_it_leaves_no_dependency_out() -> None:
    """A router with dependencies, as Feast's permissions are, goes FastAPI's way."""
    asked = []
    service = make(QuickRoute, dependencies=[Depends(lambda: asked.append(1))])
    assert service.post("/v1/models/shop/rank", {"user_id": "u-1"}).status_code == 200
    assert asked == [1]
