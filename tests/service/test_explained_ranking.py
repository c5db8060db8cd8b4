"""`explain` over HTTP and in the client: the reasons of the library; where there can be none, it is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from tests.support.asking import Asking
from tests.support.listening import listening
from tests.support.publishing import publish_any
from tests.support.serving import service_of
from tests.support.shop import Shop, apply
from tests.support.two_tastes import SEEN, train_two_tastes

from feast_embeddings.client import EmbeddingClient
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo

RANK = "/v1/models/shop/rank"
VISIT = [{"item_id": id, "weight": weight} for id, weight in SEEN.items()]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A published shop of als."""
    repo = init_repo(tmp_path_factory.mktemp("trained") / "repo")
    shop = Shop(repo, train_two_tastes(repo.path), apply(repo))
    publish_any(shop.feature_store, shop.artifact)
    return shop


@pytest.fixture(scope="module")
def service(trained: Shop) -> Asking:
    """Its service."""
    return Asking(service_of(trained))


@pytest.fixture(scope="module")
def address(trained: Shop) -> Iterator[str]:
    """Where it listens."""
    with listening(service_of(trained)) as where:
        yield where


def test_reasons_are_the_librarys(service: Asking, address: str, trained: Shop) -> None:
    """For a user and a visitor; nothing more is in the answer, and without `explain` there are none."""
    store = EmbeddingStore(trained.feature_store, "shop")
    with EmbeddingClient(address) as client:
        told = [client.rank("shop", "both", limit=5, explain=True)]
        told.append(client.rank("shop", interactions=SEEN, limit=5, explain=True))
        expected = [store.rank("both", 5, explain=True), store.rank_visitor(SEEN, 5, explain=True)]
        bodies: list[dict[str, Any]] = [{"user_id": "both"}, {"interactions": VISIT}]
        for body, found, decoded in zip(bodies, expected, told, strict=True):
            assert found.because is not None
            assert all(found.because)
            results = service.post(RANK, {**body, "limit": 5, "explain": True}).json()["results"]
            rows = zip(found.ids, found.scores.tolist(), found.because, strict=True)
            assert results == [
                {"id": id, "score": score, "because": [{"id": other, "adds": adds} for other, adds in reasons]}
                for id, score, reasons in rows
            ]
            assert (decoded.ids, decoded.because) == (found.ids, found.because)
        assert client.rank("shop", "both").because is None
    assert service.post(RANK, {"user_id": "nobody-known", "explain": True}).json()["results"] == []


def test_it_is_refused_by_name(service: Asking, common_shop: Shop) -> None:
    """Of many at once, for another question, and by a version that cannot fold in."""
    for path, body in [
        ("rank/batch", {"user_ids": ["both"], "explain": True}),
        ("similar_items", {"item_id": "sku-1", "explain": True}),
        ("rank", {"user_id": "both", "explain": 1}),
    ]:
        answer = service.post(f"/v1/models/shop/{path}", body)
        assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "explain")
    answer = Asking(service_of(common_shop)).post(RANK, {"user_id": "u-1", "explain": True})
    assert answer.status_code == 409
    assert "cannot be folded into the live version" in answer.json()["detail"]
