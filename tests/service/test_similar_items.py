"""Examples, vectors, versions and fields over HTTP: the answer is the library's, and a wrong field is named."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.asking import Asking
from tests.support.serving import service_of
from tests.support.shop import DIM, Shop

from feast_embeddings.query.store import EmbeddingStore

PATH = "/v1/models/shop/similar_items"


@pytest.fixture(scope="module")
def shop(common_shop: Shop) -> Shop:
    """A published shop; nothing is written to it."""
    return common_shop


@pytest.fixture(scope="module")
def service(shop: Shop) -> Asking:
    return Asking(service_of(shop))


@pytest.mark.parametrize(
    "asked",
    [
        {"positive": ["sku-1", "sku-2", "nothing"], "negative": ["sku-3"]},
        {"positive": ["nothing"]},
        {"vector": [0.5] * DIM},
        {"item_id": "sku-1"},
    ],
    ids=["examples", "unknown", "vector", "item"],
)
def test_is_the_librarys(shop: Shop, service: Asking, asked: dict[str, Any]) -> None:
    store = EmbeddingStore(shop.feature_store, "shop")
    version = store.live_version()
    found = store.similar_items(k=4, filter="price < 30", attributes=["tags", "price"], **asked)
    body = {**asked, "limit": 4, "filter": "price < 30", "fields": ["tags", "price"], "version": version}
    answer = service.post(PATH, body).json()
    assert [row["id"] for row in answer["results"]] == found.ids
    assert [row["metadata"] for row in answer["results"]] == found.attributes
    assert (answer["missing"], answer["version"], answer["space"]) == (found.missing, found.version, found.space)
    assert service.post(PATH, {**asked, "limit": 4, "fields": []}).status_code == 200


@pytest.mark.parametrize(
    ("asked", "field", "text"),
    [
        ({}, "item_id", "give either item_id or positive or vector"),
        ({"item_id": "sku-1", "vector": [1.0] * DIM}, "vector", "give either item_id or positive or vector"),
        ({"item_id": "sku-1", "negative": ["sku-2"]}, "negative", "give it with positive"),
        ({"positive": []}, "positive", "at least 1 item"),
        ({"vector": [1.0] * (DIM + 1)}, "vector", "vector must be 8 numbers, as version"),
        ({"vector": [0.0] * DIM}, "vector", "zeros only"),
        ({"vector": ["1"] * DIM}, "vector.0", "valid number"),
        ({"item_id": "sku-1", "fields": ["colour"]}, "fields", "items have no attribute 'colour'"),
        ({"item_id": "sku-1", "version": "previous"}, "version", "has no previous version on this disk; name one"),
        ({"item_id": "sku-1", "version": "v1"}, "version", "version 'v1' of model 'shop' is not loaded; loaded are: "),
    ],
)
def test_a_wrong_field_is_named(service: Asking, asked: dict[str, Any], field: str, text: str) -> None:
    answer = service.post(PATH, asked)
    assert answer.status_code == 422
    ((named, message),) = [(error["field"], error["message"]) for error in answer.json()["errors"]]
    assert named == field
    assert text in message


@pytest.mark.parametrize("name", ["rank", "users_for_item", "similar_users", "rank/batch", "similar_items/batch"])
def test_every_query_takes_them(shop: Shop, service: Asking, name: str) -> None:
    """Some attributes, and a version by its name; another version is refused."""
    of = {"rank": "user_id", "similar_users": "user_id", "users_for_item": "item_id"}
    named = of.get(name, "user_ids" if name == "rank/batch" else "item_ids")
    id = "u-1" if named.startswith("user") else "sku-1"
    fields = ["title"] if name.startswith(("rank", "similar_items")) else ["country"]
    body = {named: [id] if named.endswith("s") else id, "fields": fields, "limit": 2}
    answer = service.post(f"/v1/models/shop/{name}", {**body, "version": shop.artifact.manifest.version}).json()
    assert answer["version"] == shop.artifact.manifest.version
    for word in ("live", "latest"):
        assert service.post(f"/v1/models/shop/{name}", {**body, "version": word}).json() == answer
    results = answer["results"] if "results" in answer else answer["answers"][0]["results"]
    assert [list(row["metadata"]) for row in results] == [fields] * 2
    refused = service.post(f"/v1/models/shop/{name}", {**body, "version": "v1"})
    assert (refused.status_code, refused.json()["errors"][0]["field"]) == (422, "version")
