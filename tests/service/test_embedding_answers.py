"""The vectors that the service answers: those of the library, of one state of the collection."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import orjson
import pandas as pd
import pytest
from tests.online.test_late_rows import late_user, push
from tests.support.asking import Asking
from tests.support.publishing import publish_any
from tests.support.serving import service_of
from tests.support.shop import AS_OF, DIM, ENGINES, Shop, served_shop, write_version

from feast_embeddings.arguments import Id
from feast_embeddings.query.store import EmbeddingStore

PATH = "/v1/models/shop/create_user_embedding"


@pytest.fixture(params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """A shop with one version live, on each engine in turn."""
    yield from served_shop(request, tmp_path)


def expected(shop: Shop, ids: Sequence[Id], encoding: str) -> bytes:
    """The answer, from what the library says, written all at once."""
    found = EmbeddingStore(shop.feature_store, "shop").user_embeddings(ids)
    rows = [
        {
            "id": id,
            "vector": None
            if time is None
            else vector
            if encoding == "float"
            else base64.b64encode(vector.tobytes()).decode(),
            "version": found.version,
            "as_of": found.as_of,
            "event_timestamp": None if time is None else time.isoformat(),
        }
        for id, vector, time in zip(found.ids, found.vectors, found.event_timestamps, strict=True)
    ]
    about = {"model": "shop", "version": found.version, "space": found.space, "as_of": found.as_of, "dim": DIM}
    answer = about | {"embeddings": rows, "missing": found.missing}
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY)


def at(number: float) -> datetime:
    """When a number is written: the higher one is the newer one."""
    return AS_OF + timedelta(hours=number)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_an_answer_is_what_the_library_says(shop: Shop, encoding: str) -> None:
    """With unknown ids, and with ids twice."""
    service, ids = Asking(service_of(shop)), ["u-2", "no one", "u-0", "u-2"]
    answer = service.post(PATH, {"user_ids": ids, "encoding": encoding})
    assert answer.content == expected(shop, ids, encoding)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    assert answer.headers["content-length"] == str(len(answer.content))


def test_a_write_and_a_publish_are_seen_by_the_next_request(shop: Shop) -> None:
    """Of a user that was written again, of one that was not there, and of all users of the next version."""
    service, ids = Asking(service_of(shop)), ["u-1", "u-2", "late"]

    def ask() -> bytes:
        content: bytes = service.post(PATH, {"user_ids": ids}).content
        return content

    before = ask()
    push(shop, "u-1", 3, at(3))
    push(shop, "late", 4, at(4))
    written = ask()
    assert before != written == expected(shop, ids, "float")
    assert [row["vector"][0] for row in orjson.loads(written)["embeddings"] if row["id"] != "u-2"] == [3, 4]
    newer = write_version(shop.repo.data, seed=1, as_of=AS_OF + timedelta(days=1))
    publish_any(shop.feature_store, newer)
    published = ask()
    assert published == expected(shop, ids, "float")
    assert orjson.loads(published)["version"] == newer.manifest.version


@pytest.mark.parametrize("shop", ["embedded"], indirect=True)
def test_many_threads_never_see_two_states_in_one_answer(shop: Shop) -> None:
    """Two users who are always written together have the same number in each answer, which never goes back."""
    service = service_of(shop)
    last = 6

    def write(number: float) -> None:
        frame = pd.concat([late_user(shop, user, number, at(number)) for user in ("u-1", "u-2")])
        shop.feature_store.write_to_online_store("shop_user_embeddings", frame)

    def ask() -> list[float]:
        seen: list[float] = []
        while not seen or seen[-1] < last:
            found = orjson.loads(Asking(service).post(PATH, {"user_ids": ["u-1", "u-2"]}).content)
            first, second = (row["vector"][0] for row in found["embeddings"])
            assert first == second
            seen.append(first)
        return seen

    write(0)
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask) for _ in range(4)]
        for number in range(1, last + 1):
            write(number)
        for each in asking:
            seen = each.result()
            assert seen == sorted(seen)
