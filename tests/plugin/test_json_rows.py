"""Rows that the service keeps: the same bytes as those that it writes anew, and never those of before a write."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import orjson
import pandas as pd
import pytest

from feast_embeddings.arguments import Id
from feast_embeddings.errors import IdTypeError
from feast_embeddings.query.side import LiveSide
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.service.json_rows import JsonRows

from .asking import Asking
from .conftest import AS_OF, DIM, ENGINES, Shop, served_shop, write_version
from .publishing import publish_any
from .serving import service_of
from .test_late_rows import late_user, push

PATH = "/v1/models/shop/create_user_embedding"
USERS = [f"u-{number}" for number in range(20)]
# After so many requests all that were asked for are kept.
ENOUGH = 8


@pytest.fixture(params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """A shop with one version live, on each engine in turn."""
    yield from served_shop(request, tmp_path)


@pytest.fixture
def embedded(common_shop: Shop) -> LiveSide:
    """The live users of a shop in this process, not to be written to."""
    return EmbeddingStore(common_shop.feature_store, "shop").live().side("user")


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


def first_numbers(rows: list[bytes | None]) -> list[float | None]:
    return [None if row is None else orjson.loads(row)["vector"][0] for row in rows]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[list[Id]]:
    """The ids of each read of points."""
    asked: list[list[Id]] = []
    points = LiveSide.points

    def noting(side: LiveSide, ids: Sequence[Id], *more: Any) -> Any:
        asked.append(list(ids))
        return points(side, ids, *more)

    monkeypatch.setattr(LiveSide, "points", noting)
    return asked


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_an_answer_is_the_same_bytes_kept_or_not(shop: Shop, encoding: str) -> None:
    """However often it is asked for, with unknown ids, with ids twice, and together with ids never asked for."""
    service, ids = Asking(service_of(shop)), ["u-2", "nobody", "u-0", "u-2"]
    for _ in range(2 * ENOUGH):
        answer = service.post(PATH, {"user_ids": ids, "encoding": encoding})
        assert answer.content == expected(shop, ids, encoding)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert answer.headers["content-length"] == str(len(answer.content))
    answer = service.post(PATH, {"user_ids": [*ids, "u-7"], "encoding": encoding})
    assert answer.content == expected(shop, [*ids, "u-7"], encoding)


def test_a_write_and_a_publish_are_seen_by_the_next_request(shop: Shop) -> None:
    """Of a user that was written again, of one that was not there, and of all users of the next version."""
    service, ids = Asking(service_of(shop)), ["u-1", "u-2", "late"]

    def ask() -> bytes:
        content: bytes = service.post(PATH, {"user_ids": ids}).content
        return content

    before = [ask() for _ in range(2 * ENOUGH)][-1]
    push(shop, "u-1", 3, at(3))
    push(shop, "late", 4, at(4))
    written = [ask() for _ in range(2 * ENOUGH)]
    assert set(written) == {expected(shop, ids, "float")} != {before}
    assert [row["vector"][0] for row in orjson.loads(written[0])["embeddings"] if row["id"] != "u-2"] == [3, 4]
    newer = write_version(shop.repo.data, seed=1, as_of=AS_OF + timedelta(days=1))
    publish_any(shop.feature_store, newer)
    published = [ask() for _ in range(2 * ENOUGH)]
    assert set(published) == {expected(shop, ids, "float")}
    assert orjson.loads(published[0])["version"] == newer.manifest.version


@pytest.mark.parametrize("shop", ["embedded"], indirect=True)
def test_rows_of_before_and_after_a_write_are_not_mixed(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a write comes between rows from memory and those that are read, all are read again."""
    side, rows = EmbeddingStore(shop.feature_store, "shop").live().side("user"), JsonRows()
    for _ in range(ENOUGH):
        rows.of(side, ["u-1"], "float", keep=True)
    points, writes = LiveSide.points, [5.0]

    def writing_first(side: LiveSide, *arguments: Any) -> Any:
        while writes:
            number = writes.pop()
            push(shop, "u-1", number, at(number))
            push(shop, "u-2", number, at(number))
        return points(side, *arguments)

    monkeypatch.setattr(LiveSide, "points", writing_first)
    assert first_numbers(rows.of(side, ["u-1", "u-2"], "float", keep=True)) == [5, 5]
    assert not writes


def test_what_is_asked_for_often_is_not_read_again(embedded: LiveSide, reads: list[list[Id]]) -> None:
    """Only what is not kept is; floats and base64 are kept apart; many ids at once are not kept."""
    rows = JsonRows()
    for _ in range(ENOUGH):
        rows.of(embedded, USERS[:3], "float", keep=True)
    reads.clear()
    rows.of(embedded, [*USERS[:3], "nobody", "u-9"], "float", keep=True)
    assert reads == [["nobody", "u-9"]]
    assert rows.of(embedded, USERS[:1], "base64", keep=True) != rows.of(embedded, USERS[:1], "float", keep=True)
    assert reads == [["nobody", "u-9"], ["u-0"]]
    rows.of(embedded, USERS[:3], "float", keep=False)
    assert reads[2:] == [USERS[:3]]


def test_a_server_is_read_each_time(shop: Shop, request: pytest.FixtureRequest, reads: list[list[Id]]) -> None:
    """Others may write to it, and nobody would tell."""
    side, rows = EmbeddingStore(shop.feature_store, "shop").live().side("user"), JsonRows()
    for _ in range(2 * ENOUGH):
        rows.of(side, USERS[:3], "float", keep=True)
    in_process = request.node.callspec.params["shop"] == "embedded"
    assert (side.state() is not None) == in_process
    assert len(reads) == (ENOUGH if in_process else 2 * ENOUGH)


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_no_more_is_kept_than_allowed(
    embedded: LiveSide, reads: list[list[Id]], encoding: Literal["float", "base64"]
) -> None:
    """What is asked for all the time stays, among others that come and go."""
    (row,) = JsonRows().of(embedded, ["u-0"], encoding, keep=True)
    assert row is not None
    rows = JsonRows(most=8 * (len(row) + 200 + 20))
    for _ in range(ENOUGH):
        rows.of(embedded, ["u-0"], encoding, keep=True)
    for user in USERS[1:]:
        for _ in range(ENOUGH):
            rows.of(embedded, [user], encoding, keep=True)
        reads.clear()
        assert rows.of(embedded, ["u-0"], encoding, keep=True) == [row]
        assert reads == []
        kept = [row for half in (rows._young, rows._old) for of in half.values() for row in of.values()]
        assert 2 <= len(kept) <= 8


def test_an_id_of_another_type_is_named_beside_kept_ones(embedded: LiveSide) -> None:
    """A number is no id of this model, also where the text of it is kept."""
    rows = JsonRows()
    for _ in range(ENOUGH):
        rows.of(embedded, ["u-1"], "float", keep=True)
    with pytest.raises(IdTypeError, match="are text, got 1 "):
        rows.of(embedded, ["u-1", 1], "float", keep=True)


@pytest.mark.parametrize("shop", ["embedded"], indirect=True)
def test_many_threads_never_see_two_states_in_one_answer(shop: Shop) -> None:
    """Two users who are always written together have the same number in each answer, which never goes back."""
    store, rows = EmbeddingStore(shop.feature_store, "shop"), JsonRows()
    last = 6

    def write(number: float) -> None:
        frame = pd.concat([late_user(shop, user, number, at(number)) for user in ("u-1", "u-2")])
        shop.feature_store.write_to_online_store("shop_user_embeddings", frame)

    def ask(order: Callable[[list[str]], list[str]]) -> list[float]:
        seen: list[float] = []
        while not seen or seen[-1] < last:
            # One of them is asked for more often, so that it is kept and the other one is read.
            store.answer(lambda live: rows.of(live.side("user"), order(["u-1", "u-2"])[:1], "float", keep=True))
            found = store.answer(lambda live: rows.of(live.side("user"), ["u-1", "u-2"], "float", keep=True))
            first, second = first_numbers(found)
            assert first is not None
            assert first == second
            seen.append(first)
        return seen

    write(0)
    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(ask, order) for order in (list, lambda ids: ids[::-1]) for _ in range(2)]
        for number in range(1, last + 1):
            write(number)
        for each in asking:
            seen = each.result()
            assert seen == sorted(seen)
