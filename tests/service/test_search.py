"""Search by text over HTTP: the answers are the library's, and its errors are told without internals."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
from typing import Any

import httpx
import numpy as np
import pytest
from tests.conftest import ROOT, Command
from tests.support.asking import Asking
from tests.support.described_shop import trained
from tests.support.listening import listening
from tests.support.shop import Shop, apply

from feast_embeddings.client import AsyncEmbeddingClient
from feast_embeddings.client.answers import Found, Neighbours
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo
from feast_embeddings.service.app import create_app
from feast_embeddings.service.settings import ServiceSettings

PATH = "/v1/models/shop/search"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A published shop with texts."""
    folder = tmp_path_factory.mktemp("search")
    repo = init_repo(folder / "repo")
    artifact = trained(repo.path, folder / "input", "title:text,price:number")
    shop = Shop(repo, artifact, apply(repo))
    shop.publish()
    return shop


def app_of(shop: Shop) -> Any:
    return create_app(ServiceSettings(repo=shop.repo.path))


@pytest.mark.parametrize(
    ("body", "user"),
    [({}, None), ({"user_id": "u-1"}, "u-1"), ({"filter": "price < 20", "user_id": "stranger"}, "stranger")],
)
def test_answers_are_the_librarys(shop: Shop, body: dict[str, Any], user: str | None) -> None:
    """By HTTP and by the Python client."""
    store, app = EmbeddingStore(shop.feature_store, "shop"), app_of(shop)
    expected = store.search("warm red jacket", user, 7, filter=body.get("filter"))
    rows = zip(expected.ids, expected.scores.tolist(), expected.attributes, expected.places, strict=True)
    answer = Asking(app).post(PATH, {"text": "warm red jacket", "limit": 7, "return_metadata": True, **body})
    assert answer.json() == {
        "model": "shop",
        "version": expected.version,
        "results": [{"id": id, "score": s, "metadata": a, "places": p} for id, s, a, p in rows],
        "missing": ["stranger"] if user == "stranger" else [],
    }

    async def asked() -> Found:
        client = AsyncEmbeddingClient("http://localhost", transport=httpx.ASGITransport(app))
        try:
            return await client.search("shop", "warm red jacket", limit=7, return_metadata=False, **body)
        finally:
            await client.close()

    found = asyncio.run(asked())
    assert (found.ids, found.places, found.metadata) == (expected.ids, expected.places, None)
    assert (found.missing, found.version) == (expected.missing, expected.version)
    np.testing.assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({"text": ""}, 422, "text"),
        ({"text": "?!"}, 422, "text"),
        ({"text": "x" * 1001}, 422, "text"),
        ({"text": 7}, 422, "text"),
        ({}, 422, "text"),
        ({"text": "lamp", "user_id": 7}, 422, "user_id"),
        ({"text": "lamp", "filter": "colour = 'red'"}, 422, "filter"),
        ({"text": "lamp", "limit": 10_000_000}, 422, "limit"),
    ],
)
def test_refused(shop: Shop, body: dict[str, Any], status: int, field: str) -> None:
    """The field at fault is named."""
    answer = Asking(app_of(shop)).post(PATH, body)
    assert (answer.status_code, [error["field"] for error in answer.json()["errors"]]) == (status, [field])


_LISTING = """
import { EmbeddingClient } from %(client)s;
import { Listing } from %(listing)s;
const [, , address, ...texts] = process.argv;
const listing = new Listing(new EmbeddingClient(address), "shop", "item");
const found = [];
for (const text of texts) {
  found.push((await listing.search(text, new AbortController().signal)).rows.map((row) => row.id));
}
console.log(JSON.stringify(found));
"""


def test_the_page_searches_by_words(shop: Shop) -> None:
    """The box finds the id that is typed, then what the library finds, then what only contains the text."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("no node on the PATH")
    store, page = EmbeddingStore(shop.feature_store, "shop"), ROOT / "plugin/feast_embeddings/service/page/listing.js"
    client = ROOT / "clients/js/src/index.js"
    program = _LISTING % {"client": json.dumps(client.as_uri()), "listing": json.dumps(page.as_uri())}
    texts = ["warm red jacket", store.search("warm red jacket").ids[3], "xq", "!?"]
    with listening(app_of(shop)) as address:
        command = [node, "--input-type=module", "-", address, *map(str, texts)]
        done = subprocess.run(command, input=program, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    by_words, by_id, of_none, of_marks = json.loads(done.stdout)
    assert by_words[:20] == store.search("warm red jacket", k=20).ids
    assert len(by_words) == len(set(by_words))
    assert by_id[0] == texts[1]
    assert (of_none, of_marks) == ([], [])


def test_similar_by(shop: Shop, command: Command) -> None:
    """The answers over HTTP, of the Python client and of the command are the library's."""
    store, app = EmbeddingStore(shop.feature_store, "shop"), app_of(shop)
    item = store.search("warm red jacket").ids[0]
    for by in ("content", "behaviour"):
        expected = store.similar_items(item, 5, by=by)
        assert expected.ids != store.similar_items(item, 5).ids or by == "behaviour"
        rows = [{"id": id, "score": score} for id, score in zip(expected.ids, expected.scores.tolist(), strict=True)]
        asked = {"by": by, "limit": 5}
        assert Asking(app).post("/v1/models/shop/similar_items", {"item_id": item, **asked}).json()["results"] == rows
        several = Asking(app).post("/v1/models/shop/similar_items/batch", {"item_ids": [item], **asked}).json()
        assert several["answers"][0]["results"] == rows

        async def found(by: str = by) -> Neighbours:
            client = AsyncEmbeddingClient("http://localhost", transport=httpx.ASGITransport(app))
            try:
                return await client.similar_items("shop", item, by=by, limit=5)
            finally:
                await client.close()

        assert asyncio.run(found()).ids == expected.ids
        told = command("similar-items", item, "--by", by, "-k", 5, "--repo", shop.repo.path, "--json")
        assert [row["item_id"] for row in json.loads(told.out)["neighbours"]] == expected.ids
    answer = Asking(app).post("/v1/models/shop/similar_users", {"user_id": "u-1", "by": "content"})
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "by")
    assert "no content vectors of users" in answer.json()["detail"]


def test_version_that_cannot_be_read(tmp_path_factory: pytest.TempPathFactory) -> None:
    """409, without the names of files."""
    folder = tmp_path_factory.mktemp("damaged")
    repo = init_repo(folder / "repo")
    shop = Shop(repo, trained(repo.path, folder / "input", "title:text"), apply(repo))
    shop.publish()
    (shop.artifact.path / "content.parquet").write_bytes(b"PAR1")
    answer = Asking(app_of(shop)).post(PATH, {"text": "lamp"})
    assert answer.status_code == 409
    version = shop.artifact.manifest.version
    assert answer.json()["detail"] == (
        f"text: the live version {version} cannot be searched by text: its files are damaged; restore them, or publish "
        "another version"
    )
