"""Set attributes over HTTP: the next answer has them, with a key that may write, and nothing is half set."""

from __future__ import annotations

from typing import Any

import pytest
from tests.support.asking import Asking
from tests.support.serving import service_of
from tests.support.shop import Shop

from feast_embeddings.service.api_keys import new_key

ITEMS, USERS = "/v1/models/shop/items", "/v1/models/shop/users"


@pytest.fixture
def asking(shop: Shop) -> tuple[Asking, dict[str, str]]:
    shop.publish()
    key, kept = new_key("shop", "write")
    return Asking(service_of(shop, kept)), {"x-api-key": key}


def change(id: str, **attributes: Any) -> dict[str, Any]:
    return {"item_id": id, "metadata": attributes}


def test_the_next_answer_has_the_values(asking: tuple[Asking, dict[str, str]]) -> None:
    service, headers = asking

    def similar(filter: str) -> list[tuple[str, Any]]:
        body = {"item_id": "sku-1", "filter": filter, "return_metadata": True}
        results = service.post("/v1/models/shop/similar_items", body, headers=headers).json()["results"]
        return [(result["id"], result["metadata"]) for result in results]

    assert similar("price = 9.5") == []
    body = {"items": [change("sku-7", price=9.5, tags=["a"]), change("sku-8", title=None), change("none", price=1)]}
    answer = service.request("PATCH", ITEMS, json=body, headers=headers)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    assert found.pop("version")
    assert found == {"model": "shop", "users": 0, "items": 2, "n_unknown": 1, "unknown": ["none"]}
    ((id, attributes),) = similar("price = 9.5")
    assert (id, attributes["price"], attributes["tags"], attributes["title"]) == ("sku-7", 9.5, ["a"], "Item 7")
    assert [id for id, _ in similar("title IS NULL")] == ["sku-8"]
    body = {"users": [{"user_id": "u-3", "metadata": {"country": "FR"}}]}
    assert service.request("PATCH", USERS, json=body, headers=headers).json()["users"] == 1
    asked = {"entity": "user", "filter": "country = 'FR'"}
    rows = service.post("/v1/models/shop/retrieve", asked, headers=headers).json()["rows"]
    assert [row["id"] for row in rows] == ["u-3"]


@pytest.mark.parametrize(
    ("items", "text"),
    [
        ([change("sku-7", price=9.5), change("sku-8", price="9.5")], "attribute 'price' has to be a number or null"),
        ([change("sku-7", price=9.5), change("sku-8", prise=9.5)], "items have no attribute 'prise' to set"),
        ([change("sku-7", price=9.5), change("sku-7", price=9.5)], "items has an id twice"),
        ([change("sku-7")], "metadata"),
        ([], "items"),
    ],
)
def test_what_is_wrong_changes_nothing(
    asking: tuple[Asking, dict[str, str]], items: list[dict[str, Any]], text: str
) -> None:
    service, headers = asking
    answer = service.request("PATCH", ITEMS, json={"items": items}, headers=headers)
    assert answer.status_code == 422
    assert text in answer.text
    rows = service.post("/v1/models/shop/retrieve", {"entity": "item", "filter": "price = 9.5"}, headers=headers)
    assert rows.json()["rows"] == []


def test_a_body_that_is_too_large(shop: Shop) -> None:
    """The limits hold for PATCH as for POST."""
    shop.publish()
    service = Asking(service_of(shop, allow_writes=True, max_body=1024))
    body = {"items": [change("sku-7", title="x" * 2000)]}
    assert service.request("PATCH", ITEMS, json=body).status_code == 413
