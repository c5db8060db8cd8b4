"""Feast's push source takes interactions, over each engine: as `add_interactions` does, in Python and over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml
from feast import Entity, FeatureStore, FileSource, ValueType
from feast.data_source import PushMode
from feast.feature_server import get_app
from tests.journeys.test_live_events import same, write_log
from tests.support.shop import ENGINES, Shop, item_table, new_repo, qdrant, serving, write_tables, write_version

from embedding_trainers.interactions import Columns, Preparation
from embedding_trainers.train import train_model
from feast_embeddings import embedding_views, interactions_view, publish_artifact
from feast_embeddings.doctor import examine
from feast_embeddings.errors import InputError
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo

NOW = datetime(2026, 6, 1, tzinfo=UTC)
TRAINING: dict[str, Any] = {"trainer": "als", "parameters": {"factors": 8, "iterations": 5}}


def log_source(folder: Path) -> FileSource:
    """Where Feast appends what is pushed to the offline store."""
    return FileSource(name="log", path=str(folder / "pushed.parquet"), timestamp_field="event_timestamp")


@pytest.fixture(scope="module", params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("pushed")
    repo = new_repo(request, folder / "repo")
    write_log(folder / "log.parquet").assign(event="view").to_parquet(folder / "log.parquet")
    weighed: dict[str, Any] = {
        "columns": Columns(event="event"),
        "preparation": Preparation(event_weights={"view": 1, "buy": 4}),
    }
    artifact = train_model(repo.path, "shop", folder / "log.parquet", **TRAINING, **weighed).artifact
    frame().to_parquet(folder / "pushed.parquet")
    for made in serving(request, repo, artifact):
        made.feature_store.apply(interactions_view(embedding_views("shop", repo.data), log_source(folder)))
        yield made


@pytest.fixture
def store(shop: Shop) -> Iterator[EmbeddingStore]:
    yield EmbeddingStore(shop.feature_store, "shop")
    (shop.repo.data / "shop.events.sqlite").unlink(missing_ok=True)


def frame(**columns: Any) -> pd.DataFrame:
    """Two interactions of a new user, but for these columns."""
    rows = {
        "user_id": ["new", "new"],
        "item_id": ["sku-1", "sku-2"],
        "event_timestamp": pd.to_datetime([NOW, NOW]).as_unit("us"),
        "event": ["buy", None],
        "weight": [2.0, None],
        "event_id": ["click-1", None],
    }
    return pd.DataFrame(rows | columns)


def push(feature_store: FeatureStore, rows: pd.DataFrame, to: PushMode = PushMode.ONLINE) -> None:
    feature_store.push("shop_interactions", rows, to=to)


def test_what_is_pushed_changes_the_next_answer(store: EmbeddingStore, shop: Shop) -> None:
    """With weights and types, at their own times; an event id that is there already is not added again."""
    assert store.rank_batch(["new"], 5).missing == ["new"]
    push(shop.feature_store, frame())
    same(store.rank("new", 20), store.rank_visitor({"sku-1": 8.0, "sku-2": 1.0}, 20))
    (events,) = store._watch.events.of_users(["new"]).values()
    assert [(e.item_id, e.weight, e.event_id, e.type) for e in events] == [
        ("sku-1", 8.0, "click-1", "buy"),
        ("sku-2", 1.0, None, None),
    ]
    assert {event.timestamp for event in events} == {int(NOW.timestamp()) * 1_000_000}
    push(shop.feature_store, frame()[:1])
    assert store._watch.events.of_users(["new"]) == {"new": events}
    asyncio.run(shop.feature_store.push_async("shop_interactions", frame(event_id=["click-1", "click-2"])))
    assert len(store._watch.events.of_users(["new"])["new"]) == 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"weight": [1.0, -1.0]}, "interaction 1: weight must be"),
        ({"item_id": ["sku-1", None]}, "interaction 1: item_id must be"),
        ({"user_id": ["new", None]}, "interaction 1: user_id must be"),
        ({"event_timestamp": [NOW, pd.NaT]}, "interaction 1: timestamp must be"),
        ({"event_timestamp": [NOW, datetime(2200, 1, 1, tzinfo=UTC)]}, "interaction 1: timestamp 2200"),
        ({"event": ["buy", "sell"]}, "interaction 1: event 'sell' has no weight in the training"),
        ({"event_id": ["click-1", "x" * 201]}, "interaction 1: event_id must be"),
    ],
)
def test_bad_rows_are_refused_with_all_others(
    store: EmbeddingStore, shop: Shop, wrong: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        push(shop.feature_store, frame(**wrong))
    assert store._watch.events.of_users(["new"]) == {}


def test_a_missing_column_is_refused(store: EmbeddingStore, shop: Shop) -> None:
    """By Feast, as it does not know which columns may be left out."""
    with pytest.raises(KeyError, match="weight"):
        push(shop.feature_store, frame().drop(columns="weight"))
    assert store._watch.events.of_users(["new"]) == {}


def test_over_the_feature_server(store: EmbeddingStore, shop: Shop) -> None:
    """The answer to /push comes when the interactions are on disk; a frame with a bad row is an error."""
    rows = {**frame().to_dict("list"), "event_timestamp": [NOW.isoformat()] * 2, "weight": [2.0, None]}

    async def ask(**wrong: Any) -> httpx.Response:
        transport = httpx.ASGITransport(app=get_app(shop.feature_store), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            return await client.post("/push", json={"push_source_name": "shop_interactions", "df": rows | wrong})

    answer = asyncio.run(ask())
    assert answer.status_code == 200, answer.text
    same(store.rank("new", 20), store.rank_visitor({"sku-1": 8.0, "sku-2": 1.0}, 20))
    answer = asyncio.run(ask(weight=[1.0, -1.0], event_id=["a", "b"]))
    assert (answer.status_code, "interaction 1: weight must be" in answer.text) == (500, True)
    assert len(store._watch.events.of_users(["new"])["new"]) == 2


def test_offline_too(store: EmbeddingStore, shop: Shop) -> None:
    """Feast appends the rows to the table behind the push source."""
    table = shop.repo.path.parent / "pushed.parquet"
    before = len(pd.read_parquet(table))
    push(shop.feature_store, frame(), PushMode.ONLINE_AND_OFFLINE)
    assert len(pd.read_parquet(table)) == before + 2
    assert len(store._watch.events.of_users(["new"])["new"]) == 2


def test_nothing_else_touches_the_view(store: EmbeddingStore, shop: Shop) -> None:
    """It has no online values, is not materialized from its table, and makes no collection."""
    with pytest.raises(InputError, match="only takes pushes"):
        shop.feature_store.get_online_features(["shop_interactions:item_id"], [{"user_id": "u-1"}])
    shop.feature_store.materialize(datetime(2020, 1, 1, tzinfo=UTC), NOW)
    push(shop.feature_store, frame())
    aliases = qdrant(shop.feature_store).engine(shop.feature_store.config).aliases()
    assert not [alias for alias in aliases if "interactions" in alias]
    assert len(store._watch.events.of_users(["new"])["new"]) == 2


def test_doctor_has_nothing_to_say(shop: Shop, request: pytest.FixtureRequest) -> None:
    if "stand-in" in request.node.name:
        pytest.skip("the stand-in for a server is in the memory of its own store")
    assert not [finding for finding in examine(shop.repo).findings if "shop_interactions" in finding.message]


def test_a_routed_store_with_entities_of_the_repo(tmp_path: Path) -> None:
    """The frame has the repo's own join keys and only the columns that were asked for; ids are whole numbers."""
    repo = init_repo(tmp_path / "repo")
    config = yaml.safe_load((repo.path / "feature_store.yaml").read_text())
    other = {"type": "sqlite", "path": "online.db"}
    config["online_store"] = {"type": "feast_embeddings.RoutedOnlineStore", "default": other}
    (repo.path / "feature_store.yaml").write_text(yaml.safe_dump(config))
    numbers = pd.DataFrame({"user_id": [n % 20 for n in range(100)], "item_id": [n * 7 % 13 for n in range(100)]})
    numbers.to_parquet(tmp_path / "log.parquet")
    artifact = train_model(repo.path, "shop", tmp_path / "log.parquet", **TRAINING).artifact
    customer, product = (
        Entity(name=name, join_keys=[f"{name}_no"], value_type=ValueType.INT64) for name in ("customer", "product")
    )
    views = embedding_views("shop", repo.data, user_entity=customer, item_entity=product)
    feature_store = repo.feature_store()
    view = interactions_view(views, log_source(tmp_path), name="clicks", columns=["event_id"])
    feature_store.apply([*views.by_name().values(), view])
    publish_artifact(feature_store, artifact)
    rows = {"customer_no": [77], "product_no": [3], "event_timestamp": [datetime.now(UTC)], "event_id": ["one"]}
    feature_store.push("clicks", pd.DataFrame(rows))
    store = EmbeddingStore(feature_store, "shop")
    same(store.rank(77, 5), store.rank_visitor([3], 5))


def test_what_cannot_be_a_view(tmp_path: Path) -> None:
    repo = init_repo(tmp_path / "repo")
    write_version(repo.data)
    views, source = embedding_views("shop", repo.data), log_source(tmp_path)
    with pytest.raises(InputError, match="expected some of event, weight, event_id"):
        interactions_view(views, source, columns=["price"])
    with pytest.raises(InputError, match="has no timestamp_field"):
        interactions_view(views, FileSource(name="log", path="log.parquet"))
    weight = Entity(name="thing", join_keys=["weight"], value_type=ValueType.STRING)
    with pytest.raises(InputError, match="join keys 'user_id' and 'weight'"):
        interactions_view(embedding_views("shop", repo.data, item_entity=weight), source)
    ids = pa.array(["sku-1", "sku-2"])
    write_tables(repo.data, items=item_table(np.random.default_rng(0), ids), model="alone")
    with pytest.raises(InputError, match="model 'alone' has no users"):
        interactions_view(embedding_views("alone", repo.data), source)
