"""Set attributes: these values change at once, nothing else does, and no publish and no kill loses them."""

from __future__ import annotations

import json
import math
import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from qdrant_client import QdrantClient
from tests.conftest import Command
from tests.support.job import Job
from tests.support.publishing import in_space, publish_any
from tests.support.shop import AS_OF, DIM, ENGINES, Shop, apply, new_repo, qdrant, write_tables

from feast_embeddings.artifact import Artifact, EmbeddingTable
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.errors import EngineError, IdTypeError, InputError, MissingSideError, NotPublishedError
from feast_embeddings.events import set_attributes_of
from feast_embeddings.publish.versions import roll_back
from feast_embeddings.query.store import EmbeddingStore

N = 12
ITEMS = [f"sku-{i}" for i in range(N)]
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
TYPES = {
    "title": pa.string(),
    "stock": pa.int64(),
    "price": pa.float64(),
    "on_sale": pa.bool_(),
    "since": pa.timestamp("us", "UTC"),
    "tags": pa.list_(pa.string()),
    "sizes": pa.list_(pa.int64()),
}
# What a value may be, given, and how it is returned.
VALUES: dict[str, list[tuple[Any, Any]]] = {
    "title": [("", ""), ("Füß 007", "Füß 007"), (None, None)],
    "stock": [(0, 0), (np.int32(-7), -7), (2**63 - 1, 2**63 - 1), (-(2**63), -(2**63)), (None, None)],
    "price": [
        (9.5, 9.5),
        (9, 9.0),
        (Decimal("19.99"), 19.99),
        (np.float32(0.3), 0.3),
        (0.1 + 0.2, 0.1 + 0.2),
        (1e300, 1e300),
        (5e-324, 5e-324),
        (math.inf, math.inf),
        (math.nan, None),
        (None, None),
    ],
    "on_sale": [(True, True), (np.bool_(False), False), (None, None)],
    "since": [
        (NOON + timedelta(microseconds=999_999), NOON),
        ("2026-03-01T13:00:00+01:00", NOON),
        (date(2026, 3, 1), NOON - timedelta(hours=12)),
        (pd.Timestamp("2026-03-01 12:00"), NOON),
        (np.datetime64("1931-02-03T04:05:06"), datetime(1931, 2, 3, 4, 5, 6, tzinfo=UTC)),
        (pd.NaT, None),
        (pd.NA, None),
        (None, None),
    ],
    "tags": [([], []), (["a", "b"], ["a", "b"]), (None, None)],
    "sizes": [([], []), ((2**62, -1), [2**62, -1]), (np.array([3, 4]), [3, 4]), (None, None)],
}


def first_values(seed: int) -> dict[str, list[Any]]:
    """The attributes of each item as trained, in the form in which they are returned."""
    rng = np.random.default_rng(seed)
    return {name: [values[rng.integers(len(values))][1] for _ in range(N)] for name, values in VALUES.items()}


def version(data: Path, seed: int, as_of: datetime = AS_OF, n: int = N, leave_out: str = "") -> Artifact:
    rng = np.random.default_rng(seed)
    columns = {
        name: pa.array(values[:n], TYPES[name]) for name, values in first_values(seed).items() if name != leave_out
    }

    def table(ids: list[str], attributes: dict[str, Any], bias: Any) -> EmbeddingTable:
        vectors = rng.standard_normal((len(ids), DIM)).astype(np.float32)
        counts = np.arange(1, len(ids) + 1)
        return EmbeddingTable(pa.array(ids), vectors, counts, bias=bias, attributes=pa.table(attributes))

    items = table(ITEMS[:n], columns, rng.standard_normal(n).astype(np.float32))
    users = table(["u-0", "u-1"], {"country": pa.array(["NL", "DE"])}, None)
    return in_space(write_tables(data, users, items, as_of=as_of, seed=seed), "one")


@pytest.fixture(params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    repo = new_repo(request, tmp_path / "repo")
    artifact = version(repo.data, 0)
    feature_store = apply(repo)
    if request.param == "server-stand-in":
        qdrant(feature_store)._engine = ServerEngine(QdrantClient(":memory:"), streams=1)
    shop = Shop(repo, artifact, feature_store)
    shop.publish()
    yield shop
    feature_store.teardown()  # type: ignore[no-untyped-call]
    qdrant(feature_store).engine(feature_store.config).close()


def store_of(shop: Shop) -> EmbeddingStore:
    return EmbeddingStore(shop.feature_store, "shop")


def served(shop: Shop) -> dict[str, dict[str, Any]]:
    """The attributes of each live item, by a listing and by Feast's own read, which agree."""
    found = {}
    page = store_of(shop).page("item", 100)
    for id, attributes in zip(page.ids, page.attributes, strict=True):
        found[str(id)] = {name: attributes[name] for name in VALUES if name in attributes}
    names = [name for name in VALUES if any(name in row for row in found.values())]
    online = shop.feature_store.get_online_features(
        [f"shop_item_embeddings:{name}" for name in names], [{"item_id": id} for id in found]
    ).to_dict()
    for name in names:
        for id, value in zip(online["item_id"], online[name], strict=True):
            expected = found[id][name]
            assert value == expected, (name, id)
    return found


def rest(shop: Shop) -> dict[Any, Any]:
    """All that no call may change: vectors' bytes, timestamps and the rest of the payload, of users and items."""
    engine = qdrant(shop.feature_store).engine(shop.feature_store.config)
    found: dict[Any, Any] = {}
    for side in store_of(shop)._watch.sides.values():
        name = engine.aliases()[side.alias]
        own = {
            key
            for attribute in [*VALUES, "country"]
            if attribute in side.codec.types
            for key in side.codec.payload_keys(attribute)
        }
        for page in engine.scroll(name, payload=None, vectors=list(engine.describe(name).vectors)):
            for point in page:
                payload = {key: value for key, value in point.payload.items() if key not in own}
                found[side.entity, point.id] = payload, {n: v.tobytes() for n, v in point.vectors.items()}
    return found


def rows(seed: int, n: int = N) -> dict[str, dict[str, Any]]:
    first = first_values(seed)
    return {ITEMS[i]: {name: first[name][i] for name in VALUES} for i in range(n)}


@pytest.mark.parametrize("seed", range(3))
def test_a_dictionary_is_what_is_served(shop: Shop, seed: int) -> None:
    """Random sets, against a dictionary; publishes between them keep what is set, and vectors are never touched."""
    rng, model, store = np.random.default_rng(seed), rows(0), store_of(shop)
    assert served(shop) == model
    set_so_far: dict[str, dict[str, Any]] = {}
    for step in range(6):
        before = rest(shop)
        given: dict[str, dict[str, Any]] = {}
        for id in rng.choice(ITEMS, 4, replace=False).tolist():
            for name in rng.choice(list(VALUES), 3, replace=False).tolist():
                value, returned = VALUES[name][rng.integers(len(VALUES[name]))]
                given.setdefault(id, {})[name] = value
                set_so_far.setdefault(id, {})[name] = returned
                model[id][name] = returned
        done = store.set_attributes(items=given)
        assert (done.version, done.items, done.users, done.n_unknown) == (store.live_version(), 4, 0, 0)
        assert served(shop) == model
        assert rest(shop) == before
        if step in (2, 4):
            newer = version(shop.repo.data, step)
            result = publish_any(shop.feature_store, newer)
            model = rows(step)
            for id, attributes in set_so_far.items():
                model[id] |= attributes
            assert result.n_attributes == sum(len(attributes) for attributes in set_so_far.values())
            assert served(shop) == model
            assert publish_any(shop.feature_store, newer).changed is False
            assert served(shop) == model
    roll_back(shop.feature_store, shop.repo.data, "shop")
    back = rows(2)
    for id, attributes in set_so_far.items():
        back[id] |= attributes
    assert served(shop) == back


def test_filters_and_neighbours_see_it_at_once(shop: Shop) -> None:
    store = store_of(shop)
    store.set_attributes(items={"sku-3": {"price": 1234.5, "tags": ["only"]}}, users={"u-1": {"country": "FR"}})
    for condition in ("price = 1234.5", "price > 1234 AND price < 1235", "tags = 'only'"):
        assert store.page("item", filter=condition).ids == ["sku-3"]
    assert store.similar_items("sku-1", filter="price = 1234.5").ids == ["sku-3"]
    assert store.page("user", filter="country = 'FR'").ids == ["u-1"]
    store.set_attributes({"sku-3": {"price": None, "tags": []}})
    assert store.page("item", filter="price = 1234.5 OR tags = 'only'").ids == []
    assert "sku-3" in store.page("item", filter="price IS NULL").ids


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prise": 9.5}, r"items have no attribute 'prise' to set; there are title \(text\), stock \(a whole number"),
        ({"embedding": [1.0]}, "items have no attribute 'embedding'"),
        ({"item_id": "x"}, "items have no attribute 'item_id'"),
        ({"price": "9.5"}, r"item 'sku-2': attribute 'price' has to be a number or null, got '9.5' \(str\)"),
        ({"price": True}, "has to be a number or null, got True"),
        ({"price": 2**53 + 1}, "has to be a number or null, got 9007199254740993"),
        ({"stock": 1.0}, "has to be a whole number of 64 bits or null, got 1.0"),
        ({"stock": 2**63}, "has to be a whole number of 64 bits or null"),
        ({"stock": False}, "has to be a whole number of 64 bits or null"),
        ({"title": 7}, "has to be text or null, got 7"),
        ({"title": "\ud800"}, "has to be text or null"),
        ({"on_sale": 1}, "has to be true or false or null"),
        ({"since": "yesterday"}, "has to be a time, in text in ISO 8601 or null"),
        ({"since": 7}, "has to be a time"),
        ({"tags": "red"}, "has to be a list of text or null"),
        ({"tags": ["red", None]}, "has to be a list of text or null"),
        ({"sizes": pd.Series([1])}, "has to be a list of whole numbers of 64 bits or null"),
        ({"sizes": [1.5]}, "has to be a list of whole numbers of 64 bits or null"),
        (7, "expected a dictionary of attributes, got int"),
    ],
)
def test_what_cannot_be_set_changes_nothing(common_shop_here: Shop, given: Any, message: str) -> None:
    shop = common_shop_here
    before = served(shop), rest(shop)
    with pytest.raises(InputError, match=message):
        store_of(shop).set_attributes({"sku-1": {"stock": 99}, "sku-2": given})
    assert (served(shop), rest(shop)) == before
    assert list(set_attributes_of(shop.repo.data, "shop").since("item", 0)) == []


@pytest.fixture(scope="module")
def common_shop_here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop to which nothing is written."""
    from feast_embeddings.repo import init_repo

    repo = init_repo(tmp_path_factory.mktemp("attributes") / "repo")
    artifact = version(repo.data, 0)
    shop = Shop(repo, artifact, apply(repo))
    with pytest.raises(NotPublishedError):
        store_of(shop).set_attributes({"sku-1": {"stock": 1}})
    shop.publish()
    yield shop
    qdrant(shop.feature_store).engine(shop.feature_store.config).close()


def test_who_cannot_be_set(common_shop_here: Shop) -> None:
    store = store_of(common_shop_here)
    nothing: dict[str, Any]
    for nothing in ({}, {"items": {}}, {"items": {"sku-1": {}}}):
        with pytest.raises(InputError, match="expected users or items with attributes to set, got none"):
            store.set_attributes(**nothing)
    with pytest.raises(IdTypeError, match="are text, got 7"):
        store.set_attributes(items={"sku-1": {"stock": 99}, 7: {"stock": 99}})
    with pytest.raises(InputError, match="takes a dictionary of ids"):
        store.set_attributes(items=["sku-1"])  # type: ignore[arg-type]


def test_unknown_ids_are_counted_and_the_rest_is_set(shop: Shop) -> None:
    nothing = {f"none-{i:02}": {"stock": 1} for i in range(13)}
    done = store_of(shop).set_attributes(items=nothing | {"sku-5": {"stock": 123}})
    assert (done.items, done.n_unknown, done.unknown) == (1, 13, [f"none-{i:02}" for i in range(10)])
    model = rows(0)
    model["sku-5"]["stock"] = 123
    assert served(shop) == model
    only = store_of(shop).set_attributes(items=nothing)
    assert (only.items, only.n_unknown) == (0, 13)
    assert served(shop) == model


def test_a_training_that_is_newer_wins_and_nothing_is_kept_alive(shop: Shop) -> None:
    """Values of before its data are left out; a row that is in no new version is gone; other types are left out."""
    store = store_of(shop)
    store.set_attributes({id: {"stock": 55, "title": "set"} for id in ITEMS})
    smaller = version(shop.repo.data, 1, n=4)
    assert publish_any(shop.feature_store, smaller).n_attributes == 8
    model = {id: row | {"stock": 55, "title": "set"} for id, row in rows(1, 4).items()}
    assert served(shop) == model
    newer = version(shop.repo.data, 2, as_of=datetime.now(UTC) + timedelta(hours=1))
    assert publish_any(shop.feature_store, newer).n_attributes == 0
    assert served(shop) == rows(2)
    without = version(shop.repo.data, 3, leave_out="title")
    shop.feature_store.apply(list(views(shop)))
    result = publish_any(shop.feature_store, without)
    assert (result.n_attributes, result.warnings) == (
        N,
        [f"values set for the item attribute 'title' do not fit version {without.manifest.version}, and are left out"],
    )
    assert all(row["stock"] == 55 and "title" not in row for row in served(shop).values())


def views(shop: Shop) -> Any:
    from feast_embeddings import embedding_views

    return embedding_views("shop", shop.repo.data).by_name().values()


def test_set_while_a_version_is_published(shop: Shop) -> None:
    """Whatever step has begun, the new version has the value."""
    from feast_embeddings.publish.run import STEPS

    store, model, seen = store_of(shop), rows(1), list[str]()

    def change(step: str) -> None:
        if step not in seen:
            id = ITEMS[len(seen)]
            seen.append(step)
            store.set_attributes({id: {"stock": len(seen), "price": 0.1 + len(seen)}})
            model[id] |= {"stock": len(seen), "price": 0.1 + len(seen)}

    publish_any(shop.feature_store, version(shop.repo.data, 1), on_step=change)
    assert tuple(seen) == STEPS
    assert served(shop) == model


def test_a_model_without_users(tmp_path: Path) -> None:
    from feast_embeddings.repo import init_repo

    repo = init_repo(tmp_path / "repo")
    vectors = np.eye(DIM, dtype=np.float32)
    items = EmbeddingTable(
        pa.array(range(DIM)), vectors, np.ones(DIM, np.int64), attributes=pa.table({"stock": list(range(DIM))})
    )
    artifact = write_tables(repo.data, None, items)
    shop = Shop(repo, artifact, apply(repo))
    store = shop.publish()
    with pytest.raises(MissingSideError):
        store.set_attributes(users={1: {"country": "NL"}})
    assert store.set_attributes({3: {"stock": -1}, np.int64(4): {"stock": -2}}).items == 2
    page = store.page("item")
    assert {id: row["stock"] for id, row in zip(page.ids, page.attributes, strict=True)} == {
        id: {3: -1, 4: -2}.get(id, id) for id in range(DIM)
    }
    qdrant(shop.feature_store).engine(shop.feature_store.config).close()


def set_and_die(_: Any, repo: str, id: str, stock: int) -> None:
    """Set an attribute, and die with SIGKILL when it is on disk and not in Qdrant."""
    from feast import FeatureStore

    from feast_embeddings.engines.embedded.engine import EmbeddedEngine

    EmbeddedEngine.set_payload = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign]
    EmbeddingStore(FeatureStore(repo), "shop").set_attributes({id: {"stock": stock}})


@pytest.mark.parametrize("request_param", ["embedded"])
def test_killed_between_the_file_and_qdrant(
    request: pytest.FixtureRequest, request_param: str, tmp_path: Path, start: Callable[..., Job]
) -> None:
    """The next call writes the value too, and so does the next publish."""
    request.param = request_param
    repo = new_repo(request, tmp_path / "repo")
    shop = Shop(repo, version(repo.data, 0), apply(repo))
    store, model = shop.publish(), rows(0)
    assert start(set_and_die, str(repo.path), "sku-1", 71).exit_code() == -signal.SIGKILL
    assert served(shop) == model
    store.set_attributes({"sku-2": {"stock": 72}})
    model["sku-1"]["stock"], model["sku-2"]["stock"] = 71, 72
    assert served(shop) == model
    assert start(set_and_die, str(repo.path), "sku-3", 73).exit_code() == -signal.SIGKILL
    publish_any(shop.feature_store, version(repo.data, 1))
    model = rows(1)
    for id, stock in (("sku-1", 71), ("sku-2", 72), ("sku-3", 73)):
        model[id]["stock"] = stock
    assert served(shop) == model
    # A value that is set again is not undone by the older one, which was pending.
    assert start(set_and_die, str(repo.path), "sku-3", 74).exit_code() == -signal.SIGKILL
    store.set_attributes({"sku-3": {"stock": 75}})
    model["sku-3"]["stock"] = 75
    assert served(shop) == model
    qdrant(shop.feature_store).engine(shop.feature_store.config).close()


def test_qdrant_fails_and_the_next_call_writes(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, store, model = qdrant(shop.feature_store).engine(shop.feature_store.config), store_of(shop), rows(0)

    def fail(*_: Any) -> None:
        raise EngineError("no")

    with monkeypatch.context() as patch:
        patch.setattr(engine, "set_payload", fail)
        with pytest.raises(EngineError, match="no"):
            store.set_attributes({"sku-1": {"stock": 5}})
    assert served(shop) == model
    store.set_attributes({"sku-2": {"stock": 6}})
    model["sku-1"]["stock"], model["sku-2"]["stock"] = 5, 6
    assert served(shop) == model


def test_the_command(shop: Shop, command: Command, tmp_path: Path) -> None:
    """CSV, JSON and Parquet; what is wrong is one line, and changes nothing."""
    if not (shop.repo.path / "qdrant_storage").exists():
        pytest.skip("the command opens the repo's own store")
    csv, users, lines, parquet = (tmp_path / name for name in ("a.csv", "u.csv", "a.jsonl", "a.parquet"))
    csv.write_text(
        "item_id,title,stock,price,on_sale,since,tags,sizes\n"
        'sku-1,007,0,9.50,TRUE,2026-03-01,"[""a"",""b""]","[1]"\nsku-2,,,,,,,\nnone,,,,,,,\n'
    )
    users.write_text("user_id,country\nu-1,FR\n")
    done = command("set-attributes", "--repo", shop.repo.path, "--items", csv, "--users", users)
    version = store_of(shop).live_version()
    assert (done.code, done.err) == (0, "")
    assert done.out == (
        f"set attributes of 1 user and 2 items in version {version}\n1 id not in that version, and left out: none\n"
    )
    model = rows(0)
    model["sku-1"] = {
        "title": "007",
        "stock": 0,
        "price": 9.5,
        "on_sale": True,
        "since": NOON - timedelta(hours=12),
        "tags": ["a", "b"],
        "sizes": [1],
    }
    model["sku-2"] = dict.fromkeys(VALUES)
    assert served(shop) == model
    assert store_of(shop).page("user", filter="country = 'FR'").ids == ["u-1"]
    lines.write_text('{"item_id": "sku-3", "price": 0.30000000000000004, "tags": []}\n')
    pq.write_table(pa.table({"item_id": ["sku-4"], "price": pa.array([Decimal("19.99")])}), parquet)
    for file in (lines, parquet):
        done = command("set-attributes", "--repo", shop.repo.path, "--items", file, "--json")
        assert json.loads(done.out) == {
            "model": "shop",
            "version": version,
            "users": 0,
            "items": 1,
            "n_unknown": 0,
            "unknown": [],
        }
    model["sku-3"] |= {"price": 0.1 + 0.2, "tags": []}
    model["sku-4"]["price"] = 19.99
    assert served(shop) == model
    for text, message in [
        ("item_id,stock\nsku-1,1.5\n", "row 1, column 'stock' has to be a whole number of 64 bits or empty, got '1.5'"),
        ("item_id,prise\nsku-1,1.5\n", "items have no attribute 'prise' to set"),
        ("item_id,stock\nsku-1,1\nsku-1,2\n", "row 2 repeats the id 'sku-1'"),
        ("item_id\nsku-1\n", "expected columns of attributes next to 'item_id', got none"),
        ("id,stock\nsku-1,1\n", "item_id"),
    ]:
        csv.write_text(text)
        bad = command("set-attributes", "--repo", shop.repo.path, "--items", csv)
        assert (bad.code, bad.out, bad.err.count("\n")) == (2, "", 1)
        assert message in bad.err
    assert command("set-attributes", "--repo", shop.repo.path).code == 2
    assert served(shop) == model
    assert command("doctor", "--repo", shop.repo.path, "--max-age", 100_000).code == 0
