"""Similar to examples, similar to a vector, of a named version, with some attributes: against brute force in numpy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.support.publishing import publish_any
from tests.support.shop import DIM, ENGINES, Shop, apply, served_shop, write_tables, write_version

from feast_embeddings.artifact import Artifact, EmbeddingTable, list_artifacts
from feast_embeddings.errors import IdTypeError, InputError, OptionError, UnknownIdError
from feast_embeddings.publish.versions import prune_versions
from feast_embeddings.query.answers import Neighbours
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo

N = 40


@pytest.fixture(scope="module", params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop over each engine in turn, with a version before the live one."""
    for shop in served_shop(request, tmp_path_factory.mktemp("shop")):
        newer = write_version(shop.repo.data, seed=1)
        publish_any(shop.feature_store, newer)
        yield Shop(shop.repo, newer, shop.feature_store)


@pytest.fixture
def store(shop: Shop) -> EmbeddingStore:
    return EmbeddingStore(shop.feature_store, "shop")


def matrix(artifact: Artifact, entity: Any = "item") -> npt.NDArray[np.float64]:
    rows: npt.NDArray[np.float64] = np.stack(list(artifact.table(entity).to_pandas().embedding)).astype(np.float64)
    return rows


def unit(rows: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    lengths: npt.NDArray[np.float64] = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / lengths


def nearest(artifact: Artifact, direction: npt.NDArray[np.float64], left_out: set[int], k: int) -> tuple[Any, Any]:
    cosines = unit(matrix(artifact)) @ unit(direction)
    order = [i for i in np.argsort(-cosines).tolist() if i not in left_out][:k]
    return [f"sku-{i}" for i in order], cosines[order]


ROWS = st.lists(st.integers(0, N - 1), min_size=1, max_size=6)


@settings(max_examples=40, deadline=None, phases=[Phase.generate])
@given(liked=ROWS, disliked=ROWS | st.just([]), k=st.integers(1, N), toys=st.booleans())
def test_examples_are_their_direction(shop: Shop, liked: list[int], disliked: list[int], k: int, toys: bool) -> None:
    """Twice the mean of the positive unit vectors less that of the negative ones; repeats count, none comes back."""
    store, rows = EmbeddingStore(shop.feature_store, "shop"), unit(matrix(shop.artifact))
    direction = 2 * rows[liked].mean(axis=0) - rows[disliked].mean(axis=0) if disliked else rows[liked].mean(axis=0)
    others = {i for i in range(N) if i % 3} if toys else set()
    found = store.similar_items(
        k=k,
        positive=(f"sku-{i}" for i in liked),
        negative=[*(f"sku-{i}" for i in disliked), "nothing"],
        filter="category = 'Toys'" if toys else None,
    )
    ids, cosines = nearest(shop.artifact, direction, {*liked, *disliked} | others, k)
    assert found.ids == ids
    np.testing.assert_allclose(found.scores, cosines, rtol=1e-4, atol=1e-5)
    assert (found.missing, found.version) == (["nothing"], shop.artifact.manifest.version)
    if len(set(liked)) == 1 and not disliked and not toys:
        assert store.similar_items(f"sku-{liked[0]}", k).ids == ids


@settings(max_examples=20, deadline=None, phases=[Phase.generate])
@given(seed=st.integers(0, 99), size=st.sampled_from([1e-30, 1.0, 1e30, 1e300]))
def test_a_vector_is_a_direction(shop: Shop, seed: int, size: float) -> None:
    """Of any length; the answer says of which version and space it was taken to be."""
    store = EmbeddingStore(shop.feature_store, "shop")
    vector = np.random.default_rng(seed).standard_normal(DIM)
    found = store.similar_items(vector=(vector * size).tolist(), k=N)
    ids, cosines = nearest(shop.artifact, vector, set(), N)
    assert (found.ids, found.space) == (ids, shop.artifact.manifest.space_id)
    np.testing.assert_allclose(found.scores, cosines, rtol=1e-4, atol=1e-5)


def test_an_items_own_vector_finds_it(store: EmbeddingStore) -> None:
    vector = store.item_embeddings(["sku-7"]).vectors[0]
    assert store.similar_items(vector=vector, k=1).ids == ["sku-7"]
    assert store.similar_items("sku-7", 5).ids == store.similar_items(vector=vector, k=6).ids[1:]


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        ({}, InputError, "give an item_id, positive examples"),
        ({"item_id": "sku-1", "positive": ["sku-2"]}, InputError, "give an item_id, positive examples"),
        ({"item_id": "sku-1", "vector": [1.0] * DIM}, InputError, "give an item_id, positive examples"),
        ({"negative": ["sku-1"]}, InputError, "give an item_id, positive examples"),
        ({"vector": [1.0] * DIM, "negative": ["sku-1"]}, InputError, "give an item_id, positive examples"),
        ({"positive": []}, OptionError, "positive must have at least one id"),
        ({"positive": "sku-1"}, InputError, "positive takes a list of ids"),
        ({"positive": [7]}, IdTypeError, "item ids of this model are text"),
        ({"vector": [1.0] * (DIM - 1)}, OptionError, "vector must be 8 numbers, as version .* got 7"),
        ({"vector": [[1.0] * DIM]}, OptionError, "vector must be 8 numbers, as version .* got an array of"),
        ({"vector": [0.0] * DIM}, OptionError, "got zeros only"),
        ({"vector": [float("nan")] * DIM}, OptionError, "some that are not finite"),
        ({"vector": ["x"] * DIM}, OptionError, "vector must be 8 numbers"),
        ({"positive": ["sku-1"], "attributes": ["colour"]}, OptionError, "items have no attribute 'colour'; there are"),
        ({"positive": ["sku-1"], "attributes": ["pric"]}, OptionError, "did you mean 'price'"),
        ({"positive": ["sku-1"], "attributes": "price"}, OptionError, "must be true, false or a list of names"),
    ],
)
def test_what_makes_no_question(store: EmbeddingStore, asked: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        store.similar_items(**asked)


def test_unknown_examples(store: EmbeddingStore) -> None:
    """They are missing; if no positive one is known, so is the answer."""
    found = store.similar_items(positive=["nothing", "none"], negative=["sku-1"])
    assert (found.ids, found.missing) == ([], ["nothing", "none"])


def test_examples_that_cancel_out(tmp_path: Path) -> None:
    """Opposite vectors have no mean direction."""
    repo = init_repo(tmp_path / "repo")
    vectors = np.concatenate([np.eye(DIM), -np.eye(DIM)]).astype(np.float32)
    items = EmbeddingTable(pa.array(range(2 * DIM)), vectors, np.ones(2 * DIM, np.int64))
    store = Shop(repo, write_tables(repo.data, None, items), apply(repo)).publish()
    with pytest.raises(OptionError, match="these examples cancel each other out"):
        store.similar_items(positive=[0, DIM])
    assert len(store.similar_items(k=5, positive=[0], negative=[DIM, 0])) == 5


ASK: list[Callable[..., Neighbours]] = [
    lambda store, **o: store.similar_items("sku-3", 9, **o),
    lambda store, **o: store.similar_items(None, 9, positive=["sku-3", "sku-4"], **o),
    lambda store, **o: store.similar_items(None, 9, vector=[1.0, *[0.5] * (DIM - 1)], **o),
    lambda store, **o: store.rank("u-3", 9, **o),
    lambda store, **o: store.rank("stranger", 9, fallback="popular", **o),
    lambda store, **o: store.rank("u-3", 9, max_per={"category": 4}, diversity=0.2, **o),
]


@pytest.mark.parametrize("ask", ASK, ids=["item", "examples", "vector", "user", "stranger", "shaped"])
def test_only_some_attributes(store: EmbeddingStore, ask: Callable[..., Neighbours]) -> None:
    """Those asked for, as they are among all; ids and scores are the same."""
    whole = ask(store)
    for names in (["price"], ["tags", "price", "tags"], ("title",), []):
        some = ask(store, attributes=names)
        assert some.ids == whole.ids
        assert some.attributes == [{name: row[name] for name in dict.fromkeys(names)} for row in whole.attributes]


def test_attributes_of_users(store: EmbeddingStore) -> None:
    asks: list[Callable[..., Neighbours]] = [
        lambda **o: store.users_for_item("sku-3", 5, **o),
        lambda **o: store.similar_users("u-3", 5, **o),
        lambda **o: store.lookalike_users(["u-3"], 5, **o),
    ]
    for ask in asks:
        whole = ask()
        assert set(whole.attributes[0]) == {"country"}
        assert ask(attributes=["country"]).to_dicts() == whole.to_dicts()


def test_a_loaded_version_by_name(shop: Shop, store: EmbeddingStore, tmp_path: Path) -> None:
    """What is kept for a rollback answers as it did when it was live; so does the live one by its name."""
    old, live = sorted(list_artifacts(shop.repo.data, "shop"), key=lambda artifact: artifact.manifest.version)
    rows = matrix(old)
    scores = matrix(old, "user") @ rows.T + old.table("item").to_pandas().bias.to_numpy()
    version = old.manifest.version
    found = store.similar_items("sku-3", 9, version=version)
    assert found.ids == nearest(old, rows[3], {3}, 9)[0]
    assert (found.version, found.space) == (version, old.manifest.space_id)
    unseen = [i for i in np.argsort(-scores[5]).tolist() if i not in (5, 6)]
    assert store.rank("u-5", 9, version=version).ids == [f"sku-{i}" for i in unseen[:9]]
    assert store.rank_batch(["u-5", "x"], 9, version=version).version == version
    best = [f"u-{u}" for u in np.argsort(-scores[:, 8]).tolist()]
    assert store.users_for_item("sku-8", 9, exclude_seen=False, version=version).ids == best[:9]
    assert store.similar_users("u-5", 3, version=version).version == version
    assert store.lookalike_users(["u-5"], 3, version=version).version == version
    store.hide(items=["sku-3"])
    assert "sku-3" not in store.similar_items("sku-4", N, version=version).ids
    store.unhide(items=["sku-3"])
    for ask in ASK:
        assert ask(store, version=live.manifest.version).to_dicts() == ask(store).to_dicts()
    with pytest.raises(UnknownIdError, match=f"item 'nothing' has no embedding in version {version}"):
        store.similar_items("nothing", version=version)
    loaded = f"loaded are: {live.manifest.version} \\(live\\), {version}$"
    with pytest.raises(OptionError, match=f"version 'none' of model 'shop' is not loaded; {loaded}"):
        store.rank("u-5", version="none")
    prune_versions(shop.feature_store, shop.repo.data, "shop", keep=0)
    with pytest.raises(OptionError, match=f"version '{version}' of model 'shop' is not loaded"):
        store.similar_items("sku-3", version=version)
