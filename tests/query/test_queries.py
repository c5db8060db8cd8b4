"""Reranking, audiences, batches and listings over each engine, against brute force in numpy on the artifact itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
from tests.support.publishing import publish_any
from tests.support.shop import (
    AS_OF,
    ENGINES,
    Shop,
    apply,
    item_table,
    served_shop,
    user_table,
    write_tables,
    write_version,
)

from feast_embeddings.arguments import Id
from feast_embeddings.artifact import TrainerInfo, write_artifact
from feast_embeddings.errors import FilterError, InputError, UnknownIdError
from feast_embeddings.publish.gates import Gates
from feast_embeddings.publish.run import publish_artifact
from feast_embeddings.query.answers import Neighbours, NeighboursBatch, Page
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo


@pytest.fixture(scope="module", params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A published shop over each engine in turn; tests only read from it."""
    yield from served_shop(request, tmp_path_factory.mktemp("shop"))


@pytest.fixture
def store(shop: Shop) -> EmbeddingStore:
    """The queries of the shop."""
    return EmbeddingStore(shop.feature_store, "shop")


class Oracle:
    """The artifact in numpy and pandas."""

    def __init__(self, shop: Shop) -> None:
        self.users = shop.artifact.table("user").to_pandas()
        self.items = shop.artifact.table("item").to_pandas()
        self.user_vectors: npt.NDArray[np.float32] = np.stack(list(self.users.embedding))
        self.item_vectors: npt.NDArray[np.float32] = np.stack(list(self.items.embedding))
        self.scores = self.user_vectors @ self.item_vectors.T + self.items.bias.to_numpy()

    def best_users(self, item: int, allowed: pd.Series[bool]) -> list[str]:
        order = np.argsort(-self.scores[:, item])
        return [str(self.users.user_id[u]) for u in order if allowed[u]]


@pytest.fixture
def oracle(shop: Shop) -> Oracle:
    """Brute force."""
    return Oracle(shop)


def test_rerank_orders_the_given_items(store: EmbeddingStore, oracle: Oracle) -> None:
    """Only the given items come back, by score, fewer when seen or filtered; those unknown are named."""
    given = ["sku-9", "sku-3", "nothing", "sku-3", "sku-30", "sku-4"]
    expected = sorted({9, 3, 30, 4}, key=lambda i: -oracle.scores[3, i])
    found = store.rank("u-3", 10, item_ids=given, exclude_seen=False)
    assert found.ids == [f"sku-{i}" for i in expected]
    np.testing.assert_allclose(found.scores, oracle.scores[3, expected], rtol=1e-5)
    assert found.missing == ["nothing"]
    assert store.rank("u-3", 10, item_ids=given).ids == [f"sku-{i}" for i in expected if i not in (3, 4)]
    assert store.rank("u-3", 1, item_ids=["sku-9", "sku-30"]).missing == []
    toys = store.rank("u-3", 10, item_ids=given, filter="category = 'Toys'", exclude_seen=False)
    assert toys.ids == [f"sku-{i}" for i in expected if i % 3 == 0]
    assert store.rank("u-3", 10, item_ids=["nothing"]).ids == []


def test_users_for_an_item_are_those_of_the_highest_score(store: EmbeddingStore, oracle: Oracle) -> None:
    """The score is rank's; who has seen the item is left out unless asked for, and a filter is on users."""
    everybody = pd.Series(True, index=oracle.users.index)
    unseen = pd.Series([f"sku-{7}" not in seen for seen in oracle.users.seen_items])
    assert (~unseen).sum() == 2
    found = store.users_for_item("sku-7", 100)
    assert found.ids == oracle.best_users(7, unseen)
    assert (found.id_name, set(found.attributes[0])) == ("user_id", {"country"})
    np.testing.assert_allclose(found.scores, -np.sort(-oracle.scores[unseen, 7]), rtol=1e-5, atol=1e-6)
    assert store.users_for_item("sku-7", 100, exclude_seen=False).ids == oracle.best_users(7, everybody)
    dutch = store.users_for_item("sku-7", 4, filter="country = 'NL'")
    assert dutch.ids == oracle.best_users(7, unseen & (oracle.users.country == "NL"))[:4]
    np.testing.assert_allclose(store.rank("u-3", 1, item_ids=["sku-7"]).scores, [oracle.scores[3, 7]], rtol=1e-5)
    with pytest.raises(UnknownIdError, match="item 'nothing' has no embedding"):
        store.users_for_item("nothing")


def test_lookalikes_are_nearest_to_the_mean_direction(store: EmbeddingStore, oracle: Oracle) -> None:
    """Cosine to the mean of the seeds' unit vectors, without the seeds; unknown seeds are named."""
    unit = oracle.user_vectors / np.linalg.norm(oracle.user_vectors, axis=1, keepdims=True)
    mean = unit[[1, 5, 6]].mean(axis=0)
    cosine = unit @ mean / np.linalg.norm(mean)
    expected = [i for i in np.argsort(-cosine) if i not in (1, 5, 6)][:5]
    found = store.lookalike_users(["u-1", "no-user", "u-5", "u-6"], 5)
    assert found.ids == [f"u-{i}" for i in expected]
    np.testing.assert_allclose(found.scores, cosine[expected], rtol=1e-5)
    assert found.missing == ["no-user"]
    strangers = store.lookalike_users(["no-user", "somebody"])
    assert (strangers.ids, strangers.missing) == ([], ["no-user", "somebody"])


def test_a_batch_is_each_query_by_itself(store: EmbeddingStore, shop: Shop) -> None:
    """In the order of the request, repeats included; an unknown id is no error."""
    users, items = ["u-2", "no-user", "u-0", "u-2"], ["sku-5", "nothing", "sku-1"]
    batches: list[tuple[NeighboursBatch, Callable[..., Neighbours]]] = [
        (store.similar_items_batch(items, 5), store.similar_items),
        (store.similar_users_batch(users, 5), store.similar_users),
        (store.rank_batch(users, 5), store.rank),
        (store.users_for_item_batch(items, 5), store.users_for_item),
    ]
    for batch, single in batches:
        assert batch.version == shop.artifact.manifest.version
        assert batch.missing == [id for id in batch.ids if str(id).startswith("no")]
        for id, answer in zip(batch.ids, batch.answers, strict=True):
            if answer is None:
                assert str(id).startswith("no")
            else:
                assert answer.to_dicts() == single(id, 5).to_dicts()
    assert store.similar_items_batch([], 5).answers == []


def test_without_attributes_only_they_are_left_out(store: EmbeddingStore) -> None:
    """Ids and scores are the same."""
    full, bare = store.rank("u-3", 7), store.rank("u-3", 7, attributes=False)
    assert (bare.ids, bare.scores.tolist()) == (full.ids, full.scores.tolist())
    assert bare.attributes == [{}] * 7
    unseen, bare = store.users_for_item("sku-7", 30), store.users_for_item("sku-7", 30, attributes=False)
    assert bare.ids == unseen.ids


def pages(store: EmbeddingStore, **question: object) -> list[Page]:
    """All pages of a listing."""
    found = [store.page("item", **question)]  # type: ignore[arg-type]
    while found[-1].cursor is not None:
        found.append(store.page("item", cursor=found[-1].cursor, **question))  # type: ignore[arg-type]
    return found


def test_listings_have_every_match_once(store: EmbeddingStore, oracle: Oracle) -> None:
    """Full pages but for the last, each match once, vectors bit for bit without the bias."""
    found = pages(store, filter="category = 'Books'", k=7, vectors=True)
    ids: list[Id] = [id for page in found for id in page.ids]
    books = oracle.items[oracle.items.category == "Books"]
    assert sorted(map(str, ids)) == sorted(books.item_id)
    assert [len(page.ids) for page in found] == [7, 7, 7, 5]
    vectors = dict(zip(oracle.items.item_id, oracle.item_vectors, strict=True))
    for page in found:
        assert page.vectors is not None
        assert page.vectors.tobytes() == np.stack([vectors[id] for id in page.ids]).tobytes()
        assert {attributes["category"] for attributes in page.attributes} == {"Books"}
    (whole,) = pages(store, k=1000)
    assert (len(whole.ids), whole.vectors) == (40, None)
    users = store.page("user", filter="country = 'DE'", k=100)
    assert set(users.ids) == set(oracle.users.user_id[oracle.users.country == "DE"])


@pytest.mark.parametrize("cursor", ["", "x", "eyJhIjoxfQ", "WyJhIiwgdHJ1ZV0", "é", "WyIyMDI2IiwgMV0"])
def test_a_cursor_is_one_that_a_page_came_with(store: EmbeddingStore, cursor: str) -> None:
    """Anything else is bad input: not base64, not JSON, not of two, no point, no version that is loaded."""
    with pytest.raises(InputError, match="cursor"):
        store.page("item", cursor=cursor)


def test_bad_questions(store: EmbeddingStore) -> None:
    """Ids of another type, filters and numbers that make no sense are errors of ours."""
    with pytest.raises(InputError, match="item ids of this model are text, got 7"):
        store.rank("u-1", item_ids=[7])
    with pytest.raises(FilterError, match="there is no feature 'category'"):
        store.users_for_item("sku-1", filter="category = 'Books'")
    for question in (store.similar_items_batch, store.rank_batch, store.users_for_item_batch, store.lookalike_users):
        with pytest.raises(InputError, match="k must be at least 1, got 0"):
            question(["x"], 0)
        with pytest.raises(TypeError, match="unexpected keyword argument 'fitler'"):
            question(["x"], fitler="price < 20")  # type: ignore[call-arg]
    with pytest.raises(InputError, match="k must be at least 1, got 0"):
        store.page("item", k=0)


def test_a_publish_is_noticed_with_what_it_brings(tmp_path: Path) -> None:
    """One store answers from each version in turn; a listing begun before goes on in its own version."""
    repo = init_repo(tmp_path / "repo")
    shop = Shop(repo, write_version(repo.data), apply(repo))
    store = shop.publish()
    first = store.page("item", k=39)
    assert store.live_version() == shop.artifact.manifest.version
    rng = np.random.default_rng(1)
    items = item_table(rng, pa.array([f"sku-{i}" for i in range(50)]), dim=12)
    assert items.attributes is not None
    brand = items.attributes.append_column("brand", pa.array(["Acme"] * 50))
    second = write_artifact(
        repo.data,
        "shop",
        users=user_table(rng, pa.array(["u-1"]), [["sku-1"]], dim=12),
        items=type(items)(items.ids, items.embedding, items.n_interactions, items.bias, None, brand),
        as_of=AS_OF + timedelta(days=1),
        trainer=TrainerInfo(name="random", config={}),
        seed=1,
        metrics={},
        fingerprint="1" * 64,
        n_interactions=1,
    )
    publish_any(apply(repo), second)
    found = store.similar_items("sku-1", 3, filter="brand = 'Acme'")
    assert (found.version, found.attributes[0]["brand"]) == (second.manifest.version, "Acme")
    assert store.item_embeddings(["sku-1"]).vectors.shape == (1, 12)
    last = store.page("item", k=39, cursor=first.cursor)
    assert (last.version, len({*first.ids, *last.ids}), last.cursor) == (first.version, 40, None)


def test_half_a_registry_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Feast writes its file in place: while it cannot be read, a new version is served with the views known."""
    repo = init_repo(tmp_path / "repo")
    shop = Shop(repo, write_version(repo.data), apply(repo))
    store = shop.publish()
    assert store.live_version() == shop.artifact.manifest.version
    second = write_version(repo.data, seed=1, as_of=AS_OF + timedelta(days=1))
    publish_artifact(apply(repo), second, gates=Gates(allow_new_space=True))
    whole = (repo.path / "data" / "registry.db").read_bytes()
    for half in (b"", whole[: len(whole) // 2], b"\xff" * 9):
        (repo.path / "data" / "registry.db").write_bytes(half)
        monkeypatch.setattr(store._watch, "_next_look", 0.0)
        assert store.similar_items("sku-1", 3).version == second.manifest.version
    (repo.path / "data" / "registry.db").write_bytes(whole)
    assert store.similar_items("sku-1", 3).version == second.manifest.version


def test_always_k_where_so_many_match(tmp_path: Path) -> None:
    """Vectors in far clusters, most of one's own excluded as seen: the graph alone finds too few, a scan finds all."""
    rng, n, dim = np.random.default_rng(0), 4000, 1024  # 16 MB of vectors: from 10 MB on there is a graph
    cluster = np.arange(n) % 20
    vectors = rng.standard_normal((n, dim), dtype=np.float32)
    vectors += 3 * rng.standard_normal((20, dim), dtype=np.float32)[cluster]
    items, users = item_table(rng, pa.array(range(n)), dim=1), user_table(rng, pa.array(range(4)), dim=1)
    scores = vectors @ vectors[0]
    order = np.argsort(-scores)
    seen = [order[:m].tolist() for m in (100, 300, 1200, 3990)]
    repo = init_repo(tmp_path / "repo")
    artifact = write_tables(
        repo.data,
        type(users)(users.ids, vectors[[0] * 4], users.n_interactions, None, pa.array(seen), users.attributes),
        type(items)(items.ids, vectors, items.n_interactions, None, None, items.attributes),
    )
    feature_store = apply(repo)
    publish_artifact(feature_store, artifact)
    store = EmbeddingStore(feature_store, "shop")
    for user, excluded in enumerate(seen):
        left = order[len(excluded) :].tolist()
        found = store.rank(user, 50, attributes=False).ids
        assert len(found) == min(50, len(left))
        assert not set(found) & set(excluded)
        if len(excluded) > 256:  # a scan, so exact
            assert found == left[:50]
        assert len(store.rank(user, 50, filter="category = 'Toys'")) == min(50, sum(i % 3 == 0 for i in left))
    assert len(store.similar_items(0, n)) == n - 1
