"""The endpoints of the service, over the real app and each engine, against the library and numpy."""

from __future__ import annotations

import base64
import io
import json
import shlex
from collections.abc import Iterator
from html import unescape
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pytest
from tests.support.asking import Asking
from tests.support.serving import service_of
from tests.support.shop import ENGINES, Shop, served_shop

from feast_embeddings.query.store import EmbeddingStore

MODEL = "/v1/models/shop"


@pytest.fixture(scope="module", params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A published shop over each engine in turn; tests only read from it."""
    yield from served_shop(request, tmp_path_factory.mktemp("shop"))


@pytest.fixture(scope="module")
def service(shop: Shop) -> Asking:
    """The service of the shop."""
    return Asking(service_of(shop, max_ids=500, max_queries=20, max_limit=100, allow_writes=True))


@pytest.fixture
def store(shop: Shop) -> EmbeddingStore:
    """The library on the same shop."""
    return EmbeddingStore(shop.feature_store, "shop")


def asked(service: Asking, path: str, **body: Any) -> dict[str, Any]:
    """The body of an answer that must be one."""
    answer = service.post(f"{MODEL}/{path}", body)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def problem(answer: httpx.Response, status: int) -> dict[str, Any]:
    """The body of an answer that must be a problem of this status."""
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/problem+json"), answer.text
    found: dict[str, Any] = answer.json()
    assert found["status"] == status
    assert {"type", "title", "detail"} <= found.keys()
    return found


def test_embeddings_are_aligned_and_bit_for_bit(service: Asking, shop: Shop) -> None:
    """Numbers, base64, Arrow and NumPy give the trained float32; unknown ids are there, without a vector."""
    table = shop.artifact.table("user").to_pandas().set_index("user_id")
    expected = np.stack([table.embedding["u-2"], table.embedding["u-0"], table.embedding["u-2"]])
    ids, manifest = ["u-2", "no-user", "u-0", "u-2"], shop.artifact.manifest
    found = asked(service, "create_user_embedding", user_ids=ids)
    assert (found["dim"], found["space"], found["version"]) == (8, manifest.space_id, manifest.version)
    assert found["missing"] == ["no-user"]
    assert [row["id"] for row in found["embeddings"]] == ids
    unknown = found["embeddings"].pop(1)
    assert (unknown["vector"], unknown["event_timestamp"]) == (None, None)
    assert np.array([row["vector"] for row in found["embeddings"]], np.float32).tobytes() == expected.tobytes()
    assert {row["version"] for row in found["embeddings"]} == {manifest.version}
    assert {row["as_of"] for row in found["embeddings"]} == {manifest.as_of.isoformat()}

    rows = asked(service, "create_user_embedding", user_ids=ids, encoding="base64")["embeddings"]
    assert b"".join(base64.b64decode(row["vector"]) for row in rows if row["vector"]) == expected.tobytes()

    for more in ({"headers": {"accept": "application/vnd.apache.arrow.stream"}}, {}):
        body = {"user_ids": ids} | ({} if more else {"encoding": "arrow"})
        answer = service.post(f"{MODEL}/create_user_embedding", body, **more)
        assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
        arrow = pa.ipc.open_stream(answer.content).read_all()
        assert arrow["user_id"].to_pylist() == ids
        assert arrow["embedding"].is_null().to_pylist() == [False, True, False, False]
        vectors = arrow["embedding"].combine_chunks().drop_null().flatten().to_numpy()
        assert vectors.tobytes() == expected.tobytes()
        assert arrow.schema.metadata[b"version"].decode() == manifest.version

    answer = service.post(f"{MODEL}/create_user_embedding", {"user_ids": ids, "encoding": "numpy"})
    matrix = np.load(io.BytesIO(answer.content), allow_pickle=False)
    assert matrix[[0, 2, 3]].tobytes() == expected.tobytes()
    assert np.isnan(matrix[1]).all()
    assert (answer.headers["embedding-version"], answer.headers["embedding-missing"]) == (manifest.version, "1")


def test_items_come_without_their_bias(service: Asking, shop: Shop) -> None:
    """The vector of an item has the model's dimension."""
    expected = np.stack(list(shop.artifact.table("item").to_pandas().embedding[:3]))
    rows = asked(service, "create_item_embedding", item_ids=["sku-0", "sku-1", "sku-2"])["embeddings"]
    assert np.array([row["vector"] for row in rows], np.float32).tobytes() == expected.tobytes()


QUESTIONS: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
    ("similar_items", {"item_id": "sku-3"}, "similar_items_batch", {}),
    ("similar_items", {"item_id": "sku-3", "filter": "price < 20"}, "similar_items_batch", {"filter": "price < 20"}),
    ("similar_users", {"user_id": "u-3"}, "similar_users_batch", {}),
    ("rank", {"user_id": "u-3"}, "rank_batch", {}),
    ("rank", {"user_id": "u-3", "exclude_seen": False}, "rank_batch", {"exclude_seen": False}),
    ("users_for_item", {"item_id": "sku-3"}, "users_for_item_batch", {}),
    ("users_for_item", {"item_id": "sku-3", "exclude_seen": False}, "users_for_item_batch", {"exclude_seen": False}),
    (
        "rank",
        {"user_id": "u-3", "item_ids": ["sku-3", "sku-9"]},
        "rank_batch",
        {"exclude_seen": False, "item_ids": ["sku-3", "sku-9"]},
    ),
]


@pytest.mark.parametrize(("path", "body", "method", "keywords"), QUESTIONS)
def test_answers_are_the_librarys(
    service: Asking, store: EmbeddingStore, path: str, body: dict[str, Any], method: str, keywords: dict[str, Any]
) -> None:
    """Alone and in a batch; ids, scores and attributes are those of the library, an unknown id is no error."""
    (name,) = {"item_id", "user_id"} & body.keys()
    expected = getattr(store, method)([body[name], "no-user"], 7, **keywords)
    found = asked(service, path, limit=7, return_metadata=True, **body)
    results = [
        {"id": id, "score": score, "metadata": attributes}
        for id, score, attributes in zip(
            expected.answers[0].ids, expected.answers[0].scores.tolist(), expected.answers[0].attributes, strict=True
        )
    ]
    assert (found["results"], found["missing"], found["version"]) == (results, [], expected.version)
    bare = [{"id": row["id"], "score": row["score"]} for row in results]
    assert asked(service, path, limit=7, **body)["results"] == bare
    unknown = asked(service, path, **(body | {name: "no-user"}))
    assert (unknown["results"], unknown["missing"]) == ([], ["no-user"])

    shared = {key: value for key, value in body.items() if key != name}
    batch = asked(service, f"{path}/batch", **{f"{name}s": [body[name], "no-user"]}, limit=7, **shared)
    assert batch["answers"] == [
        {"id": body[name], "results": bare, "fallback": None},
        {"id": "no-user", "results": None, "fallback": None},
    ]
    assert batch["missing"] == ["no-user"]


def test_an_audience_like_users(service: Asking, store: EmbeddingStore) -> None:
    """Seeds instead of an item; unknown ones are named."""
    expected = store.lookalike_users(["u-1", "u-2", "no-user"], 5, filter="country = 'NL'")
    body = {"user_ids": ["u-1", "u-2", "no-user"], "limit": 5, "filter": "country = 'NL'"}
    found = asked(service, "users_for_item", **body)
    assert [row["id"] for row in found["results"]] == expected.ids
    assert found["missing"] == ["no-user"]
    for wrong in ({}, {"item_id": "sku-1", "user_ids": ["u-1"]}):
        assert "either item_id or user_ids" in problem(service.post(f"{MODEL}/users_for_item", wrong), 422)["detail"]


def test_a_listing_has_every_match_once(service: Asking, shop: Shop) -> None:
    """Page after page by cursor, with vectors when asked for."""
    items = shop.artifact.table("item").to_pandas().set_index("item_id")
    rows, cursor = [], None
    while True:
        body = {"entity": "item", "filter": "category = 'Books'", "limit": 10, "return_embeddings": True}
        page = asked(service, "retrieve", **body, **({} if cursor is None else {"cursor": cursor}))
        rows += page["rows"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
        assert len(page["rows"]) == 10
    assert sorted(row["id"] for row in rows) == sorted(items.index[items.category == "Books"])
    for row in rows:
        assert row["metadata"]["title"] == items.title[row["id"]]
        assert np.array(row["vector"], np.float32).tobytes() == items.embedding[row["id"]].tobytes()
    bare = asked(service, "retrieve", entity="user", return_metadata=False)
    assert all(row.keys() == {"id", "hidden"} for row in bare["rows"])
    assert len(bare["rows"]) == 20
    for wanted in ({"fields": ["title"]}, {"fields": ["title"], "return_metadata": False}):
        some = asked(service, "retrieve", entity="item", **wanted)["rows"]
        assert [row["metadata"] for row in some] == [{"title": items.title[row["id"]]} for row in some]
    wrong = problem(service.post(f"{MODEL}/retrieve", {"entity": "item", "fields": ["colour"]}), 422)
    assert "items have no attribute 'colour'" in wrong["detail"]


def test_models_and_versions(service: Asking, shop: Shop) -> None:
    """What is served, and what could be."""
    manifest = shop.artifact.manifest
    (model,) = service.get("/v1/models").json()["models"]
    assert model == {
        "name": "shop",
        "live_version": manifest.version,
        "as_of": manifest.as_of.isoformat(),
        "space": manifest.space_id,
    }
    found = service.get(f"{MODEL}/versions").json()
    assert found["live_version"] == manifest.version
    assert [(row["version"], row["live"], row["loaded"]) for row in found["versions"]] == [
        (manifest.version, True, True)
    ]
    training = found["versions"][0]["training"]
    assert (training["trainer"], training["dim"], training["n_users"], training["n_items"]) == ("random", 8, 20, 40)
    assert (training["metrics"], training["evaluated_on"]) == ({}, "")


def test_what_operators_ask(service: Asking, shop: Shop) -> None:
    """Alive, ready, counted; the documentation loads nothing from elsewhere and shows an example of each call."""
    assert service.get("/healthz").json() == {"status": "ok"}
    assert service.get("/readyz").json() == {"status": "ready"}
    asked(service, "similar_items", item_id="nothing")
    metrics = service.get("/metrics").text
    assert f'feast_embeddings_live_version{{model="shop",version="{shop.artifact.manifest.version}"}} 1.0' in metrics
    assert 'feast_embeddings_missing_ids_total{model="shop"}' in metrics
    assert 'feast_embeddings_requests_total{endpoint="/v1/models/{model}/similar_items",status="200"}' in metrics
    assert 'feast_embeddings_as_of_age_seconds{model="shop"}' in metrics
    assert 'feast_embeddings_request_seconds_bucket{endpoint="/v1/models/{model}/similar_items"' in metrics
    page = service.get("/docs").text
    assert "src=" not in page
    assert "https://" not in page
    for path in service.get("/openapi.json").json()["paths"]:
        assert path in page
    examples = [unescape(line) for line in page.splitlines() if " -d " in line]
    sent = [json.loads(shlex.split(line.removesuffix("</pre>"))[-1]) for line in examples]
    assert {"limit": 10, "filter": "category = 'Books' AND price < 20", "item_id": "sku-1"} in sent


@pytest.mark.parametrize(
    ("path", "body", "status", "field"),
    [
        ("similar_items", {}, 422, "item_id"),
        ("similar_items", {"item_id": 7}, 422, "item_id"),
        ("similar_items", {"item_id": True}, 422, "item_id"),
        ("similar_items", {"item_id": "x" * 1025}, 422, "item_id"),
        ("similar_items", {"item_id": "sku-1", "limit": 0}, 422, "limit"),
        ("similar_items", {"item_id": "sku-1", "limit": 101}, 422, "limit"),
        ("similar_items", {"item_id": "sku-1", "limit": "5"}, 422, "limit"),
        ("similar_items", {"item_id": "sku-1", "filter": "colour = 'red'"}, 422, "filter"),
        ("similar_items", {"item_id": "sku-1", "k": 5}, 422, "k"),
        ("rank", {"user_id": "u-1", "item_ids": [1]}, 422, "item_ids"),
        ("rank", {"user_id": 1, "item_ids": ["sku-1"]}, 422, "user_id"),
        ("rank", {"user_id": "u-1", "item_ids": []}, 422, "item_ids"),
        ("rank", {"user_id": "u-1", "exclude_ids": [1]}, 422, "exclude_ids"),
        ("rank", {"user_id": "u-1", "exclude_ids": ["sku-1"] * 501}, 413, "exclude_ids"),
        ("rank", {"user_id": "u-1", "offset": -1}, 422, "offset"),
        ("rank", {"user_id": "u-1", "limit": 51, "offset": 50}, 422, "offset"),
        ("rank", {"user_id": "u-1", "max_per": {"colour": 1}}, 422, "max_per"),
        ("rank", {"user_id": "u-1", "max_per": {"category": 0}}, 422, "max_per"),
        ("rank", {"interactions": [{"item_id": "sku-1"}], "max_per": {"category": 1.5}}, 422, "max_per"),
        ("rank", {"user_id": "u-1", "diversity": 1.1}, 422, "diversity"),
        ("rank/batch", {"user_ids": ["u-1"], "fallback": "newest"}, 422, "fallback"),
        ("rank", {"user_id": "u-1", "boosts": [{"filter": "colour = 1", "weight": 1}]}, 422, "boosts"),
        ("rank", {"user_id": "u-1", "boosts": [{"filter": "price > 1", "weight": 1e7}]}, 422, "boosts"),
        ("rank", {"user_id": "u-1", "boosts": [{"filter": "price > 1", "weight": 1}] * 9}, 422, "boosts"),
        ("similar_users", {"user_id": "u-1", "boosts": [{"filter": "price > 1", "weight": 1}]}, 422, "boosts"),
        ("similar_items", {"item_id": "sku-1", "max_per": {"colour": 1}}, 422, "max_per"),
        ("similar_items", {"item_id": "sku-1", "exclude_ids": [7]}, 422, "exclude_ids"),
        ("users_for_item", {"item_id": "sku-1", "offset": 1}, 422, "offset"),
        ("retrieve", {"entity": "shop"}, 422, "entity"),
        ("retrieve", {"entity": "item", "cursor": "x"}, 422, "cursor"),
        ("rank", {"interactions": []}, 422, "interactions"),
        ("publish", {"version": "x"}, 422, "version"),
        ("create_user_embedding", {"user_ids": ["u"] * 501}, 413, "user_ids"),
        ("create_user_embedding", {"user_ids": ["u"], "encoding": "pickle"}, 422, "encoding"),
        ("rank", {"user_id": "u-1", "item_ids": ["sku-1"] * 501}, 413, "item_ids"),
        ("rank/batch", {"user_ids": ["u"] * 21}, 413, "user_ids"),
    ],
)
def test_bad_input_names_the_field(service: Asking, path: str, body: dict[str, Any], status: int, field: str) -> None:
    """As problem details."""
    found = problem(service.post(f"{MODEL}/{path}", body), status)
    assert {error["field"].split(".")[0] for error in found["errors"]} == {field}
    assert field in found["detail"]


SHAPED: dict[str, Any] = {
    "boosts": [{"filter": "category = 'Books'", "weight": 0.7}, {"filter": "price < 20", "weight": -0.4}],
    "exclude_ids": ["sku-9", "no-item"],
    "offset": 2,
    "max_per": {"category": 4},
    "diversity": 0.3,
    "fallback": "popular",
}


def test_a_shaped_ranking_is_the_librarys(service: Asking, store: EmbeddingStore) -> None:
    """For a user and for a stranger, alone and in a batch; the answer says who got the fallback."""
    users = ["u-3", "stranger"]
    expected = store.rank_batch(users, 5, **SHAPED).answers
    rows = [
        [{"id": id, "score": score} for id, score in zip(answer.ids, answer.scores.tolist(), strict=True)]
        for answer in expected
        if answer is not None
    ]
    assert [len(row) for row in rows] == [5, 5]
    singles = [asked(service, "rank", user_id=user, limit=5, **SHAPED) for user in users]
    assert [single["results"] for single in singles] == rows
    assert [(single["fallback"], single["missing"]) for single in singles] == [(None, []), ("popular", ["stranger"])]
    batch = asked(service, "rank/batch", user_ids=users, limit=5, **SHAPED)
    assert batch["answers"] == [
        {"id": "u-3", "results": rows[0], "fallback": None},
        {"id": "stranger", "results": rows[1], "fallback": "popular"},
    ]
    assert batch["missing"] == ["stranger"]
    shaping = {name: value for name, value in SHAPED.items() if name != "fallback"}
    near = store.similar_items_batch(["sku-3"], 5, **shaping).answers[0]
    liked = store.similar_items(k=5, positive=["sku-3"], **shaping)
    assert near is not None
    assert (
        near.ids
        == liked.ids
        == [row["id"] for row in asked(service, "similar_items", item_id="sku-3", limit=5, **shaping)["results"]]
    )
    assert liked.ids == [
        row["id"] for row in asked(service, "similar_items", positive=["sku-3"], limit=5, **shaping)["results"]
    ]
    alike: dict[str, Any] = {"exclude_ids": ["u-4"], "offset": 1, "max_per": {"country": 2}, "diversity": 0.2}
    alike |= {"boosts": [{"filter": "country = 'DE'", "weight": 0.5}]}
    for name, key, ids in (("similar_users", "user_id", "u-3"), ("similar_users/batch", "user_ids", ["u-3"])):
        answer = asked(service, name, **{key: ids}, limit=5, **alike)
        results = answer["results"] if "results" in answer else answer["answers"][0]["results"]
        assert [row["id"] for row in results] == store.similar_users("u-3", 5, **alike).ids
    unanswered = asked(service, "rank", user_id="stranger", limit=5)
    assert (unanswered["results"], unanswered["fallback"]) == ([], None)


@pytest.mark.parametrize(
    ("path", "body", "fields"),
    [
        ("rank", {"user_id": True}, {"user_id"}),
        ("rank", {"interactions": [{"item_id": "sku-1", "weight": -1}]}, {"interactions.0.weight"}),
        ("rank/batch", {"interactions": [[{"item_id": "sku-1"}], []]}, {"interactions.1"}),
        ("rank/batch", {"user_ids": "u-1"}, {"user_ids"}),
    ],
)
def test_fields_are_named_as_the_request_names_them(
    service: Asking, path: str, body: dict[str, Any], fields: set[str]
) -> None:
    """By their path in the body, and with nothing of the types in which they are checked."""
    found = problem(service.post(f"{MODEL}/{path}", body), 422)
    assert {error["field"] for error in found["errors"]} == fields
    assert "None" not in found["detail"]


def test_other_problems(service: Asking) -> None:
    """Unknown models, paths and methods, what is not JSON, and what is too long."""
    assert "no model 'shoe'" in problem(service.post("/v1/models/shoe/rank", {"user_id": "u-1"}), 404)["detail"]
    problem(service.get("/v1/models/shoe/versions"), 404)
    problem(service.get("/nowhere"), 404)
    problem(service.get(f"{MODEL}/rank"), 405)
    json = {"content-type": "application/json"}
    problem(service.post(f"{MODEL}/rank", content=b"{", headers=json), 400)
    problem(service.post(f"{MODEL}/rank", content=b'{"user_id": "u-1"}'), 415)
    problem(service.post(f"{MODEL}/rank", content=b"[1]", headers=json), 422)
    problem(service.post(f"{MODEL}/rank", content=b'{"user_id": "\\ud800"}', headers=json), 400)
    problem(service.post(f"{MODEL}/rank", content=b" " * 5_000_000, headers=json), 413)

    async def chunks() -> Any:
        for _ in range(50):
            yield b" " * 100_000

    problem(service.post(f"{MODEL}/rank", content=chunks(), headers=json), 413)
