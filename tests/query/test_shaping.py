"""Pages, boosts, limits per value, diversity, the fallback for strangers: against numpy over all items."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from feast.filter_models import ComparisonFilter
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from tests.support.shop import ENGINES, Shop, apply, item_table, served_shop, user_table, write_tables

from feast_embeddings.artifact import Artifact
from feast_embeddings.errors import IdTypeError, InputError, OptionError, UnknownIdError
from feast_embeddings.query.shaping import CANDIDATES, diversified
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import Repo, init_repo

N = 300
SEEN = {0: [3, 4, 5], 1: list(range(40))}
# Most items are of one category, some of none; a shelf is a list.
CATEGORIES = ["Books" if i % 10 else ("Toys", "Garden", None)[i // 10 % 3] for i in range(N)]
SHELVES = [[f"s{i % 4}", f"s{i % 3}"] if i % 7 else [] for i in range(N)]


def write(data: Any, counts: npt.NDArray[np.int64] | None = None) -> Artifact:
    """Items with a permutation of the numbers from 0 as interactions, if none are given."""
    rng = np.random.default_rng(0)
    items = item_table(rng, pa.array([f"sku-{i}" for i in range(N)]))
    attributes = pa.table({"category": CATEGORIES, "shelf": SHELVES, "price": np.arange(N) * 1.5})
    seen = [[f"sku-{i}" for i in SEEN[user]] for user in SEEN]
    return write_tables(
        data,
        user_table(rng, pa.array([f"u-{user}" for user in SEEN]), seen),
        replace(items, n_interactions=rng.permutation(N) if counts is None else counts, attributes=attributes),
    )


@pytest.fixture(scope="module", params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A published shop over each engine in turn; tests only read from it."""
    yield from served_shop(request, tmp_path_factory.mktemp("shop"), write)


@pytest.fixture(scope="module")
def store(shop: Shop) -> EmbeddingStore:
    """The queries of the shop."""
    return EmbeddingStore(shop.feature_store, "shop")


@dataclass
class Oracle:
    """What each option does, over all items, one after the other."""

    shop: Shop

    def __post_init__(self) -> None:
        items = self.shop.artifact.table("item").to_pandas()
        self.vectors = np.stack(list(items.embedding)).astype(np.float64)
        users = np.stack(list(self.shop.artifact.table("user").to_pandas().embedding))
        self.scores = users @ self.vectors.T + items.bias.to_numpy()
        self.counts = items.n_interactions.to_numpy().astype(np.float64)

    def rank(
        self,
        scores: npt.NDArray[np.float64],
        k: int,
        *,
        left_out: Sequence[int] = (),
        cheap: bool = False,
        offset: int = 0,
        max_per: dict[str, int] | None = None,
        diversity: float = 0.0,
    ) -> list[int]:
        order = [i for i in np.argsort(-scores).tolist() if i not in set(left_out) and not (cheap and i >= N // 2)]
        order = self.limited(order, max_per or {})
        if diversity:
            order = [*self.marginal(order[:CANDIDATES], scores, diversity), *order[CANDIDATES:]]
        return order[offset : offset + k]

    def limited(self, order: list[int], max_per: dict[str, int]) -> list[int]:
        taken, kept = Counter[tuple[str, str | None]](), []
        for i in order:
            own = {("category", CATEGORIES[i])} if CATEGORIES[i] else set()
            own = {(name, value) for name, value in own | {("shelf", s) for s in SHELVES[i]} if name in max_per}
            if all(taken[value] < max_per[value[0]] for value in own):
                taken.update(own)
                kept.append(i)
        return kept

    def marginal(self, order: list[int], scores: npt.NDArray[np.float64], diversity: float) -> list[int]:
        """As the paper has it: lambda is 1 - diversity, the similarities are the scaled score and the cosine."""
        if not order:
            return []
        low, high = scores[order].min(), scores[order].max()
        unit = self.vectors / np.linalg.norm(self.vectors, axis=1, keepdims=True)
        chosen: list[int] = []
        while left := [i for i in order if i not in chosen]:
            marginal = [
                (1 - diversity) * (scores[i] - low) / (high - low)
                - diversity * (unit[chosen] @ unit[i]).max(initial=-1)
                if chosen
                else scores[i]
                for i in left
            ]
            chosen.append(left[int(np.argmax(marginal))])
        return chosen


@pytest.fixture(scope="module")
def oracle(shop: Shop) -> Oracle:
    """Brute force."""
    return Oracle(shop)


def skus(rows: Sequence[int]) -> list[str]:
    return [f"sku-{i}" for i in rows]


BOOST = {"filter": "price > 1", "weight": 0.5}
LIMITS = st.dictionaries(st.sampled_from(["category", "shelf"]), st.integers(1, 9), min_size=1)


@settings(max_examples=40, deadline=None, phases=[Phase.generate])
@given(data=st.data())
def test_any_options_together_are_brute_force(store: EmbeddingStore, oracle: Oracle, data: st.DataObject) -> None:
    """In their order, for a user and for a stranger: exactly as many as there are, and always the same ones."""
    user = data.draw(st.sampled_from([0, 1, None]), label="user")
    k, offset = data.draw(st.integers(1, 40), label="k"), data.draw(st.integers(0, 260), label="offset")
    max_per = data.draw(st.none() | LIMITS, label="max_per")
    diversity = data.draw(st.just(0.0) | st.floats(0.05, 1), label="diversity")
    never = data.draw(st.lists(st.integers(0, N - 1), max_size=290), label="exclude_ids")
    cheap = data.draw(st.booleans(), label="cheap")
    options: dict[str, Any] = {"offset": offset, "max_per": max_per, "diversity": diversity, "fallback": "popular"}
    found = store.rank(
        f"u-{user}",
        k,
        exclude_ids=[*skus(never), "no-item"],
        filter=f"price < {N // 2 * 1.5}" if cheap else None,
        attributes=data.draw(st.booleans(), label="attributes"),
        **options,
    )
    scores = oracle.counts if user is None else oracle.scores[user]
    expected = oracle.rank(
        scores,
        k,
        left_out=[*never, *(() if user is None else SEEN[user])],
        cheap=cheap,
        offset=offset,
        max_per=max_per,
        diversity=diversity,
    )
    assert found.ids == skus(expected)
    np.testing.assert_allclose(found.scores, scores[expected], rtol=1e-4, atol=1e-5)
    assert found.fallback == ("popular" if user is None else None)
    assert found.missing == (["u-None"] if user is None else [])


# Conditions, and which items pass them.
CONDITIONS: dict[str, list[bool]] = {
    "category = 'Books'": [category == "Books" for category in CATEGORIES],
    "category IN ('Toys', 'Garden')": [category in ("Toys", "Garden") for category in CATEGORIES],
    "category IS NULL": [category is None for category in CATEGORIES],
    "price >= 300": [1.5 * i >= 300 for i in range(N)],
    "price < 150 OR category = 'Toys'": [1.5 * i < 150 or CATEGORIES[i] == "Toys" for i in range(N)],
    "price < 0": [False] * N,
    "item_id IN ('sku-3', 'sku-299', 'sku-77')": [i in (3, 77, 299) for i in range(N)],
    "NOT price BETWEEN 100 AND 200": [not 100 <= 1.5 * i <= 200 for i in range(N)],
}
# No sum of them makes two numbers of interactions equal.
WEIGHTS = st.sampled_from([0.37, -1.73, 2.5119, 0, 1e6, -1e6])
BOOSTS = st.lists(st.tuples(st.sampled_from(list(CONDITIONS)), WEIGHTS), max_size=5)
QUESTIONS: dict[str, Any] = {
    "user": lambda store, k, **options: store.rank("u-0", k, exclude_seen=False, **options),
    "stranger": lambda store, k, **options: store.rank("stranger", k, fallback="popular", **options),
    "item": lambda store, k, **options: store.similar_items("sku-7", k, **options),
    "examples": lambda store, k, **options: store.similar_items(None, k, positive=["sku-7"], **options),
    "vector": lambda store, k, **options: store.similar_items(
        None, k, vector=store.item_embeddings(["sku-7"]).vectors[0], **options
    ),
}


@pytest.fixture(scope="module")
def plain(store: EmbeddingStore, oracle: Oracle) -> dict[str, npt.NDArray[np.float64]]:
    """The score of each item for each question, float32 as the engine has it; -inf for one that is left out."""
    unit = oracle.vectors / np.linalg.norm(oracle.vectors, axis=1, keepdims=True)
    cosines = unit @ unit[7]
    exact = {"user": oracle.scores[0], "stranger": oracle.counts} | dict.fromkeys(("item", "examples"), cosines)
    scores = {}
    for name, ask in QUESTIONS.items():
        scores[name] = np.full(N, -np.inf)
        found = ask(store, N)
        rows = [int(id[4:]) for id in found.ids]
        scores[name][rows] = found.scores
        np.testing.assert_allclose(scores[name][rows], exact.get(name, cosines)[rows], rtol=1e-4, atol=1e-5)
        assert len(rows) == N - (name in ("item", "examples"))
    return scores


@settings(max_examples=25, deadline=None, phases=[Phase.generate])
@given(data=st.data())
def test_boosts_are_sums_over_all_items(
    store: EmbeddingStore, oracle: Oracle, plain: dict[str, npt.NDArray[np.float64]], data: st.DataObject
) -> None:
    """The score plus the weights of what an item passes, for any question, before limits, diversity and the page."""
    name = data.draw(st.sampled_from(list(QUESTIONS)), label="question")
    boosts = data.draw(BOOSTS, label="boosts")
    k, offset = data.draw(st.integers(1, 40), label="k"), data.draw(st.integers(0, 260), label="offset")
    max_per = data.draw(st.none() | LIMITS, label="max_per")
    diversity = data.draw(st.sampled_from([0.0, 0.0, 0.3, 1.0]), label="diversity")
    never = data.draw(st.lists(st.integers(0, N - 1), max_size=290), label="exclude_ids")
    cheap = data.draw(st.booleans(), label="cheap")
    found = QUESTIONS[name](
        store,
        k,
        boosts=[{"filter": condition, "weight": weight} for condition, weight in boosts],
        offset=offset,
        max_per=max_per,
        diversity=diversity,
        exclude_ids=iter(skus(never)),
        filter=f"price < {N // 2 * 1.5}" if cheap else None,
        attributes=data.draw(st.booleans(), label="attributes"),
    )
    sums = [math.fsum(weight for condition, weight in boosts if CONDITIONS[condition][i]) for i in range(N)]
    scores = plain[name] + np.array(sums)
    left_out = [*never, *np.flatnonzero(np.isinf(scores)).tolist()]
    options: dict[str, Any] = {"cheap": cheap, "offset": offset, "max_per": max_per, "diversity": diversity}
    expected = oracle.rank(scores, k, left_out=left_out, **options)
    assert found.ids == skus(expected)
    np.testing.assert_allclose(found.scores, scores[expected], rtol=1e-6, atol=1e-6)


def test_a_boost_lifts_from_the_very_end(store: EmbeddingStore) -> None:
    """Also what no search of so many would have found; Feast's filters do, too, and hidden items stay hidden."""
    last = store.rank("u-0", N).ids[-1]
    for filter in (f"item_id = '{last}'", ComparisonFilter(type="eq", key="item_id", value=last)):
        assert store.rank("u-0", 1, boosts=[{"filter": filter, "weight": 100}]).ids == [last]
    eight: Any = [{"filter": condition, "weight": 0.25} for condition in CONDITIONS]
    found = store.rank("u-0", N, boosts=eight).ids
    plain = dict(zip((answer := store.rank("u-0", N)).ids, answer.scores.tolist(), strict=True))
    lifted = {id: plain[id] + 0.25 * sum(passes[int(str(id)[4:])] for passes in CONDITIONS.values()) for id in plain}
    assert found == sorted(lifted, key=lambda id: -lifted[id])
    store.hide(items=[last])
    try:
        assert last not in store.rank("u-0", N, boosts=[{"filter": f"item_id = '{last}'", "weight": 100}]).ids
    finally:
        store.unhide(items=[last])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_per": {"category": 3}},
        {"diversity": 0.4},
        {"fallback": "popular"},
        {"boosts": [{"filter": "category = 'Toys'", "weight": 1}, {"filter": "price > 200", "weight": -0.5}]},
    ],
)
def test_pages_are_slices(store: EmbeddingStore, options: Any) -> None:
    """Page after page is the whole ranking, to its end; after the end there is nothing."""
    user = "stranger" if "fallback" in options else "u-0"
    whole = store.rank(user, N, **options)
    pages = [store.rank(user, 90, offset=at, **options) for at in (0, 90, 180, 270, 360)]
    assert [id for page in pages for id in page.ids] == whole.ids
    assert pages[-1].ids == []
    assert store.rank(user, 10, offset=10, **options).ids == store.rank(user, 20, **options).ids[10:]


def test_a_batch_tells_who_got_the_fallback(store: EmbeddingStore, oracle: Oracle) -> None:
    """Those without a vector, and they are missing as before; without a fallback they get nothing."""
    batch = store.rank_batch(["u-0", "stranger", "u-1"], 5, fallback="popular")
    assert [answer and answer.fallback for answer in batch.answers] == [None, "popular", None]
    assert batch.missing == ["stranger"]
    assert batch.answers[1] is not None
    assert batch.answers[1].ids == skus(oracle.rank(oracle.counts, 5))
    assert [answer and answer.ids for answer in store.rank_batch(["u-0", "stranger", "u-1"], 5).answers] == [
        batch.answers[0] and batch.answers[0].ids,
        None,
        batch.answers[2] and batch.answers[2].ids,
    ]
    with pytest.raises(UnknownIdError, match="user 'stranger' has no embedding"):
        store.rank("stranger")


def test_a_stranger_reranks_the_given_items(store: EmbeddingStore, oracle: Oracle) -> None:
    """By popularity; unknown items are missing, after the user."""
    found = store.rank("stranger", item_ids=["sku-3", "sku-9", "no-item", "sku-7"], fallback="popular")
    assert found.ids == skus(sorted([3, 9, 7], key=lambda i: -oracle.counts[i]))
    assert found.missing == ["stranger", "no-item"]


def test_ids_in_any_iterable(store: EmbeddingStore) -> None:
    """A generator is read once."""
    best = store.rank("u-0", 3).ids
    assert store.rank("u-0", 2, exclude_ids=(id for id in best[:1])).ids == best[1:]
    with pytest.raises(InputError, match="exclude_ids takes a list of ids"):
        store.rank("u-0", exclude_ids="sku-1")
    with pytest.raises(IdTypeError, match="item ids of this model are text"):
        store.rank("u-0", exclude_ids=[7])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset": -1}, "offset must be at least 0, got -1"),
        ({"offset": 1.5}, "offset must be a whole number of at least 0"),
        ({"offset": 2**63 - 1}, r"k \+ offset must be a whole number"),
        ({"max_per": {"colour": 1}}, "max_per: items have no attribute 'colour'; there are category, shelf, price"),
        ({"max_per": {"category": 0}}, "max_per of 'category' must be at least 1, got 0"),
        ({"max_per": {"category": 1.5}}, "max_per of 'category' must be a whole number"),
        ({"max_per": "category"}, "max_per must be attributes with numbers"),
        ({"diversity": 1.01}, "diversity must be a number from 0 to 1, got 1.01"),
        ({"diversity": float("nan")}, "diversity must be a number from 0 to 1, got nan"),
        ({"diversity": True}, "diversity must be a number from 0 to 1, got True"),
        ({"diversity": "much"}, "diversity must be a number from 0 to 1, got 'much'"),
        ({"boosts": "price > 1"}, r"boosts must be a list, as \[\{'filter'"),
        ({"boosts": {"filter": "price > 1", "weight": 1}}, "boosts must be a list"),
        ({"boosts": [BOOST] * 9}, "at most 8 boosts are possible, got 9"),
        ({"boosts": [BOOST, {"filter": "price > 1"}]}, r"boosts\[1\] must be a filter and a weight, as"),
        ({"boosts": [BOOST | {"factor": 1}]}, r"boosts\[0\] must be a filter and a weight, as"),
        ({"boosts": [BOOST, BOOST | {"filter": "colour = 1"}]}, r"boosts\[1\]: .*no feature 'colour'"),
        ({"boosts": [BOOST | {"filter": "price >"}]}, r"boosts\[0\]: "),
        ({"boosts": [BOOST | {"filter": None}]}, r"boosts\[0\]: the filter must be a condition, got None"),
        ({"boosts": [BOOST | {"weight": float("nan")}]}, r"boosts\[0\]: the weight must be a number .* got nan"),
        ({"boosts": [BOOST | {"weight": float("inf")}]}, r"boosts\[0\]: the weight must be a number"),
        ({"boosts": [BOOST | {"weight": 10**400}]}, r"boosts\[0\]: the weight must be a number from -1,000,000 to"),
        ({"boosts": [BOOST | {"weight": True}]}, r"boosts\[0\]: the weight must be a number"),
        ({"boosts": [BOOST | {"weight": "1"}]}, r"boosts\[0\]: the weight must be a number"),
        ({"fallback": "newest"}, "fallback must be 'popular', 'recent' or 'none', got 'newest'"),
    ],
)
def test_what_makes_no_sense_is_refused(store: EmbeddingStore, options: Any, message: str) -> None:
    """Whatever the users; the same for similar ones."""
    asks: list[Callable[[], Any]] = [lambda: store.rank("u-0", **options), lambda: store.rank_batch([], **options)]
    if "fallback" not in options:
        asks.append(lambda: store.similar_items_batch([], **options))
    for ask in asks:
        with pytest.raises(InputError, match=message):
            ask()


def test_a_limit_that_takes_numpys_numbers(store: EmbeddingStore) -> None:
    """As k does."""
    plain = store.rank("u-0", 4, offset=3, max_per={"category": 9}, diversity=0.5)
    numpys: Any = {"offset": np.int64(3), "max_per": {"category": np.int64(9)}, "diversity": np.float32(0.5)}
    assert store.rank("u-0", np.int64(4), **numpys).ids == plain.ids  # type: ignore[arg-type]


def applied(repo: Repo, counts: npt.NDArray[np.int64]) -> EmbeddingStore:
    return Shop(repo, write(repo.data, counts), apply(repo)).publish()


@pytest.mark.parametrize("k", [3, 40, N])
def test_recent_items_come_before_popular_ones(tmp_path: Any, k: int) -> None:
    """By the time of their newest event, which is the score; then by popularity. Filters and limits hold for both."""
    counts = np.random.default_rng(0).permutation(N)
    store = applied(init_repo(tmp_path / "repo"), counts)
    rng = np.random.default_rng(1)
    events = [(f"sku-{rng.integers(30)}", 1_700_000_000 + second) for second in range(50)] + [
        ("unknown", 1_700_000_100)
    ]
    store.add_interactions(
        {"user_id": "u-0", "item_id": item, "timestamp": datetime.fromtimestamp(second, UTC)} for item, second in events
    )
    newest = dict(events)
    del newest["unknown"]
    order = sorted(newest, key=lambda item: -newest[item])
    order += [f"sku-{i}" for i in np.argsort(-counts) if f"sku-{i}" not in newest]
    found = store.rank("stranger", k, fallback="recent")
    assert (found.ids, found.fallback, found.missing) == (order[:k], "recent", ["stranger"])
    hours = [newest[item] / 3600 for item in order[: len(newest)]]
    assert found.scores[: len(newest)].tolist() == [float(np.float32(hour)) for hour in hours][:k]
    assert (found.scores[len(newest) :] < 1).all()
    cheap = [item for item in order if int(item[4:]) < 20]
    assert store.rank("stranger", k, filter="price < 30", fallback="recent").ids == cheap[:k]
    left = [item for item in order if item not in order[:2]]
    assert store.rank("stranger", k, exclude_ids=order[:2], fallback="recent").ids == left[:k]
    store.hide(items=order[:1])
    assert store.rank("stranger", k, fallback="recent").ids == order[1:][:k]


def test_no_counts_no_popular_items(tmp_path: Any) -> None:
    """A version that was imported without them refuses; users with a vector are served all the same."""
    store = applied(init_repo(tmp_path / "repo"), np.zeros(N, dtype=np.int64))
    assert len(store.rank("u-0", 5, fallback="popular")) == 5
    with pytest.raises(OptionError, match="has no item with a number of interactions; train or import"):
        store.rank("stranger", 5, fallback="popular")


def test_items_without_interactions_come_last(tmp_path: Any) -> None:
    """They fill the answer, and may be all that a filter leaves."""
    counts = np.zeros(N, dtype=np.int64)
    counts[[7, 250]] = 5, 9
    store = applied(init_repo(tmp_path / "repo"), counts)
    found = store.rank("stranger", 6, fallback="popular")
    assert (found.ids[:2], found.scores.tolist()) == (["sku-250", "sku-7"], [9, 5, 0, 0, 0, 0])
    assert len(set(found.ids)) == 6
    assert set(store.rank("stranger", 9, filter="price < 3", fallback="popular").ids) == {"sku-0", "sku-1"}


def test_equal_scores_and_equal_vectors() -> None:
    """No spread is no failure: diversity alone decides, and equals keep their order."""
    same = np.repeat(np.eye(2), 2, axis=0)
    assert diversified(np.ones(4), same, 0.5, 9) == [0, 2, 1, 3]
    assert diversified(np.array([4.0, 3, 2, 1]), same, 1.0, 2) == [0, 2]
    assert diversified(np.empty(0), np.empty((0, 2)), 0.5, 3) == []
