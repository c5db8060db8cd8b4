"""Collections that are dropped between two calls of whoever reads: what answers then is what is live instead."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from feast import FeatureStore
from tests.support.publishing import publish_any
from tests.support.shop import ENGINES, Shop, qdrant, served_shop, write_version

from feast_embeddings.doctor.live_checks import live as check_live
from feast_embeddings.doctor.patient import Patient
from feast_embeddings.engines.dropped import ask_live, live_collections
from feast_embeddings.engines.engine import Engine
from feast_embeddings.engines.testing import NewAlias, make_batch, make_spec
from feast_embeddings.errors import EngineError
from feast_embeddings.publish.plan import plan_publish
from feast_embeddings.publish.versions import list_versions, prune_versions
from feast_embeddings.query.store import EmbeddingStore

USERS, ITEMS = "shop_user_embeddings", "shop_item_embeddings"


def replace(engine: Engine, alias: str, old: str, new: str | None) -> None:
    """As another process does: something else is live, or nothing, and what was live is dropped."""
    if new is not None:
        engine.create(new, make_spec(alias, version=new), [make_batch(np.eye(8, dtype=np.float32))])
    engine.switch({alias: new})
    engine.drop([old])


@pytest.mark.parametrize("deleted", [False, True])
def test_dropped_between_the_look_and_the_description(
    deleted: bool, engine: Engine, new_alias: NewAlias, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is live instead is described; nothing, if nothing is."""
    alias, other = new_alias(), new_alias()
    for name in (alias, other):
        engine.create(f"{name}__1", make_spec(name, version=f"{name}__1"), [])
        engine.switch({name: f"{name}__1"})

    def drop_first(collection: str) -> Any:
        monkeypatch.undo()
        replace(engine, alias, f"{alias}__1", None if deleted else f"{alias}__2")
        return engine.describe(collection)

    monkeypatch.setattr(engine, "describe", drop_first)
    found = live_collections(engine, [alias, other])
    assert {name: (collection, spec.version) for name, (collection, spec) in found.items()} == {
        other: (f"{other}__1", f"{other}__1"),
        **({} if deleted else {alias: (f"{alias}__2", f"{alias}__2")}),
    }


def test_a_failure_that_is_no_drop_is_told(
    engine: Engine, new_alias: NewAlias, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the same is live as before, the failure is of something else; so it is where that cannot be seen."""
    alias = new_alias()
    engine.create(f"{alias}__1", make_spec(alias), [])
    engine.switch({alias: f"{alias}__1"})

    def fail(_: str) -> Any:
        raise EngineError("broken")

    monkeypatch.setattr(engine, "describe", fail)
    with pytest.raises(EngineError, match="broken"):
        live_collections(engine, [alias])
    with monkeypatch.context() as patch, pytest.raises(EngineError, match="first"):
        ask_live(engine.aliases, lambda _: fail_at(patch, engine))


def fail_at(patch: pytest.MonkeyPatch, engine: Engine) -> None:
    """The question fails, and then the next look does."""

    def fail() -> dict[str, str]:
        raise EngineError("second")

    patch.setattr(engine, "aliases", fail)
    raise EngineError("first")


@pytest.mark.parametrize("rounds", [5, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("engine", ["embedded", "server"], indirect=True)  # the stand-in does not bear threads
def test_described_while_others_drop(
    rounds: int, engine: Engine, new_alias: NewAlias, capsys: pytest.CaptureFixture[str]
) -> None:
    """A thread replaces and drops live collections, others list and describe: each answer is one that was live."""
    aliases = [new_alias() for _ in range(3)]
    n, done = rounds, threading.Event()
    live: dict[str, list[str]] = {}
    for alias in aliases:
        engine.create(f"{alias}__0", make_spec(alias, version="0"), [])
        engine.switch({alias: f"{alias}__0"})
        live[alias] = ["0"]
    failures: list[BaseException] = []
    counts = dict.fromkeys(("described", "listed", "changes"), 0)

    def noting(work: Callable[[], None]) -> threading.Thread:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)
                done.set()

        return threading.Thread(target=run)

    def read() -> None:
        seen = dict.fromkeys(aliases, 0)
        while not done.is_set():
            found = live_collections(engine, aliases)
            assert found.keys() == set(aliases)
            for alias, (name, spec) in found.items():
                assert (spec.alias, name) == (alias, f"{alias}__{spec.version}")
                assert int(spec.version) >= seen[alias]
                counts["changes"] += int(spec.version) > seen[alias]
                seen[alias] = int(spec.version)
            counts["described"] += len(found)
            for alias in aliases:
                listed = engine.collections(alias)
                assert all((spec.alias, name) == (alias, f"{alias}__{spec.version}") for name, spec in listed.items())
                counts["listed"] += len(listed)

    def write() -> None:
        for number in range(1, n + 1):
            for alias in aliases:
                old, new = f"{alias}__{number - 1}", f"{alias}__{number}"
                engine.create(new, make_spec(alias, version=str(number)), [], wait_for_indexes=False)
                engine.switch({alias: new})
                engine.drop([old])
        done.set()

    threads = [noting(write), *(noting(read) for _ in range(3))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    assert {alias: spec.version for alias, (_, spec) in live_collections(engine, aliases).items()} == dict.fromkeys(
        aliases, str(n)
    )
    assert counts["described"] > 0
    with capsys.disabled():
        print(f"\n{counts} while {n * len(aliases)} collections were dropped, over {type(engine).__name__}")


@pytest.fixture(params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """A shop with one version live."""
    yield from served_shop(request, tmp_path)


def live_version_of(shop: Shop, _: EmbeddingStore) -> set[Any]:
    return {EmbeddingStore(shop.feature_store, "shop").live_version()}


def known_live_version(_: Shop, store: EmbeddingStore) -> set[Any]:
    return {store.live_version()}


def neighbours(_: Shop, store: EmbeddingStore) -> set[Any]:
    return {store.similar_items("sku-1", 3).version}


def versions(shop: Shop, _: EmbeddingStore) -> set[Any]:
    return {row.version for row in list_versions(shop.feature_store, shop.repo.data, "shop") if row.live}


def plan(shop: Shop, _: EmbeddingStore) -> set[Any]:
    return {plan_publish(shop.feature_store, shop.artifact)[0].live}


def documents(shop: Shop, _: EmbeddingStore) -> set[Any]:
    found = shop.feature_store.retrieve_online_documents_v2([f"{ITEMS}:version"], top_k=3, query=[1.0] * 8).to_dict()
    assert len(found["version"]) == 3
    return set(found["version"])


FEATURES = [f"{view}:{name}" for view in (USERS, ITEMS) for name in ("version", "embedding")]
ROWS = [{"user_id": "u-1", "item_id": "sku-1"}, {"user_id": "u-2", "item_id": "nothing"}]


def online(shop: Shop, _: EmbeddingStore) -> set[Any]:
    found = shop.feature_store.get_online_features(FEATURES, ROWS, full_feature_names=True).to_dict()
    return checked(found)


def online_on_a_loop(shop: Shop, _: EmbeddingStore) -> set[Any]:
    async def read() -> dict[str, Any]:
        store: FeatureStore = shop.feature_store
        answer = await store.get_online_features_async(FEATURES, ROWS, full_feature_names=True)
        if (on_loop := getattr(qdrant(store).engine(store.config), "on_loop", None)) is not None:
            await on_loop.close()
        return answer.to_dict()

    return checked(asyncio.run(read()))


def checked(found: dict[str, list[Any]]) -> set[Any]:
    """The versions of an answer of Feast's, which has each column once."""
    assert found.keys() == {
        *("user_id", "item_id"),
        *(f"{view}__{name}" for view in (USERS, ITEMS) for name in ("version", "embedding")),
    }
    assert all(len(column) == len(ROWS) for column in found.values())
    assert found[f"{ITEMS}__version"][1] is None
    return {version for view in (USERS, ITEMS) for version in found[f"{view}__version"]} - {None}


def diagnosis(shop: Shop, _: EmbeddingStore) -> set[Any]:
    store = shop.feature_store
    views = {view.name: view for view in store.list_feature_views()}
    engine = qdrant(store).engine(store.config)
    patient = Patient(shop.repo, None, timedelta(days=1), store.config, views, engine)
    return {finding.message.partition(":")[0] for finding in check_live(patient)}


class Dropping:
    """An engine behind which something happens just before its n-th call; 0: never."""

    def __init__(self, engine: Any, moment: int, happen: Callable[[], None]) -> None:
        self._engine, self._moment, self._happen = engine, moment, happen
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._engine, name)
        if not callable(method):
            return method

        def call(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls == self._moment:
                self._happen()
            return method(*arguments, **named)

        return call


READS = [
    *(live_version_of, known_live_version, neighbours, versions, plan),
    *(documents, online, online_on_a_loop, diagnosis),
]


# Just after the first look at what is live; and before each call there is.
@pytest.mark.parametrize("moments", [[2], pytest.param(range(100), marks=pytest.mark.slow)], ids=["look", "each"])
@pytest.mark.parametrize("read", READS)
def test_replaced_and_dropped_before_a_call(
    read: Callable[[Shop, EmbeddingStore], set[Any]], moments: Sequence[int], shop: Shop
) -> None:
    """Whichever call of the engine finds its collection gone, the answer is of the one version or of the other."""
    online_store = qdrant(shop.feature_store)
    engine: Any = online_store.engine(shop.feature_store.config)
    artifacts = [shop.artifact, write_version(shop.repo.data, seed=1)]
    live, dropped = shop.artifact, 0

    def happen() -> None:
        nonlocal live, dropped
        dropped += 1
        before, online_store._engine = online_store._engine, engine
        live = artifacts[live is artifacts[0]]
        publish_any(shop.feature_store, live)
        prune_versions(shop.feature_store, shop.repo.data, "shop", keep=0)
        online_store._engine = before

    for moment in moments:
        old = live.manifest.version
        dropping: Any = Dropping(engine, moment, happen)
        online_store._engine = dropping
        try:
            answered = read(shop, EmbeddingStore(shop.feature_store, "shop"))
        finally:
            online_store._engine = engine
        assert answered in ({old}, {live.manifest.version})
        if dropping.calls < moment:
            break
    assert dropped > 0
