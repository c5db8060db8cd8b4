"""Hidden users and items: every answer is brute force over the others, whatever is published, and they come back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.query.test_shaping import CATEGORIES, SEEN, Oracle, skus
from tests.query.test_shaping import N as N_ITEMS
from tests.query.test_shaping import write as write_items
from tests.support.publishing import publish_any
from tests.support.shop import ENGINES, Shop, apply, graphs_of_few, served_shop, write_version

from feast_embeddings.errors import EmbeddingsError, IdTypeError, InputError, OptionError
from feast_embeddings.events import hidden_of
from feast_embeddings.publish.versions import roll_back
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo

N_USERS, N = 60, 200


@pytest.fixture(scope="module", params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A published shop over each engine in turn."""
    with graphs_of_few():
        yield from served_shop(
            request,
            tmp_path_factory.mktemp("shop"),
            lambda data: write_version(data, n_users=N_USERS, n_items=N),
        )


@pytest.fixture(scope="module", params=ENGINES)
def shaped(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One with categories and numbers of interactions."""
    yield from served_shop(request, tmp_path_factory.mktemp("shop"), write_items)


@pytest.fixture(autouse=True)
def nothing_left_hidden(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    for name in {"shop", "shaped"} & set(request.fixturenames):
        show_all(request.getfixturevalue(name))


def show_all(shop: Shop) -> None:
    store = EmbeddingStore(shop.feature_store, "shop")
    for entity, unhide in (("item", "items"), ("user", "users")):
        if ids := store.hidden(entity):  # type: ignore[arg-type]
            store.unhide(**{unhide: ids})


def hidden_ids(store: EmbeddingStore) -> tuple[list[str], list[str]]:
    items, users = (sorted(map(str, ids)) for ids in (store.hidden("item"), store.hidden("user")))
    return items, users


def unit(vectors: Any) -> npt.NDArray[np.float64]:
    matrix = np.stack(list(vectors)).astype(np.float64)
    lengths: npt.NDArray[np.float64] = np.linalg.norm(matrix, axis=1, keepdims=True)
    return matrix / lengths


@settings(max_examples=25, deadline=None, phases=[Phase.generate])
@given(data=st.data())
def test_every_answer_is_brute_force_over_the_others(shop: Shop, data: st.DataObject) -> None:
    """From none to all but a few hidden; each answer has k wherever that many are left."""
    show_all(shop)
    store = EmbeddingStore(shop.feature_store, "shop")
    share, rng = data.draw(st.sampled_from([0, 0.02, 0.5, 0.97])), np.random.default_rng(data.draw(st.integers(0, 99)))
    items, users = (np.flatnonzero(rng.random(n) < share).tolist() for n in (N, N_USERS))
    k = data.draw(st.sampled_from([1, 7, 80, N]), label="k")
    if items or users:
        # Also the nearest of all, in front of every answer.
        items = sorted({*items, int(store.similar_items("sku-3", 1).ids[0].removeprefix("sku-"))})  # type: ignore[union-attr]
        done = store.hide(items=[f"sku-{i}" for i in items], users=[f"u-{i}" for i in users])
        assert (done.items, done.users, done.n_unknown) == (len(items), len(users), 0)
    tables = {e: shop.artifact.table(e).to_pandas() for e in ("item", "user")}
    of_items, of_users = (unit(tables[e].embedding) for e in ("item", "user"))
    scores = np.stack(list(tables["user"].embedding)) @ np.stack(list(tables["item"].embedding)).T
    scores = scores + tables["item"].bias.to_numpy()
    out = set(items)

    def best(values: npt.NDArray[np.float64], left_out: set[int]) -> list[int]:
        return [i for i in np.argsort(-values).tolist() if i not in left_out][:k]

    # A hidden one can be asked for, and is in no answer but its own listing.
    for i in (3, *items[:1]):
        assert store.similar_items(f"sku-{i}", k).ids == skus(best(of_items @ of_items[i], out | {i}))
    for u in (5, *users[:1]):
        expected = best(of_users @ of_users[u], {*users, u})
        assert store.similar_users(f"u-{u}", k).ids == [f"u-{v}" for v in expected]
        assert store.rank(f"u-{u}", k).ids == skus(best(scores[u], out | {u, u + 1}))
    given_ids = rng.choice(N, 40, replace=False).tolist()
    reranked = store.rank("u-5", k, item_ids=skus(given_ids), exclude_seen=False)
    assert reranked.ids == skus(best(scores[5], out | (set(range(N)) - set(given_ids))))
    assert reranked.missing == []
    audience = store.users_for_item("sku-9", k, exclude_seen=False)
    assert audience.ids == [f"u-{u}" for u in best(scores[:, 9], set(users))]
    alike = store.lookalike_users(["u-1", "u-2"], k)
    mean = of_users[[1, 2]].mean(axis=0)
    assert alike.ids == [f"u-{u}" for u in best(of_users @ mean, {*users, 1, 2})]
    page = store.page("item", N)
    assert {id for id, hidden in zip(page.ids, page.hidden, strict=True) if hidden} == set(skus(items))
    assert len(page.ids) == N


@settings(max_examples=25, deadline=None, phases=[Phase.generate])
@given(data=st.data())
def test_with_all_options_and_for_strangers(shaped: Shop, data: st.DataObject) -> None:
    """Hiding an item is leaving it out, in the order of shaping: before limits, diversity and pages."""
    show_all(shaped)
    store, oracle = EmbeddingStore(shaped.feature_store, "shop"), Oracle(shaped)
    user = data.draw(st.sampled_from([0, 1, None]), label="user")
    items = data.draw(st.lists(st.integers(0, N_ITEMS - 1), max_size=280, unique=True), label="hidden")
    never = data.draw(st.lists(st.integers(0, N_ITEMS - 1), max_size=20), label="exclude_ids")
    options: dict[str, Any] = {
        "offset": data.draw(st.integers(0, 100)),
        "max_per": data.draw(st.none() | st.just({"category": 5})),
        "diversity": data.draw(st.sampled_from([0.0, 0.4])),
    }
    if items:
        store.hide(items=skus(items))
    found = store.rank(f"u-{user}", 20, exclude_ids=skus(never), fallback="popular", **options)
    scores = oracle.counts if user is None else oracle.scores[user]
    left_out = [*items, *never, *(() if user is None else SEEN[user])]
    assert found.ids == skus(oracle.rank(scores, 20, left_out=left_out, **options))


def test_a_filter_that_leaves_only_hidden_ones(shaped: Shop) -> None:
    """The answer is empty, and popular items are not said to be missing."""
    store = EmbeddingStore(shaped.feature_store, "shop")
    toys = skus([i for i in range(N_ITEMS) if CATEGORIES[i] == "Toys"])
    store.hide(items=toys)
    for user in ("u-0", "stranger"):
        assert store.rank(user, 5, filter="category = 'Toys'", fallback="popular").ids == []
    store.unhide(items=toys[:1])
    for user in ("u-0", "stranger"):
        assert store.rank(user, 5, filter="category = 'Toys'", fallback="popular").ids == toys[:1]
    with pytest.raises(OptionError):
        store.rank("stranger", fallback="newest")  # type: ignore[arg-type]


def test_versions_come_and_go(shop: Shop) -> None:
    """Other readers see it at once; publishes and rollbacks keep it; vectors are as they were, bit for bit."""
    store, reader = (EmbeddingStore(shop.feature_store, "shop") for _ in range(2))
    before = store.item_embeddings(["sku-1", "sku-2"]).vectors
    assert "sku-2" in reader.similar_items("sku-1", N).ids
    done = store.hide(items=["sku-2", "sku-new", "sku-2"], users=["u-4"])
    assert (done.items, done.users, done.n_unknown, done.unknown) == (2, 1, 1, ["sku-new"])
    assert store.hide(items=["sku-2"]).items == 0
    np.testing.assert_array_equal(store.item_embeddings(["sku-1", "sku-2"]).vectors, before)

    def are_hidden(*readers: EmbeddingStore) -> None:
        for each in readers:
            found = each.similar_items("sku-1", 2 * N).ids
            assert not {"sku-2", "sku-new"} & set(found)
            assert "u-4" not in each.users_for_item("sku-9", N).ids
            assert hidden_ids(each) == (["sku-2", "sku-new"], ["u-4"])

    are_hidden(store, reader)
    with graphs_of_few():
        newer = write_version(shop.repo.data, seed=1, n_users=N_USERS, n_items=N + 10)
        publish_any(shop.feature_store, newer)
    assert store.live_version() == newer.manifest.version
    are_hidden(store, reader, EmbeddingStore(shop.feature_store, "shop"))
    assert len(store.similar_items("sku-1", 2 * N)) == N + 10 - 2
    roll_back(shop.feature_store, shop.repo.data, "shop")
    assert store.live_version() == shop.artifact.manifest.version
    are_hidden(store, reader)
    undone = store.unhide(items=["sku-2", "sku-new", "sku-3"], users=["u-4"])
    assert (undone.items, undone.users, undone.unknown) == (2, 1, ["sku-new"])
    assert "sku-2" in reader.similar_items("sku-1", N).ids
    assert "u-4" in reader.users_for_item("sku-9", N).ids


def test_what_cannot_be_hidden(tmp_path: Path) -> None:
    """Nothing is half hidden; without a live version all are unknown; a damaged file is an error of ours."""
    repo = init_repo(tmp_path / "repo")
    shop = Shop(repo, write_version(repo.data), apply(repo))
    store = EmbeddingStore(shop.feature_store, "shop")
    done = store.hide(items=["sku-1"])
    assert (done.items, done.unknown) == (1, ["sku-1"])
    shop.publish()
    assert "sku-1" not in store.similar_items("sku-2", 99).ids
    for change in (store.hide, store.unhide):
        with pytest.raises(InputError, match="hide: expected ids of users or items, got none"):
            change()
        with pytest.raises(InputError, match="items takes a list of ids, got the single 'sku-1'"):
            change(items="sku-1")
        with pytest.raises(IdTypeError, match="user ids of this model are text, got 7"):
            change(items=["sku-3"], users=[7])
    assert hidden_ids(store) == (["sku-1"], [])
    path = hidden_of(repo.data, "shop").path
    path.write_bytes(path.read_bytes()[:-3])
    for ask in (lambda: store.similar_items("sku-2"), lambda: store.hide(items=["sku-4"])):
        with pytest.raises(EmbeddingsError, match=r"the hidden users and items in .*hidden.json cannot be used"):
            ask()


def test_ids_of_an_earlier_type_hide_nothing(shop: Shop) -> None:
    """The ids of a model may have been numbers when they were hidden."""
    hidden_of(shop.repo.data, "shop").add("item", [7])
    store = EmbeddingStore(shop.feature_store, "shop")
    assert len(store.similar_items("sku-1", N)) == N - 1
    hidden_of(shop.repo.data, "shop").remove("item", [7])
