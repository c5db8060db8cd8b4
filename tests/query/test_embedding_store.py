"""The queries, against brute force in numpy on the artifact itself."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
from tests.support.shop import AS_OF, Shop, apply, item_table, user_table, write_tables

from feast_embeddings.errors import FilterError, IdTypeError, InputError, NotPublishedError, UnknownIdError
from feast_embeddings.publish.run import publish_artifact
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo


@pytest.fixture
def store(shop: Shop) -> EmbeddingStore:
    """A published shop."""
    return shop.publish()


def matrix(shop: Shop, entity: str) -> npt.NDArray[np.float32]:
    table = shop.artifact.table("user" if entity == "user" else "item")
    flat: npt.NDArray[np.float32] = table["embedding"].combine_chunks().flatten().to_numpy()
    return flat.reshape(table.num_rows, -1)


def cosine(vectors: npt.NDArray[np.float32], row: int) -> npt.NDArray[np.float32]:
    norms = np.linalg.norm(vectors, axis=1)
    scores: npt.NDArray[np.float32] = vectors @ vectors[row] / (norms * norms[row])
    return scores


@pytest.mark.parametrize(("entity", "prefix"), [("item", "sku-"), ("user", "u-")])
def test_similar_is_brute_force_cosine(shop: Shop, store: EmbeddingStore, entity: str, prefix: str) -> None:
    """The nearest by cosine in order, with their scores, without the asked one."""
    scores = cosine(matrix(shop, entity), 3)
    expected = [i for i in np.argsort(-scores) if i != 3][:7]
    query = store.similar_items if entity == "item" else store.similar_users
    found = query(f"{prefix}3", 7)
    assert found.ids == [f"{prefix}{i}" for i in expected]
    np.testing.assert_allclose(found.scores, scores[expected], rtol=1e-5)
    assert found.version == shop.artifact.manifest.version


@pytest.mark.parametrize("exclude_seen", [True, False])
def test_rank_is_brute_force_dot_plus_bias(shop: Shop, store: EmbeddingStore, exclude_seen: bool) -> None:
    """user · item + bias over all items, minus the seen ones unless asked for."""
    bias = shop.artifact.table("item")["bias"].to_numpy()
    scores = matrix(shop, "item") @ matrix(shop, "user")[5] + bias
    seen = {5, 6} if exclude_seen else set()
    expected = [i for i in np.argsort(-scores) if i not in seen]
    found = store.rank("u-5", 100, exclude_seen=exclude_seen)
    assert found.ids == [f"sku-{i}" for i in expected]
    np.testing.assert_allclose(found.scores, scores[expected], rtol=1e-5, atol=1e-6)


def test_filters_keep_what_matches(shop: Shop, store: EmbeddingStore) -> None:
    """A filtered query returns as many as match, in the order of the unfiltered one."""
    everything = store.similar_items("sku-3", 100)
    found = store.similar_items("sku-3", 5, filter="category = 'Books' AND price < 20 AND NOT tags = 'red'")
    table = shop.artifact.table("item").to_pandas().set_index("item_id")
    expected = [
        id
        for id in everything.ids
        if table.category[id] == "Books" and table.price[id] < 20 and "red" not in table.tags[id]
    ]
    # An empty list counts as null, which satisfies no comparison.
    expected = [id for id in expected if len(table.tags[id])]
    assert found.ids == expected[:5]
    books = store.rank("u-1", 100, filter="category = 'Books'")
    assert {attributes["category"] for attributes in books.attributes} == {"Books"}
    assert len(books) == (table.category == "Books").sum() - 2  # both seen items are books


def test_answers_carry_attributes(store: EmbeddingStore) -> None:
    """Attributes given at training come back with each neighbour, in a frame as well; nulls stay nulls."""
    found = store.similar_items("sku-3", 100)
    four = found.to_dicts()[found.ids.index("sku-4")]
    assert set(four) == {"item_id", "score", "title", "category", "price", "tags"}
    assert (four["title"], four["price"]) == ("Item 4", None)
    # To the last bit: 3.3000000000000003 is more digits than Qdrant reads back.
    prices = {f"sku-{i}": i * 1.1 for i in range(40) if i not in (3, 4)} | {"sku-4": None}
    assert {row["item_id"]: row["price"] for row in found.to_dicts()} == prices
    frame = found.to_pandas()
    assert list(frame.columns) == ["item_id", "score", "title", "category", "price", "tags"]
    assert len(frame) == 39
    assert list(store.similar_items("sku-3", filter="price > 1000").to_pandas().columns) == ["item_id", "score"]


def test_embeddings_are_aligned_with_the_request(shop: Shop, store: EmbeddingStore) -> None:
    """Order and repeats are kept, unknown ids are rows of NaN and listed as missing."""
    found = store.user_embeddings(["u-2", "no-user", "u-0", "u-2"])
    expected = matrix(shop, "user")
    assert found.vectors.dtype == np.float32
    assert found.found.tolist() == [True, False, True, True]
    assert np.isnan(found.vectors[1]).all()
    assert found.vectors[[0, 2, 3]].tobytes() == expected[[2, 0, 2]].tobytes()
    assert found.missing == ["no-user"]
    assert found.event_timestamps == [AS_OF, None, AS_OF, AS_OF]
    assert (found.space, found.as_of) == (shop.artifact.manifest.space_id, AS_OF.isoformat())


def test_bad_questions_get_an_answer_in_words(store: EmbeddingStore) -> None:
    """Unknown ids, ids of another type, bad filters and k below 1 are errors of ours."""
    with pytest.raises(UnknownIdError, match="item 'sku-99' has no embedding in version"):
        store.similar_items("sku-99")
    with pytest.raises(InputError, match="user ids of this model are text, got 7"):
        store.rank(7)
    with pytest.raises(FilterError, match="did you mean 'category'"):
        store.similar_items("sku-1", filter="categori = 'Books'")
    with pytest.raises(FilterError, match="did you mean 'category'"):
        store.rank_batch(["no-user"], filter="categori = 'Books'")
    with pytest.raises(InputError, match="k must be at least 1, got 0"):
        store.similar_items("sku-1", 0)


# Each public method that takes a list of ids, and ids that the shop has.
LISTS: dict[str, tuple[Callable[[EmbeddingStore, Any], Any], list[str]]] = {
    "similar_items_batch": (lambda store, ids: store.similar_items_batch(ids, 3).ids, ["sku-1", "sku-2"]),
    "similar_users_batch": (lambda store, ids: store.similar_users_batch(ids, 3).ids, ["u-1", "u-2"]),
    "rank_batch": (lambda store, ids: store.rank_batch(ids, 3).ids, ["u-1", "u-2"]),
    "rank, item_ids": (lambda store, ids: store.rank("u-9", item_ids=ids).ids, ["sku-1", "sku-2"]),
    "users_for_item_batch": (lambda store, ids: store.users_for_item_batch(ids, 3).ids, ["sku-1", "sku-2"]),
    "lookalike_users": (lambda store, ids: store.lookalike_users(ids, 3).ids, ["u-1", "u-2"]),
    "user_embeddings": (lambda store, ids: (e := store.user_embeddings(ids)).ids + e.found.tolist(), ["u-1", "u-2"]),
    "item_embeddings": (lambda store, ids: (e := store.item_embeddings(ids)).ids + e.found.tolist(), ["sku-1"]),
}


@pytest.mark.parametrize("method", LISTS)
def test_lists_of_ids_are_lists(common_shop: Shop, method: str) -> None:
    """Any iterable is one, read once; one id alone, which would be taken apart, is refused, and so is a matrix."""
    ask, ids = LISTS[method]
    store = EmbeddingStore(common_shop.feature_store, "shop")
    expected = ask(store, ids)
    assert expected
    for given in (tuple(ids), iter(ids), (id for id in ids), map(str, ids), np.array(ids), pd.Series(ids, index=ids)):
        assert ask(store, given) == expected
    for wrong in ("u-1", b"u-1", bytearray(b"u-1"), 7, None if method != "rank, item_ids" else 7.5, np.array([ids])):
        with pytest.raises(InputError, match="takes a list of ids, got"):
            ask(store, wrong)


@pytest.mark.parametrize("wrong", ["sku-1", b"sku-1", [["sku-1"]], 7], ids=repr)
def test_interactions_are_lists_or_mappings(common_shop: Shop, wrong: Any) -> None:
    """One item alone as a visitor's history is refused, by `rank_visitor` and for each of many."""
    store = EmbeddingStore(common_shop.feature_store, "shop")
    with pytest.raises(InputError, match="interactions takes"):
        store.rank_visitor(wrong)
    with pytest.raises(InputError, match="interactions takes"):
        store.rank_visitors(visitor for visitor in [["sku-1"], wrong])


HUGE = [10_001, 10**6, 2**31, 2**32 + 1, 10**18, 2**63 - 1]


@pytest.mark.parametrize("k", HUGE)
def test_as_many_as_there_are(common_shop: Shop, k: int) -> None:
    """However many results are asked for, all that there are come back, and no room is reserved for more."""
    store = EmbeddingStore(common_shop.feature_store, "shop")
    assert len(store.similar_items("sku-1", k)) == 39
    assert len(store.similar_items("sku-1", int(np.int64(k)), filter="price IS NOT NULL")) == 38
    assert len(store.rank("u-1", k)) == 38
    assert len(store.rank("u-1", k, item_ids=["sku-9"])) == 1
    assert len(store.users_for_item("sku-1", k)) == 18
    assert len(store.lookalike_users(["u-1", "u-2"], k)) == 18
    assert len(store.page("item", k=k).ids) == 40


@pytest.mark.parametrize("k", [0, -1, 2**63, 10**30, -(10**30), 2.5, 3.0, "3", True, None], ids=repr)
def test_numbers_of_results_are_whole_numbers(common_shop: Shop, k: Any) -> None:
    """Anything else is an error of ours that says what was expected."""
    store = EmbeddingStore(common_shop.feature_store, "shop")
    asks: list[Callable[[], Any]] = [
        lambda: store.similar_items("sku-1", k),
        lambda: store.similar_users_batch(["u-1"], k),
        lambda: store.rank("u-1", k),
        lambda: store.users_for_item("sku-1", k),
        lambda: store.lookalike_users(["u-1"], k),
        lambda: store.page("item", k=k),
    ]
    for ask in asks:
        with pytest.raises(InputError, match=r"must be (a whole number of )?at least 1"):
            ask()


def test_nothing_live_is_said_so(shop: Shop) -> None:
    """Before the first publish every query says to publish."""
    store = EmbeddingStore(shop.feature_store, "shop")
    assert store.live_version() is None
    with pytest.raises(NotPublishedError, match="run feast-embeddings publish --model shop"):
        store.rank("u-1")
    with pytest.raises(InputError, match="views of model 'shoe' are not in the registry"):
        EmbeddingStore(shop.feature_store, "shoe")


# What Python takes for a whole number, and is not how an id is written.
OTHER_SPELLINGS = ["007", "1_0", "７", "+7", " 7", "7 ", "7\n", "-0", "٧", "", "-", "7.0", "1e3", "0x7", "9" * 5000]


@pytest.mark.parametrize(
    "ids",
    [
        [0, 127, 128, 2**53 + 1, 2**63 - 1, -5],
        ["a b", "a/b", "../x", "🎈" * 3, "x" * 300, "'; DROP", "sku\n1", "é"],
    ],
    ids=["integers", "text"],
)
def test_any_id_is_served(tmp_path: Path, ids: list[str | int]) -> None:
    """Ids of any size, sign and script go through artifact, Feast and Qdrant and come back as they are."""
    repo = init_repo(tmp_path / "repo")
    rng = np.random.default_rng(0)
    artifact = write_tables(
        repo.data, user_table(rng, pa.array(ids), [[ids[0]]] * len(ids)), item_table(rng, pa.array(ids))
    )
    feature_store = apply(repo)
    publish_artifact(feature_store, artifact)
    store = EmbeddingStore(feature_store, "shop")
    assert store.user_embeddings(ids).missing == []
    assert set(store.similar_items(ids[0], 100).ids) == set(ids[1:])
    assert set(store.rank(ids[1], 100).ids) == set(ids[1:])
    assert [store.parse_id("item", str(id)) for id in ids] == ids
    for text in OTHER_SPELLINGS if isinstance(ids[0], int) else []:
        with pytest.raises(IdTypeError, match=r"whole numbers, got .* written as 7 or -7"):
            store.parse_id("item", text)
    rows = feature_store.get_online_features(
        features=["shop_user_embeddings:version"], entity_rows=[{"user_id": id} for id in ids]
    ).to_dict()
    assert rows["version"] == [artifact.manifest.version] * len(ids)
