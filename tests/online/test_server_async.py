"""A server from an event loop: the answers and errors of the blocking client, the loop free, nothing left open."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from feast import FeatureStore
from pydantic import SecretStr
from qdrant_client import AsyncQdrantClient
from tests.engines.test_server_client import Failing, engine_at, grpc_node, server
from tests.online.test_late_rows import LATE, NEW_AS_OF, aligned, late_user, served
from tests.online.test_online_store import NOW, apply, make_view, materialize, read, source_table
from tests.support.publishing import publish_any
from tests.support.shop import MakeStore, Shop, qdrant, served_shop, write_version

from feast_embeddings.engines.engine import PointBatch
from feast_embeddings.engines.server.catalog import Catalog
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.engines.server.failures import Caller
from feast_embeddings.engines.server.on_loop import AsyncServer
from feast_embeddings.errors import EngineError, InputError, VersionMismatchError

__all__ = ["server"]

KEY = "a-very-secret-key"


def on_loop(engine: object) -> AsyncServer:
    assert isinstance(engine, ServerEngine)
    assert engine.on_loop is not None
    return engine.on_loop


class Untouchable:
    """In the place of the blocking client."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the blocking client was asked to {name}")

    def close(self) -> None:
        pass


@pytest.fixture(params=[True, False], ids=["grpc", "rest"])
def store(request: pytest.FixtureRequest, make_store: MakeStore, tmp_path: Path) -> FeatureStore:
    """The items of test_online_store at a server."""
    feature_store = make_store(prefer_grpc=request.param)
    apply(feature_store, make_view(tmp_path))
    materialize(feature_store)
    return feature_store


at_a_server = pytest.mark.parametrize("make_store", ["server"], indirect=True)


async def read_async(feature_store: FeatureStore, ids: Sequence[int], *features: str) -> dict[str, list[Any]]:
    refs = [f"items:{name}" for name in features]
    rows = [{"item_id": id} for id in ids]
    return dict((await feature_store.get_online_features_async(features=refs, entity_rows=rows)).to_dict())


@at_a_server
def test_only_the_async_client_is_used(store: FeatureStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads, many at a time, and writes are those of the blocking client, which is not touched."""
    names = [name for name in source_table(1).column_names if name not in ("item_id", "event_timestamp")]
    keys = [[97, 10_000, -50], *([3 * i - 50, 3 * i - 47] for i in range(40))]
    expected = [read(store, ids, *names) for ids in keys]
    engine = qdrant(store).engine(store.config)
    older, newer = (source_table(300, when=NOW + timedelta(hours=h)).to_pandas() for h in (-1, 1))
    wrong = newer.head(2).assign(vector=[[1.0, 2, 3, 4], [1.0, float("nan"), 3, 4]])

    async def use() -> list[dict[str, list[Any]]]:
        await store.initialize()
        found = await asyncio.gather(*(read_async(store, ids, *names) for ids in keys))
        await store.push_async("pushed", older.assign(title="older"))
        await store.push_async("pushed", newer.tail(280).assign(title="newer"))
        with pytest.raises(InputError, match="NaN or infinity"):
            await store.push_async("pushed", wrong)
        return found

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_client", Untouchable())
        found = asyncio.run(use())
    assert found == expected
    # The older rows changed nothing of the 200 that were there, and the newer ones all but the first 20.
    titles = [*source_table()["title"].to_pylist()[:20], *["newer"] * 280]
    assert read(store, source_table(300)["item_id"].to_pylist(), "title")["title"] == titles


@at_a_server
def test_a_view_that_nobody_has_written(make_store: MakeStore, tmp_path: Path) -> None:
    """It has no rows, and the first write makes its collection."""
    feature_store = make_store()
    apply(feature_store, make_view(tmp_path))

    async def use() -> list[Any]:
        before = await read_async(feature_store, [-50], "title")
        await feature_store.push_async("pushed", source_table(1).to_pandas())
        return [before["title"], (await read_async(feature_store, [-50], "title", "vector"))["title"]]

    assert asyncio.run(use()) == [[None], ["Tïtle 0 🎈"]]
    assert read(feature_store, [-50], "title")["title"] == ["Tïtle 0 🎈"]


@pytest.fixture(params=["server"])
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """A shop with one version live."""
    yield from served_shop(request, tmp_path)


def push_async(shop: Shop, user: str, number: float, at: Any = LATE, **more: Any) -> Coroutine[Any, Any, None]:
    frame = late_user(shop, user, number, at, **more)
    return shop.feature_store.write_to_online_store_async("shop_user_embeddings", frame)


def test_the_version_rule_is_the_same(shop: Shop) -> None:
    """A row of the live version is written, of a newer one refused, of an older one written if it is late."""
    newer = aligned(shop)
    asyncio.run(push_async(shop, "late", 7))
    with pytest.raises(VersionMismatchError, match="1 of 1 rows"):
        asyncio.run(push_async(shop, "early", 8, of=newer))
    assert served(shop, "late", "early") == [7, None]
    publish_any(shop.feature_store, newer)
    asyncio.run(push_async(shop, "later", 9))
    asyncio.run(push_async(shop, "not late", 9, NEW_AS_OF))
    assert served(shop, "late", "later", "not late") == [7, 9, None]


def test_a_version_that_goes_live_meanwhile(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after the write into the one before: the late row is taken along."""
    target = on_loop(qdrant(shop.feature_store).engine(shop.feature_store.config))
    newer, upsert = aligned(shop), target.upsert

    async def then_publish(collection: str, batch: PointBatch) -> None:
        await asyncio.to_thread(publish_any, shop.feature_store, newer)
        await upsert(collection, batch)

    monkeypatch.setattr(target, "upsert", then_publish)
    asyncio.run(push_async(shop, "late", 7))
    assert served(shop, "late") == [7]


def test_users_and_items_are_of_one_version(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """All reads of a request go by one look at the aliases, though another version goes live after it."""
    target = on_loop(qdrant(shop.feature_store).engine(shop.feature_store.config))
    aliases, looks = target.aliases, 0

    async def then_publish() -> dict[str, str]:
        nonlocal looks
        looks += 1
        found = await aliases()
        newer = write_version(shop.repo.data, seed=looks, as_of=NEW_AS_OF)
        await asyncio.to_thread(publish_any, shop.feature_store, newer)
        return found

    monkeypatch.setattr(target, "aliases", then_publish)
    refs = [f"shop_{side}_embeddings:version" for side in ("user", "item")]
    ask = shop.feature_store.get_online_features_async(
        features=refs, entity_rows=[{"user_id": "u-1", "item_id": "sku-1"}], full_feature_names=True
    )
    found = asyncio.run(ask).to_dict()
    versions = {found[name.replace(":", "__")][0] for name in refs}
    assert (looks, versions) == (1, {shop.artifact.manifest.version})


async def free_meanwhile(target: AsyncServer, asked: list[str], may_answer: threading.Event) -> dict[str, str]:
    """What is answered to a question that is let be answered only after the loop has seen it arrive."""
    question = asyncio.create_task(target.aliases())
    while not asked and not question.done():
        await asyncio.sleep(0)
    may_answer.set()
    return await question


def test_the_loop_is_free_over_rest(server: Failing) -> None:
    """While the server has a request and does not answer, other coroutines run."""
    server.may_answer.clear()
    target = on_loop(engine_at(server.server_port))
    assert asyncio.run(free_meanwhile(target, server.requests, server.may_answer)) == {"a": "c"}


def test_the_loop_is_free_over_grpc(server: Failing) -> None:
    """The same."""
    calls: list[str] = []
    may_answer = threading.Event()
    with grpc_node(calls, grpc.StatusCode.OK, 0, may_answer=may_answer) as port:
        target = on_loop(engine_at(server.server_port, grpc_port=port))
        assert asyncio.run(free_meanwhile(target, calls, may_answer)) == {"a": "c"}


@pytest.mark.parametrize("statuses", [[503], [502, 504, 503], [429], [0, 0]])
def test_a_transient_failure_is_asked_again(server: Failing, statuses: list[int]) -> None:
    """As by the blocking client."""
    server.statuses = list(statuses)
    assert asyncio.run(on_loop(engine_at(server.server_port)).aliases()) == {"a": "c"}
    assert server.requests == ["GET /aliases"] * (len(statuses) + 1)


@pytest.mark.parametrize(("code", "calls_made"), [("UNAVAILABLE", 3), ("INVALID_ARGUMENT", 1)])
def test_the_same_over_grpc(server: Failing, code: str, calls_made: int) -> None:
    """UNAVAILABLE is asked again and given up in the end, INVALID_ARGUMENT is not; the key is sent and not shown."""
    calls: list[str] = []
    with grpc_node(calls, grpc.StatusCode[code], failures=9) as port:
        engine = engine_at(server.server_port, grpc_port=port, retries=2, api_key=SecretStr(KEY))
        with pytest.raises(EngineError, match=f"could not list aliases: {code} not now") as caught:
            asyncio.run(on_loop(engine).aliases())
    assert calls == [KEY] * calls_made
    assert KEY not in str(caught.value) + repr(caught.value)


@pytest.mark.parametrize(("status", "requests"), [(401, 1), (500, 1), (503, 2), (429, 2)])
def test_an_error_is_ours_and_keeps_the_key(server: Failing, status: int, requests: int) -> None:
    """In every call: what will not get better at once, the rest after the repetitions of the settings."""
    calls: list[Callable[[AsyncServer], Coroutine[Any, Any, object]]] = [
        lambda target: target.aliases(),
        lambda target: target.describe("c"),
        lambda target: target.retrieve("c", [1], vectors=[]),
    ]
    engine = engine_at(server.server_port, retries=1, api_key=SecretStr(KEY))
    for number, call in enumerate(calls, start=1):
        server.statuses = [status] * requests
        with pytest.raises(EngineError, match="Qdrant could not") as caught:
            asyncio.run(call(on_loop(engine)))
        assert KEY not in str(caught.value) + repr(caught.value)
        assert len(server.requests) == number * requests


def test_each_loop_has_a_client_and_closes_it(server: Failing) -> None:
    """In its end, or before; two loops at a time do not share one."""
    clients: list[AsyncQdrantClient] = []
    closed: list[tuple[AsyncQdrantClient, asyncio.AbstractEventLoop]] = []

    class Watched(AsyncQdrantClient):
        async def close(self, grpc_grace: float | None = None, **more: Any) -> None:
            closed.append((self, asyncio.get_running_loop()))
            await super().close(grpc_grace, **more)

    def connect() -> AsyncQdrantClient:
        clients.append(Watched(url=f"http://127.0.0.1:{server.server_port}", check_compatibility=False))
        return clients[-1]

    target, both = AsyncServer(connect, Catalog(), Caller(retries=0)), threading.Barrier(2, timeout=60)
    opened: list[tuple[AsyncQdrantClient, asyncio.AbstractEventLoop]] = []

    async def use(*, close: bool = False, meet: bool = False) -> None:
        for _ in range(2):
            for found in await asyncio.gather(target.aliases(), target.aliases()):
                assert found == {"a": "c"}
            opened.append((await target.client(), asyncio.get_running_loop()))
            if meet:
                both.wait()
            if close:
                await target.close()
                await target.close()
                assert opened[-1] in closed

    asyncio.run(use())
    assert (len(clients), closed) == (1, opened[:1])
    asyncio.run(use(close=True))
    assert len(clients) == 3
    threads = [threading.Thread(target=lambda: asyncio.run(use(meet=True))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(clients) == len(closed) == 5
    assert set(closed) == set(opened)


def test_a_loop_that_ended_is_forgotten(server: Failing) -> None:
    """Also one that was closed without the care of `asyncio.run`."""
    target = on_loop(engine_at(server.server_port))
    loop = asyncio.new_event_loop()
    loop.run_until_complete(target.client())
    loop.close()
    ended = weakref.ref(loop)
    del loop
    asyncio.run(target.aliases())
    gc.collect()
    assert ended() is None
