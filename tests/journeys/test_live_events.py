"""What users do changes the next answer, over each engine, in Python and over HTTP: as fold-in of the whole history."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.conftest import Command
from tests.support.asking import Asking
from tests.support.shop import ENGINES, Shop, apply, new_repo, serving

from embedding_trainers.interactions import Columns, Preparation
from embedding_trainers.train import train_model
from feast_embeddings.errors import IdTypeError, InputError
from feast_embeddings.events import Added
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo
from feast_embeddings.service.app import create_app
from feast_embeddings.service.settings import ServiceSettings

N_USERS, N_ITEMS = 60, 40


def write_log(path: Path) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(N_USERS), 6)
    frame = pd.DataFrame(
        {
            "user_id": [f"u-{u}" for u in users],
            "item_id": [f"sku-{i}" for i in rng.integers(0, N_ITEMS // 2, len(users)) + N_ITEMS // 2 * (users % 2)],
            "timestamp": pd.Timestamp("2026-04-01", tz="UTC") + pd.to_timedelta(np.arange(len(users)), "min"),
        }
    ).drop_duplicates(["user_id", "item_id"])
    frame.to_parquet(path)
    return frame


@pytest.fixture(scope="module", params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder = tmp_path_factory.mktemp("live")
    repo = new_repo(request, folder / "repo")
    write_log(folder / "log.parquet")
    parameters = {"factors": 8, "iterations": 5}
    artifact = train_model(repo.path, "shop", folder / "log.parquet", trainer="als", parameters=parameters).artifact
    yield from serving(request, repo, artifact)


@pytest.fixture
def store(shop: Shop) -> Iterator[EmbeddingStore]:
    yield EmbeddingStore(shop.feature_store, "shop")
    (shop.repo.data / "shop.events.sqlite").unlink(missing_ok=True)


def same(left: Any, right: Any) -> None:
    assert left.ids == right.ids
    np.testing.assert_allclose(left.scores, right.scores, rtol=1e-5, atol=1e-6)


def test_the_next_answer_knows(store: EmbeddingStore, shop: Shop) -> None:
    """A user's rank is that of a visitor with all that they have ever done; nobody else's changes."""
    seen = dict(zip(*(shop.artifact.table("user")[c].to_pylist() for c in ("user_id", "seen_items")), strict=True))
    before, others = store.rank("u-0", 20), store.rank("u-1", 20)
    assert store.add_interactions([{"user_id": "u-0", "item_id": "sku-39", "weight": 2.0}]) == Added(1, 0)
    store.add_interactions([{"user_id": "u-0", "item_id": "sku-38"}, {"user_id": "u-0", "item_id": seen["u-0"][0]}])
    history = dict.fromkeys(seen["u-0"], 1.0) | {"sku-39": 2.0, "sku-38": 1.0, seen["u-0"][0]: 2.0}
    same(store.rank("u-0", 20), store.rank_visitor(history, 20))
    assert store.rank("u-0", 20).ids != before.ids
    assert not {"sku-38", "sku-39"} & set(store.rank("u-0", N_ITEMS).ids)
    same(store.rank("u-0", 20, exclude_seen=False), store.rank_visitor(history, 20, exclude_seen=False))
    same(store.rank("u-1", 20), others)
    batch = store.rank_batch(["u-1", "u-0", "nobody"], 20)
    same(batch.answers[0], others)
    same(batch.answers[1], store.rank("u-0", 20))
    assert batch.missing == ["nobody"]


def test_a_newcomer_is_ranked_at_once(store: EmbeddingStore) -> None:
    """Also with items that no version knows, which count as seen."""
    store.add_interactions(
        [{"user_id": "new", "item_id": item, "event_id": item} for item in ("sku-1", "sku-2", "sku-new")]
    )
    same(store.rank("new", 20), store.rank_visitor(["sku-1", "sku-2"], 20))
    assert store.add_interactions([{"user_id": "new", "item_id": "sku-1", "event_id": "sku-1"}]) == Added(0, 1)
    same(store.rank("new", 20), store.rank_visitor(["sku-1", "sku-2"], 20))
    store.add_interactions([{"user_id": "odd", "item_id": "sku-new"}])
    assert store.rank_batch(["odd"], 5).missing == ["odd"]


def test_what_training_knew_counts_once(store: EmbeddingStore, shop: Shop) -> None:
    """An event that is no newer than the vector was in the log, or the log has another say."""
    before, as_of = store.rank("u-2", 20), shop.artifact.manifest.as_of
    store.add_interactions([{"user_id": "u-2", "item_id": "sku-39", "timestamp": as_of}])
    same(store.rank("u-2", 20), before)
    store.add_interactions([{"user_id": "u-2", "item_id": "sku-39", "timestamp": as_of + timedelta(seconds=1)}])
    assert "sku-39" not in store.rank("u-2", N_ITEMS).ids


def test_bad_events_add_nothing(store: EmbeddingStore) -> None:
    good = {"user_id": "u-3", "item_id": "sku-1"}
    for bad in ({"user_id": 7, "item_id": "sku-1"}, {"user_id": "u-3", "item_id": 7}):
        with pytest.raises(IdTypeError, match="ids of this model are text, got 7"):
            store.add_interactions([good, bad])
    with pytest.raises(InputError, match="interaction 1: weight"):
        store.add_interactions([good, {**good, "weight": -1}])
    assert not store._watch.events.path.exists()


def test_over_http(store: EmbeddingStore, shop: Shop, request: pytest.FixtureRequest) -> None:
    """The answer over HTTP is that of Python; a body with one bad event adds none."""
    if "stand-in" in request.node.name:
        pytest.skip("the stand-in for a server is in the memory of its own store")
    app = create_app(ServiceSettings(repo=shop.repo.path, allow_writes=True))
    moment = datetime.now(UTC).isoformat()
    event: dict[str, Any] = {"user_id": "u-4", "item_id": "sku-39", "timestamp": moment, "event_id": "click-1"}
    service = Asking(app)
    path = "/v1/models/shop/interactions"
    answer = service.post(path, {"interactions": [event, event]})
    assert answer.status_code == 200, answer.text
    assert answer.json() == {"model": "shop", "added": 1, "duplicates": 1, "without_weight": 0}
    ranked = service.post("/v1/models/shop/rank", {"user_id": "u-4", "limit": 20}).json()
    assert [row["id"] for row in ranked["results"]] == store.rank("u-4", 20).ids
    for wrong in ({"weight": 0}, {"timestamp": "2026-05-01T00:00:00"}, {"more": 1}, {"user_id": 7}):
        body = {"interactions": [{"user_id": "u-5", "item_id": "sku-39"}, {**event, **wrong}]}
        answer = service.post(path, body)
        assert answer.status_code == 422, answer.text
    assert store._watch.events.of_users(["u-5"]) == {}


def test_events_become_part_of_the_next_training(
    store: EmbeddingStore, shop: Shop, command: Command, tmp_path: Path
) -> None:
    """Written with the columns of the log, they are trained on, once each."""
    asked = ("events", "--repo", shop.repo.path, "--model", "shop", "--output", tmp_path / "log" / "events.parquet")
    (tmp_path / "log").mkdir()
    assert command(*asked).code == 2  # nothing was recorded
    log = write_log(tmp_path / "log" / "log.parquet")
    store.add_interactions([{"user_id": "new", "item_id": "sku-1"}, {"user_id": "u-0", "item_id": "sku-new"}])
    assert command(*asked).out.startswith("wrote 2 interactions to ")
    parameters = {"factors": 8, "iterations": 5}
    trained = train_model(shop.repo.path, "next", tmp_path / "log", trainer="als", parameters=parameters).artifact
    assert trained.manifest.n_interactions == len(log) + 2
    users = {row["user_id"]: row["seen_items"] for row in trained.table("user").to_pylist()}
    assert users["new"] == ["sku-1"]
    assert "sku-new" in users["u-0"]


def test_types_of_events(tmp_path: Path, command: Command) -> None:
    """They weigh as in the training at once, and are trained on as if they had been in the log."""
    repo = init_repo(tmp_path / "repo")
    (tmp_path / "log").mkdir()
    frame = write_log(tmp_path / "log" / "log.parquet").assign(event="view", quantity=1.0)
    frame.to_parquet(tmp_path / "log" / "log.parquet")
    given: dict[str, Any] = {
        "trainer": "als",
        "parameters": {"factors": 8, "iterations": 5},
        "columns": Columns(event="event", weight="quantity"),
        "preparation": Preparation(event_weights={"view": 1.0, "buy": 4.0, "hover": 0.0}),
    }
    shop = Shop(repo, train_model(repo.path, "shop", tmp_path / "log", **given).artifact, apply(repo))
    shop.publish()
    store = EmbeddingStore(shop.feature_store, "shop")
    new = {
        "user_id": "new",
        "item_id": "sku-1",
        "event": "buy",
        "weight": 2.0,
        "timestamp": datetime(2026, 5, 1, tzinfo=UTC),
    }
    added = store.add_interactions([new, {**new, "item_id": "sku-2", "event": "hover"}])
    assert added == Added(1, 0, without_weight=1)
    same(store.rank("new", 20), store.rank_visitor({"sku-1": 8.0}, 20))
    with pytest.raises(InputError, match="interaction 0: event 'sell' has no weight in the training"):
        store.add_interactions([{**new, "event": "sell"}])
    service = Asking(create_app(ServiceSettings(repo=repo.path, allow_writes=True)))
    body = {"user_id": "new", "item_id": "sku-3", "event": "view", "timestamp": "2026-05-02T00:00:00Z"}
    answer = service.post("/v1/models/shop/interactions", {"interactions": [body, {**body, "event": "hover"}]})
    assert answer.json() == {"model": "shop", "added": 1, "duplicates": 0, "without_weight": 1}

    written = command("events", "--repo", repo.path, "--output", tmp_path / "log" / "events.parquet")
    assert (written.code, written.err) == (0, "")
    rows = pd.read_parquet(tmp_path / "log" / "events.parquet")
    assert rows[["item_id", "event", "quantity"]].to_numpy().tolist() == [["sku-1", "buy", 2.0], ["sku-3", "view", 1.0]]
    trained = train_model(repo.path, "next", tmp_path / "log", **given).artifact
    users = {row["user_id"]: row for row in trained.table("user").to_pylist()}
    weights = dict(zip(users["new"]["seen_items"], users["new"]["seen_weights"], strict=True))
    assert weights == {"sku-1": 8.0, "sku-3": 1.0}
    store.add_interactions([{"user_id": "new", "item_id": "sku-4"}])
    untyped = command("events", "--repo", repo.path, "--model", "shop", "--output", tmp_path / "events.parquet")
    assert "1 of them has no type for column 'event'" in untyped.err
