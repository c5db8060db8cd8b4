"""A trainer whose users depend on the order of their items, and whose version keeps a network: from log to answers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix
from tests.support.shop import ENGINES, Shop, new_repo, serving

from embedding_trainers.fold_in import FoldIn, fold_in
from embedding_trainers.train import train_model
from embedding_trainers.trainer import (
    Factors,
    Folded,
    KnownSide,
    RunOptions,
    Trainer,
    TrainerConfig,
    TrainingLog,
    finding,
)
from feast_embeddings.artifact import Artifact, Network, embedding_matrix
from feast_embeddings.errors import ArtifactError, InputError
from feast_embeddings.query.store import EmbeddingStore

N_USERS, N_ITEMS, DIM = 60, 30, 4
ITEMS = [f"sku-{i:02}" for i in range(N_ITEMS)]
FIRST = datetime(2026, 4, 1, tzinfo=UTC)
_Floats = npt.NDArray[np.float32]


def as_learned(rng: np.random.Generator, n: int) -> _Floats:
    """The same items for each training, turned by its seed as a training turns them."""
    same = np.random.default_rng(5).normal(size=(n, DIM))
    turn, _ = np.linalg.qr(rng.normal(size=(DIM, DIM)))
    found: _Floats = (same @ turn).astype(np.float32)
    return found


def of_last(items: _Floats, log: TrainingLog, network: Any) -> Any:
    """The newest item counts 1, the one before half of it, and so on; then the network has its say."""
    n = int(log.user_rows.max()) + 1
    users = np.zeros((n, DIM), np.float32)
    for user, item in zip(log.user_rows, log.item_columns, strict=True):
        users[user] = users[user] / 2 + items[item] * network["gain"]
    return bent(users)


def bent(users: Any) -> Any:
    """A rotation of the items is none of the users then."""
    return np.where(users > 0, users, users / 4)


def train(user_items: csr_matrix, config: TrainerConfig, options: RunOptions) -> Factors:
    assert options.log is not None
    items = as_learned(np.random.default_rng(options.seed), user_items.shape[1])
    network = {"gain": np.linspace(1, 2, DIM, dtype=np.float32)}
    users = of_last(items, options.log.by_time(), network)
    return Factors(users, items, np.zeros(len(items), np.float32), network=Network(network))


def fold(interactions: csr_matrix, known: KnownSide, config: TrainerConfig, options: RunOptions) -> Folded:
    assert known.network is not None
    zeros = np.zeros(interactions.shape[0], np.float32)
    if known.entity == "user":
        return Folded(np.asarray(interactions @ known.factors, np.float32), zeros)
    assert options.log is not None
    return Folded(of_last(known.factors, options.log, known.network.weights), zeros)


ORDERED = Trainer(TrainerConfig, train, fold, uses_weights=False, reads_log=True, fold_in_reads_log=True)


class Entry:
    """As of an installed package."""

    name, value, dist = "ordered", "here:ORDERED", None

    def load(self) -> Any:
        return ORDERED


@pytest.fixture(scope="module", autouse=True)
def _installed() -> Iterator[None]:
    installed = metadata.entry_points
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(finding, "entry_points", lambda **asked: [*installed(**asked), Entry()])
        yield


def rows_of(walks: dict[str, Sequence[int]], start: datetime = FIRST) -> pa.Table:
    rows = [
        {"user_id": user, "item_id": ITEMS[item], "timestamp": start + timedelta(minutes=step)}
        for user, walk in walks.items()
        for step, item in enumerate(walk)
    ]
    order = np.random.default_rng(0).permutation(len(rows))
    return pa.Table.from_pylist([rows[place] for place in order])


WALKS: dict[str, Sequence[int]] = {
    f"u-{user:02}": np.random.default_rng(user).choice(N_ITEMS, 6, replace=False).tolist() for user in range(N_USERS)
}


@pytest.fixture(scope="module", params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """The second of two versions, turned into the space of the first."""
    repo = new_repo(request, tmp_path_factory.mktemp("ordered") / "repo")
    for seed in (1, 2):
        artifact = version(repo.path, seed)
    assert artifact.manifest.aligned_to is not None
    yield from serving(request, repo, artifact)


def version(repo: Path, seed: int, **more: Any) -> Artifact:
    options, factors = RunOptions(seed=seed, threads=1), {"factors": DIM}
    log = rows_of(WALKS)
    return train_model(
        repo, "shop", log, trainer="ordered", parameters=factors, options=options, evaluation=False, **more
    ).artifact


def oracle(artifact: Artifact, walk: Sequence[int]) -> _Floats:
    """The vector of a walk in the space of the version, by a loop."""
    network = artifact.network()
    assert network is not None
    assert network.rotation is not None
    items = embedding_matrix(artifact.table("item")).astype(np.float64) @ network.rotation.T
    vector = np.zeros(DIM)
    for item in walk:
        vector = vector / 2 + items[item] * network.weights["gain"]
    found: _Floats = (bent(vector) @ network.rotation).astype(np.float32)
    return found


def test_the_network_is_kept_and_turned(shop: Shop) -> None:
    """Users of the training are what their walks give, though the version was rotated; so are they when folded in."""
    artifact = shop.artifact
    network = artifact.network()
    assert network is not None
    assert network.rotation is not None
    assert np.abs(network.rotation - np.eye(DIM)).max() > 0.1
    np.testing.assert_allclose(network.rotation @ network.rotation.T, np.eye(DIM), atol=1e-6)
    users = artifact.table("user")
    folded = fold_in(artifact, "user", rows_of(WALKS))
    places = {id: place for place, id in enumerate(folded.ids)}
    for id, trained in zip(users["user_id"].to_pylist(), embedding_matrix(users), strict=True):
        np.testing.assert_allclose(trained, oracle(artifact, WALKS[id]), atol=1e-5)
        np.testing.assert_allclose(folded.vectors[places[id]], trained, atol=1e-5)


def test_a_visitor_is_their_order(shop: Shop) -> None:
    """The same items the other way round are another visitor."""
    store = EmbeddingStore(shop.feature_store, "shop")
    items = embedding_matrix(shop.artifact.table("item"))
    for walk in ([3, 9, 4], [4, 9, 3]):
        answer = store.rank_visitor([ITEMS[item] for item in walk], N_ITEMS, exclude_seen=False)
        scores = items @ oracle(shop.artifact, walk)
        assert answer.ids == [ITEMS[item] for item in np.argsort(-scores)]
        np.testing.assert_allclose(answer.scores, np.sort(scores)[::-1], rtol=1e-4, atol=1e-5)


def test_events_go_to_the_end(shop: Shop) -> None:
    """An item that a user had, and has again, is their newest; all others keep their places."""
    store = EmbeddingStore(shop.feature_store, "shop")
    walk = list(WALKS["u-07"])
    again, new = walk[1], next(item for item in range(N_ITEMS) if item not in walk)
    store.add_interactions([{"user_id": "u-07", "item_id": ITEMS[item]} for item in (new, again)])

    answer = store.rank("u-07", N_ITEMS, exclude_seen=False)

    walk.remove(again)
    scores = embedding_matrix(shop.artifact.table("item")) @ oracle(shop.artifact, [*walk, new, again])
    np.testing.assert_allclose(answer.scores, np.sort(scores)[::-1], rtol=1e-4, atol=1e-5)
    assert answer.ids == [ITEMS[item] for item in np.argsort(-scores)]


def test_new_items_are_known(shop: Shop) -> None:
    """An item that came after the training is turned back, like the others, before the network sees it."""
    version = FoldIn(shop.artifact, "user")
    new = embedding_matrix(shop.artifact.table("item"))[8]
    grown = version.knowing(pa.array(["sku-new"]), new[None])
    walks = ([ITEMS[2], ITEMS[8], ITEMS[5]], [ITEMS[2], "sku-new", ITEMS[5]])

    found = [grown.folded(np.zeros(3, np.int64), pa.array(walk), np.ones(3, np.float32))[1].factors for walk in walks]

    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    np.testing.assert_allclose(found[0][0], oracle(shop.artifact, [2, 8, 5]), atol=1e-5)


def test_a_changed_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").touch()
    artifact = version(tmp_path, 1)
    file = artifact.path / "network.parquet"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(ArtifactError, match=r"network\.parquet was changed after training"):
        FoldIn(artifact, "user")
    file.unlink()
    with pytest.raises(ArtifactError, match=r"network\.parquet is missing from the artifact"):
        FoldIn(artifact, "user")


def test_content_of_users_is_refused_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "feature_store.yaml").touch()
    users = pa.table({"user_id": list(WALKS), "about": [f"likes {user}" for user in WALKS]})
    with pytest.raises(InputError, match="cannot add content to them; leave out --user-content"):
        version(tmp_path, 1, user_attributes=users, user_content="about:text")
