"""What a purchase and a view weighed in training they weigh whenever the user is folded in again, over each engine."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from qdrant_client import QdrantClient
from tests.support.publishing import publish_any
from tests.support.shop import ENGINES, Shop, apply, new_repo, qdrant

from embedding_trainers.fold_in import fold_in
from embedding_trainers.interactions import Columns, Preparation, read_interactions
from embedding_trainers.train import train_model
from feast_embeddings.artifact import embedding_matrix
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.query.store import EmbeddingStore

N_USERS, N_ITEMS = 40, 24
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
    feature_store = apply(repo)
    if request.param == "server-stand-in":
        qdrant(feature_store)._engine = ServerEngine(QdrantClient(":memory:"), streams=1)
    publish_any(feature_store, artifact)
    yield Shop(repo, artifact, feature_store)
    feature_store.teardown()  # type: ignore[no-untyped-call]
    qdrant(feature_store).engine(feature_store.config).close()


@pytest.fixture
def store(shop: Shop) -> Iterator[EmbeddingStore]:
    yield EmbeddingStore(shop.feature_store, "shop")
    (shop.repo.data / "shop.events.sqlite").unlink(missing_ok=True)


def scores(store: EmbeddingStore, user: str) -> list[float]:
    answer = store.rank(user, N_ITEMS, exclude_seen=False)
    of_item = dict(zip(answer.ids, answer.scores.tolist(), strict=True))
    return [of_item[item] for item in ITEMS]


def of_whole_log(shop: Shop, user: str, events: list[tuple[str, float]]) -> npt.NDArray[np.float32]:
    """The scores of a user whose whole log, with these events, is folded in."""
    own = LOG.filter(pa.array([name == user for name in LOG["user_id"].to_pylist()]))
    rows = own.append_column("weight", pa.array([WEIGHTS[event] for event in own["event"].to_pylist()]))
    more = pa.table(
        {"user_id": [user] * len(events), "item_id": [i for i, _ in events], "weight": [w for _, w in events]}
    )
    log = pa.concat_tables([rows.select(["user_id", "item_id", "weight"]), more], promote_options="permissive")
    vector = fold_in(shop.artifact, "user", read_interactions(log, Columns(weight="weight"))).vectors[0]
    table = shop.artifact.table("item")
    order = {item: row for row, item in enumerate(table["item_id"].to_pylist())}
    return embedding_matrix(table)[[order[item] for item in ITEMS]] @ vector


def test_an_event_after_the_training(store: EmbeddingStore, shop: Shop) -> None:
    """History and events together give the vector that the whole log gives: weights are those of the training."""
    np.testing.assert_allclose(scores(store, "u-0"), of_whole_log(shop, "u-0", []), atol=1e-3)
    known = shop.artifact.table("user")["seen_items"].to_pylist()[0][0]
    events = [("sku-23", 3.0), (known, 10.0)]
    store.add_interactions([{"user_id": "u-0", "item_id": item, "weight": weight} for item, weight in events])
    np.testing.assert_allclose(scores(store, "u-0"), of_whole_log(shop, "u-0", events), rtol=1e-5, atol=1e-6)
