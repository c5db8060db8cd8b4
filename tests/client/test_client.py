"""The Python clients against the real service on a real socket, and their conduct when it fails."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import numpy as np
import pytest
from tests.support.listening import listening
from tests.support.serving import service_of
from tests.support.shop import Shop

from feast_embeddings.client import AsyncEmbeddingClient, EmbeddingClient, EmbeddingServiceError, calls
from feast_embeddings.errors import InputError
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.service.api_keys import new_key


@pytest.fixture(scope="module")
def shop(common_shop: Shop) -> Shop:
    """A published shop; tests only read from it."""
    return common_shop


@pytest.fixture(scope="module")
def store(shop: Shop) -> EmbeddingStore:
    """The library on the same shop."""
    return EmbeddingStore(shop.feature_store, "shop")


KEY, KEPT = new_key("test", "write")


@pytest.fixture(scope="module")
def address(shop: Shop) -> Iterator[str]:
    """Where the service of the shop listens, for those with the key."""
    with listening(service_of(shop, KEPT)) as where:
        yield where


def test_vectors_are_the_trained_ones(address: str, store: EmbeddingStore) -> None:
    """Bit for bit, aligned, NaN where there is none; ids may be NumPy's."""
    with EmbeddingClient(address, api_key=KEY) as client:
        for ids, ask, expected in [
            (["u-2", "no-user", "u-2"], client.create_user_embedding, store.user_embeddings),
            (["sku-2", "nothing"], client.create_item_embedding, store.item_embeddings),
        ]:
            found, library = ask("shop", list(np.array(ids))), expected(ids)
            assert found.vectors.dtype == np.float32
            assert found.vectors.tobytes() == library.vectors.tobytes()
            assert (found.ids, found.missing, found.found.tolist()) == (ids, library.missing, library.found.tolist())
            assert (found.version, found.space, found.as_of) == (library.version, library.space, library.as_of)


def test_lists_of_ids_are_lists(address: str) -> None:
    """Of a generator all ids are sent; one id, as text or bytes, where a list is expected is refused before."""
    with EmbeddingClient(address, api_key=KEY) as client:
        assert client.create_user_embedding("shop", (f"u-{i}" for i in range(3))).ids == ["u-0", "u-1", "u-2"]
        asks: list[Callable[[Any], Any]] = [
            lambda ids: client.create_user_embedding("shop", ids),
            lambda ids: client.create_item_embedding("shop", ids),
            lambda ids: client.similar_items_batch("shop", ids),
            lambda ids: client.similar_users_batch("shop", ids),
            lambda ids: client.rank_batch("shop", ids),
            lambda ids: client.rank("shop", "u-1", item_ids=ids),
            lambda ids: client.rank("shop", interactions=ids),
            lambda ids: client.rank_batch("shop", interactions=[ids]),
            lambda ids: client.users_for_item_batch("shop", ids),
            lambda ids: client.lookalike_users("shop", ids),
        ]
        for ask in asks:
            for wrong in ("u-0", b"u-0", 7):
                with pytest.raises(InputError, match="takes a list of ids, got"):
                    ask(wrong)


def test_every_endpoint_has_a_method(address: str, store: EmbeddingStore) -> None:
    """All that the service documents can be asked, by both clients, with the library's answers."""
    asked: set[str] = set()

    class Recording(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            asked.add(request.url.path.replace("/shop", "/{model}").replace("/map/item", "/map/{entity}"))
            return super().handle_request(request)

    with EmbeddingClient(address, api_key=KEY, transport=Recording()) as client:
        similar = client.similar_items("shop", "sku-1", limit=5, filter="price < 20", return_metadata=True)
        library = store.similar_items("sku-1", 5, filter="price < 20")
        assert (similar.ids, similar.metadata) == (library.ids, library.attributes)
        assert similar.scores.tobytes() == library.scores.tobytes()
        assert client.similar_users("shop", "u-1").ids == store.similar_users("u-1").ids
        assert client.rank("shop", "u-1", limit=3).ids == store.rank("u-1", 3).ids
        assert client.rank("shop", "u-1", item_ids=["sku-1", "x"]).missing == ["x"]
        assert client.users_for_item("shop", "sku-1", limit=3).ids == store.users_for_item("sku-1", 3).ids
        assert client.lookalike_users("shop", ["u-1"], limit=3).ids == store.lookalike_users(["u-1"], 3).ids
        for batch in (client.similar_items_batch, client.users_for_item_batch):
            found = batch("shop", ["sku-1", "nothing"], limit=3)
            assert found.missing == ["nothing"]
            assert found.answers[1] is None
        assert client.similar_items_batch("shop", ["sku-1"]).answers[0] is not None
        for of_users in (client.similar_users_batch, client.rank_batch):
            assert [answer is None for answer in of_users("shop", ["u-1", "x"], limit=3).answers] == [False, True]
        page = client.retrieve("shop", "item", limit=30, return_embeddings=True)
        rest = client.retrieve("shop", "item", limit=30, cursor=page.next_cursor)
        assert page.vectors is not None
        assert page.vectors.shape == (30, 8)
        assert (len({*page.ids, *rest.ids}), rest.next_cursor, rest.vectors) == (40, None, None)
        assert client.retrieve("shop", "user", return_metadata=False).metadata is None
        assert client.retrieve("shop", "item", limit=1, fields=["title"]).metadata == [
            {"title": store.page("item", 1).attributes[0]["title"]}
        ]
        assert client.models()[0]["live_version"] == client.versions("shop")[0]["version"] == store.live_version()
        with pytest.raises(EmbeddingServiceError, match="run feast-embeddings map --entity item --save"):
            client.map("shop", "item")
        assert client.publish("shop")["changed"] is False
        with pytest.raises(EmbeddingServiceError, match="no version of model 'shop' before the live one"):
            client.rollback("shop")
        event = {"user_id": "u-1", "item_id": "sku-1", "timestamp": datetime(2020, 1, 1, tzinfo=UTC)}
        assert client.add_interactions("shop", [event, event]) == 2
        with pytest.raises(EmbeddingServiceError, match="was trained without content"):
            client.add_items("shop", {"sku-new": {"title": "new"}})
        done = {"model": "shop", "version": store.live_version(), "users": 0, "items": 0, "n_unknown": 1}
        assert client.set_item_attributes("shop", {"none": {"price": 9.5}}) == {**done, "unknown": ["none"]}
        assert client.set_user_attributes("shop", {"no-one": {"country": None}}) == {**done, "unknown": ["no-one"]}
        with pytest.raises(EmbeddingServiceError, match="attribute 'price' has to be a number or null, got 'cheap'"):
            client.set_item_attributes("shop", {"sku-1": {"price": "cheap"}})
        assert client.forget("shop", user_ids=["no-one"]) == {
            "model": "shop",
            "versions": [],
            "collections": [],
            "points": 0,
            "lists": 0,
            "events": 0,
        }
        changed = {"model": "shop", "users": 0, "items": 1, "n_unknown": 1, "unknown": ["none"]}
        (best,) = client.similar_items("shop", "sku-1", limit=1).ids
        assert client.hide("shop", item_ids=[best, "none"]) == {**changed, "items": 2}
        assert client.similar_items("shop", "sku-1", limit=1).ids != [best]
        rows = client.retrieve("shop", "item", limit=100)
        assert [id for id, hidden in zip(rows.ids, rows.hidden, strict=True) if hidden] == [best]
        client.unhide("shop", item_ids=[best])
        assert client.unhide("shop", item_ids=[best, "none"]) == changed
        assert client.similar_items("shop", "sku-1", limit=1).ids == [best]
        with pytest.raises(EmbeddingServiceError, match="was trained without content"):
            client.search("shop", "red lamp", user_id="u-1")
        client.create_user_embedding("shop", ["u-1"])
        client.create_item_embedding("shop", ["sku-1"])
    documented = httpx.get(f"{address}/openapi.json").json()["paths"]
    assert asked == {path for path in documented if path.startswith("/v1/")}
    public = {name for name, made in vars(calls).items() if getattr(made, "__module__", "") == calls.__name__}
    public = {name for name in public if name[0].islower()}
    for client_class in (EmbeddingClient, AsyncEmbeddingClient):
        assert {name for name in vars(client_class) if not name.startswith("_")} - {"close"} == public


def test_examples_vectors_versions_and_fields(address: str, store: EmbeddingStore) -> None:
    """As the library has them; a missing example is named, and so is a wrong field."""
    version = store.live_version()
    with EmbeddingClient(address, api_key=KEY) as client:
        found = client.similar_items(
            "shop", positive=["sku-1", "x"], negative=["sku-2"], limit=5, fields=["price"], version=version
        )
        expected = store.similar_items(k=5, positive=["sku-1", "x"], negative=["sku-2"], attributes=["price"])
        assert (found.ids, found.metadata, found.missing) == (expected.ids, expected.attributes, ["x"])
        assert (found.version, found.space) == (version, expected.space)
        vector = store.item_embeddings(["sku-7"]).vectors[0]
        assert client.similar_items("shop", vector=vector, limit=1).ids == ["sku-7"]
        batch = client.similar_items_batch("shop", ["sku-1"], fields=["title"]).answers[0]
        assert batch is not None
        assert batch.metadata is not None
        assert list(batch.metadata[0]) == ["title"]
        for wrong, field in (({"vector": [1.0]}, "vector"), ({"item_id": "sku-1", "version": "v1"}, "version")):
            with pytest.raises(EmbeddingServiceError) as refused:
                client.similar_items("shop", **wrong)
            assert list(refused.value.errors) == [field]


def test_a_shaped_ranking_is_the_librarys(address: str, store: EmbeddingStore) -> None:
    """All options, for a user and for a stranger; the answer says who got the fallback."""
    options: dict[str, Any] = {"exclude_ids": ["sku-9"], "offset": 2, "max_per": {"category": 4}, "diversity": 0.3}
    options |= {"boosts": [{"filter": "category = 'Books'", "weight": 0.7}]}
    expected = store.rank_batch(["u-3", "stranger"], 5, fallback="popular", **options).answers
    with EmbeddingClient(address, api_key=KEY) as client:
        batch = client.rank_batch("shop", ["u-3", "stranger"], limit=5, fallback="popular", **options)
        singles = [client.rank("shop", id, limit=5, fallback="popular", **options) for id in batch.ids]
        assert (batch.missing, singles[1].missing) == (["stranger"], ["stranger"])
        for found in (batch.answers, singles):
            assert [one and one.ids for one in found] == [one and one.ids for one in expected]
            assert [one and one.fallback for one in found] == [None, "popular"]
        with pytest.raises(EmbeddingServiceError, match="items have no attribute 'colour'") as refused:
            client.rank("shop", "u-3", max_per={"colour": 1})
        near = store.similar_items("sku-3", 5, **options).ids
        (answer,) = client.similar_items_batch("shop", ["sku-3"], limit=5, **options).answers
        assert client.similar_items("shop", "sku-3", limit=5, **options).ids == near == (answer and answer.ids)
        alike: dict[str, Any] = {"exclude_ids": ["u-4"], "offset": 1, "max_per": {"country": 2}, "diversity": 0.2}
        alike |= {"boosts": [{"filter": "country = 'DE'", "weight": 0.5}]}
        like = store.similar_users("u-3", 5, **alike).ids
        (answer,) = client.similar_users_batch("shop", ["u-3"], limit=5, **alike).answers
        assert client.similar_users("shop", "u-3", limit=5, **alike).ids == like == (answer and answer.ids)
        assert list(refused.value.errors) == ["max_per"]


def test_the_same_to_be_awaited(address: str, store: EmbeddingStore) -> None:
    """Many at once over one client."""

    async def ask() -> list[list[Any]]:
        async with AsyncEmbeddingClient(address, api_key=KEY) as client:
            found = await asyncio.gather(*(client.rank("shop", f"u-{i}", limit=4) for i in range(20)))
            with pytest.raises(EmbeddingServiceError, match="no model 'shoe'"):
                await client.rank("shoe", "u-1")
            return [one.ids for one in found]

    assert asyncio.run(ask()) == [store.rank(f"u-{i}", 4).ids for i in range(20)]


def test_refusals_are_errors_that_name_the_field(address: str) -> None:
    """With the status; the key is in no message and no repr."""
    with EmbeddingClient(address, api_key=KEY) as client:
        with pytest.raises(EmbeddingServiceError, match="there is no feature 'colour'") as error:
            client.similar_items("shop", "sku-1", filter="colour = 'red'")
        assert (error.value.status, set(error.value.errors)) == (422, {"filter"})
        assert KEY not in repr(client)
    with EmbeddingClient(address, api_key=f"{KEY}x") as client:
        with pytest.raises(EmbeddingServiceError, match="valid API key") as error:
            client.models()
        assert error.value.status == 401
        assert KEY not in str(error.value)


@pytest.mark.parametrize(
    ("failures", "tries", "message"),
    [
        ([503, 429], 3, None),
        ([httpx.ConnectError("refused"), 502], 3, None),
        ([503] * 9, 4, "HTTP 503"),
        ([httpx.ConnectError("refused")] * 9, 4, "did not answer: refused"),
        ([504], 1, "HTTP 504"),
        ([500], 1, "HTTP 500"),
        ([httpx.ReadTimeout("slow")], 1, "did not answer: slow"),
    ],
)
def test_only_what_may_pass_is_asked_again(
    failures: list[Any], tries: int, message: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By both clients, at most as often as `retries` says."""
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    monkeypatch.setattr("feast_embeddings.client.http._FIRST_WAIT", 0)
    left, seen = list(failures), list[str]()

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        failure = left.pop(0) if left else 200
        if isinstance(failure, Exception):
            raise failure
        return httpx.Response(failure, json={"models": []} if failure == 200 else None)

    transport = httpx.MockTransport(answer)

    async def awaited() -> object:
        async with AsyncEmbeddingClient("http://service", transport=transport) as client:
            return await client.models()

    def waited() -> object:
        with EmbeddingClient("http://service", transport=transport) as client:
            return client.models()

    for ask in (waited, lambda: asyncio.run(awaited())):
        left[:], seen[:] = failures, []
        if message is None:
            assert ask() == []
        else:
            with pytest.raises(EmbeddingServiceError, match=message):
                ask()
        assert len(seen) == tries


def test_a_rollback_is_not_asked_again() -> None:
    """The service may have gone back already, and would go back once more."""
    seen: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.url.path)
        return httpx.Response(503)

    transport = httpx.MockTransport(answer)
    with EmbeddingClient("http://service", transport=transport) as client, pytest.raises(EmbeddingServiceError):
        client.rollback("shop")

    async def awaited() -> None:
        async with AsyncEmbeddingClient("http://service", transport=transport) as client:
            await client.rollback("shop")

    with pytest.raises(EmbeddingServiceError, match="503"):
        asyncio.run(awaited())
    assert seen == ["/v1/models/shop/rollback"] * 2


def test_headers_of_the_caller(address: str) -> None:
    """Asked for with each request; the error has the id that the service logged."""
    ids = iter(["a-1", "a-2", "a-3", "é"])
    with EmbeddingClient(address, headers=lambda: {"X-Request-ID": next(ids)}) as client:
        for expected in ("a-1", "a-2"):
            with pytest.raises(EmbeddingServiceError, match="401") as error:
                client.models()
            assert error.value.request_id == expected

    async def awaited() -> None:
        async with AsyncEmbeddingClient(address, headers=lambda: {"X-Request-ID": next(ids)}) as client:
            with pytest.raises(EmbeddingServiceError) as error:
                await client.models()
            assert error.value.request_id == "a-3"
            with pytest.raises(InputError, match="X-Request-ID must be printable ASCII"):
                await client.models()

    asyncio.run(awaited())
