"""What a purchase and a view weighed in training they weigh whenever the user is folded in again, over each engine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from tests.support.shop import ENGINES, Shop, apply, new_repo, qdrant, serving

from embedding_trainers.fold_in import fold_in
from embedding_trainers.interactions import Columns, Preparation, read_interactions
from embedding_trainers.train import train_model
from feast_embeddings.artifact import embedding_matrix, load_artifact
from feast_embeddings.codec.seen_weights import WEIGHTS_KEY
from feast_embeddings.query.store import EmbeddingStore

N_USERS, N_ITEMS, KEPT = 40, 24, 3
WEIGHTS = {"view": 1.0, "purchase": 10.0}
COLUMNS, PREPARATION = Columns(event="event"), Preparation(event_weights=WEIGHTS)
ITEMS = [f"sku-{i}" for i in range(N_ITEMS)]
FIRST = datetime(2026, 4, 1, tzinfo=UTC)


def write_log() -> pa.Table:
    """Each user views some items, some of them twice, and buys some of these."""
    rng = np.random.default_rng(0)
    rows = [
        (f"u-{user}", f"sku-{(item + 12 * (user % 2)) % N_ITEMS}", event)
        for user in range(N_USERS)
        for item in rng.choice(N_ITEMS // 2, 6, replace=False).tolist()
        for event in (["view"], ["view", "view"], ["view", "purchase"])[rng.integers(3)]
    ]
    users, items, events = zip(*rows, strict=True)
    times = [FIRST + timedelta(minutes=int(minute)) for minute in rng.permutation(len(rows))]
    return pa.table({"user_id": users, "item_id": items, "event": events, "timestamp": times})


LOG = write_log()


@pytest.fixture(scope="module", params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    repo = new_repo(request, tmp_path_factory.mktemp("weighed") / "repo")
    artifact = train_model(
        repo.path, "shop", LOG, columns=COLUMNS, preparation=PREPARATION, trainer="als", parameters={"factors": 8},
        evaluation=False,
    ).artifact  # fmt: skip
    train_model(
        repo.path, "short", LOG, columns=COLUMNS, preparation=PREPARATION, trainer="als", parameters={"factors": 8},
        evaluation=False, history=KEPT,
    )  # fmt: skip
    apply(repo, "short")
    yield from serving(request, repo, artifact, load_artifact(repo.data, "short"))


@pytest.fixture
def store(shop: Shop) -> Iterator[EmbeddingStore]:
    yield EmbeddingStore(shop.feature_store, "shop")
    (shop.repo.data / "shop.events.sqlite").unlink(missing_ok=True)


def scores(store: EmbeddingStore, user: str) -> list[float]:
    answer = store.rank(user, N_ITEMS, exclude_seen=False)
    of_item = dict(zip(answer.ids, answer.scores.tolist(), strict=True))
    return [of_item[item] for item in ITEMS]


def weighed_rows(user: str) -> list[dict[str, Any]]:
    rows = [row for row in LOG.to_pylist() if row["user_id"] == user]
    return [{"user_id": user, "item_id": row["item_id"], "weight": WEIGHTS[row["event"]]} for row in rows]


def of_whole_log(shop: Shop, user: str, events: list[tuple[str, float]]) -> npt.NDArray[np.float32]:
    """The scores of a user whose whole log, with these events, is folded in."""
    more = [{"user_id": user, "item_id": item, "weight": weight} for item, weight in events]
    log = pa.Table.from_pylist([*weighed_rows(user), *more])
    vector = fold_in(shop.artifact, "user", read_interactions(log, Columns(weight="weight"))).vectors[0]
    table = shop.artifact.table("item")
    order = {item: row for row, item in enumerate(table["item_id"].to_pylist())}
    found: npt.NDArray[np.float32] = embedding_matrix(table)[[order[item] for item in ITEMS]] @ vector
    return found


def test_an_event_after_the_training(store: EmbeddingStore, shop: Shop) -> None:
    """History and events together give the vector that the whole log gives: weights are those of the training."""
    np.testing.assert_allclose(scores(store, "u-0"), of_whole_log(shop, "u-0", []), atol=1e-3)
    known = shop.artifact.table("user")["seen_items"].to_pylist()[0][0]
    events = [("sku-23", 3.0), (known, 10.0)]
    store.add_interactions([{"user_id": "u-0", "item_id": item, "weight": weight} for item, weight in events])
    np.testing.assert_allclose(scores(store, "u-0"), of_whole_log(shop, "u-0", events), rtol=1e-5, atol=1e-6)


def test_only_the_newest_are_folded_in_again(shop: Shop) -> None:
    """A model that keeps three items of each user folds in three: the newest, an event's item among them."""
    store, version = EmbeddingStore(shop.feature_store, "short"), load_artifact(shop.repo.data, "short")
    first = version.table("user").slice(0, 1).to_pylist()[0]
    seen = dict(zip(first["seen_items"], first["seen_weights"], strict=True))
    assert len(seen) == KEPT
    oldest, _, newest = seen
    store.add_interactions(
        [{"user_id": first["user_id"], "item_id": item, "weight": 2.0} for item in (oldest, "sku-22", oldest)]
    )
    kept = {newest: seen[newest], oldest: seen[oldest] + 4.0, "sku-22": 2.0}
    answer, wanted = (
        store.rank(first["user_id"], N_ITEMS, exclude_seen=False),
        store.rank_visitor(kept, N_ITEMS, exclude_seen=False),
    )
    assert answer.ids == wanted.ids
    np.testing.assert_allclose(answer.scores, wanted.scores, rtol=1e-6)
    assert store.push_events()[:2] == (1, 0)
    pushed = store.rank(first["user_id"], N_ITEMS, exclude_seen=False)
    assert pushed.ids == wanted.ids
    np.testing.assert_allclose(pushed.scores, wanted.scores, rtol=1e-6)
    assert store.rank(first["user_id"], N_ITEMS).ids == [id for id in wanted.ids if id not in {*seen, "sku-22"}]


def test_an_event_after_a_push(store: EmbeddingStore, shop: Shop) -> None:
    """A pushed user has the weights of the log that was folded in, which has all that they did."""
    rows = [*weighed_rows("u-1"), {"user_id": "u-1", "item_id": "sku-7", "weight": 5.0}]
    log = pa.Table.from_pylist([row | {"timestamp": FIRST + timedelta(days=30)} for row in rows])
    folded = store.fold_in_users(read_interactions(log, Columns(weight="weight")), push=True, update=True)
    assert folded.ids == ["u-1"]
    events = [("sku-7", 10.0), ("sku-8", 2.0)]
    store.add_interactions([{"user_id": "u-1", "item_id": item, "weight": weight} for item, weight in events])
    expected = of_whole_log(shop, "u-1", [("sku-7", 5.0), *events])
    np.testing.assert_allclose(scores(store, "u-1"), expected, rtol=1e-5, atol=1e-6)


def test_materialize_keeps_the_weights(store: EmbeddingStore, shop: Shop) -> None:
    """They are no feature, so that views are the same with any log; yet rows from the history have them."""
    view = shop.feature_store.get_feature_view("shop_user_embeddings")
    assert {"seen_weights", "seen_times"}.isdisjoint(field.name for field in view.features)
    assert {"seen_weights", "seen_times"} <= set(shop.artifact.schema("user").names)
    engine, side = qdrant(shop.feature_store).engine(shop.feature_store.config), store._watch.sides["user"]
    live = engine.aliases()[side.alias]
    ids = side.point_ids(["u-2", "u-3"])
    before = [point.payload[WEIGHTS_KEY] for point in engine.retrieve(live, ids, vectors=[]) if point]
    shop.feature_store.materialize(FIRST - timedelta(days=1), FIRST + timedelta(days=20), [view.name])
    after = [point.payload[WEIGHTS_KEY] for point in engine.retrieve(live, ids, vectors=[]) if point]
    assert len(before) == 2
    assert after == before
