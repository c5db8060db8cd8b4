"""The generated shop: its tables, and the structure that embeddings are to find in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feast_embeddings.demo import CATEGORIES, Shop, generate_shop, write_shop
from feast_embeddings.errors import InputError

TIMESTAMP = pa.timestamp("us", tz="UTC")


@pytest.fixture(scope="module")
def shop() -> Shop:
    """The shop of the quickstart."""
    return generate_shop()


def _small_shop(seed: int = 0, end: datetime = datetime(2026, 11, 1, tzinfo=UTC)) -> Shop:
    return generate_shop(seed, n_users=50, n_items=100, n_interactions=1000, end=end)


def _numbers(table: pa.Table, column: str, ids: pa.Table) -> npt.NDArray[np.int64]:
    numbers: npt.NDArray[np.int64] = pc.index_in(table[column], value_set=ids[column].combine_chunks()).to_numpy()
    return numbers


def _counts(shop: Shop) -> npt.NDArray[np.float64]:
    """Purchases, shape (n_users, n_items)."""
    counts = np.zeros((shop.users.num_rows, shop.items.num_rows))
    rows = _numbers(shop.interactions, "user_id", shop.users), _numbers(shop.interactions, "item_id", shop.items)
    np.add.at(counts, rows, 1.0)
    return counts


def test_tables(shop: Shop) -> None:
    """The columns and sizes are the documented ones, and nothing is null."""
    text, tags = pa.string(), pa.list_(pa.string())
    assert list(zip(shop.interactions.schema.names, shop.interactions.schema.types, strict=True)) == [
        ("user_id", text),
        ("item_id", text),
        ("timestamp", TIMESTAMP),
        ("quantity", pa.int64()),
    ]
    assert list(zip(shop.items.schema.names, shop.items.schema.types, strict=True)) == [
        ("item_id", text),
        ("title", text),
        ("category", text),
        ("price", pa.float64()),
        ("tags", tags),
    ]
    assert list(zip(shop.users.schema.names, shop.users.schema.types, strict=True)) == [
        ("user_id", text),
        ("country", text),
        ("joined_at", TIMESTAMP),
    ]
    assert (shop.interactions.num_rows, shop.items.num_rows, shop.users.num_rows) == (80_000, 500, 2000)
    assert all(c.null_count == 0 for table in (shop.interactions, shop.items, shop.users) for c in table.columns)


def test_ids_are_those_of_the_readme(shop: Shop) -> None:
    """Ids are distinct, not zero-padded, and every user and item occurs in the interactions."""
    assert shop.users["user_id"].to_pylist() == [f"u-{i}" for i in range(1, 2001)]
    assert shop.items["item_id"].to_pylist() == [f"sku-{i}" for i in range(1, 501)]
    counts = _counts(shop)
    assert counts.sum() == 80_000
    assert counts.sum(axis=0).min() >= 1
    assert counts.sum(axis=1).min() >= 5


def test_items_read_well(shop: Shop) -> None:
    """Titles are distinct and of three words; each category has its share of items, at prices above zero."""
    titles = shop.items["title"].to_pylist()
    assert len(set(titles)) == 500
    assert {len(title.split()) for title in titles} == {3}
    assert [title.lower().split()[:2] for title in titles] == shop.items["tags"].to_pylist()
    categories, counts = np.unique(shop.items["category"].to_numpy(), return_counts=True)
    assert set(categories) == set(CATEGORIES)
    assert counts.tolist() == [50] * len(CATEGORIES)
    prices = shop.items["price"].to_numpy()
    assert prices.min() > 0
    assert 0.1 < (prices < 20).mean() < 0.9


def test_titles_stay_distinct_in_a_large_shop() -> None:
    """With more items than names, later ones are numbered."""
    titles = generate_shop(n_users=1, n_items=6000, n_interactions=5).items["title"].to_pylist()
    assert len(set(titles)) == 6000
    assert sum(title.endswith(" 3") for title in titles) == 1000


def test_purchases_lie_in_the_period(shop: Shop) -> None:
    """Purchases are sorted, spread over the eight months before the end, and never before their user joined."""
    end = datetime(2026, 11, 1, tzinfo=UTC)
    timestamps = shop.interactions["timestamp"]
    assert timestamps.to_numpy().tolist() == sorted(timestamps.to_numpy().tolist())
    assert end - timedelta(days=245) <= timestamps[0].as_py() < end - timedelta(days=240)
    assert end - timedelta(days=1) < timestamps[-1].as_py() < end
    joined = shop.users["joined_at"].take(pa.array(_numbers(shop.interactions, "user_id", shop.users)))
    assert pc.all(pc.less_equal(joined, timestamps)).as_py()
    assert min(shop.interactions["quantity"].to_pylist()) == 1


def test_end_moves_the_period() -> None:
    """The end is a parameter, of any time zone, and changes nothing but the times."""
    end = datetime(2025, 6, 1, tzinfo=UTC)
    early, late = _small_shop(end=end), _small_shop(end=end + timedelta(days=10))
    apart = pc.subtract(late.interactions["timestamp"], early.interactions["timestamp"])
    assert set(apart.to_pylist()) == {timedelta(days=10)}
    assert late.items.equals(early.items)
    zoned = datetime.fromisoformat("2025-06-01T02:00:00+02:00")
    assert _small_shop(end=zoned).interactions.equals(early.interactions)


def test_category_taste_can_be_recovered(shop: Shop) -> None:
    """Of an item's ten nearest by cosine, nearly all are of its category (measured .998, chance .1)."""
    counts = np.log1p(_counts(shop))
    counts /= np.sqrt(counts.sum(axis=0) + 1)
    _, scale, directions = np.linalg.svd(counts / np.linalg.norm(counts, axis=1, keepdims=True), full_matrices=False)
    vectors = directions[:16].T * scale[:16]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = vectors @ vectors.T
    np.fill_diagonal(similarity, -np.inf)
    nearest = np.argsort(-similarity, axis=1)[:, :10]
    category = shop.items["category"].to_numpy()
    kind = np.array([title.split()[2] for title in shop.items["title"].to_pylist()])
    assert (category[nearest] == category[:, None]).mean() > 0.95
    # Within a category a fifth is of the same kind; measured .58 to .63.
    assert (kind[nearest] == kind[:, None]).mean() > 0.4


def test_popularity_and_activity_are_skewed(shop: Shop) -> None:
    """A tenth of the items makes .38 to .40 of the purchases, and so does a tenth of the users."""
    counts = _counts(shop)
    for totals in (counts.sum(axis=0), counts.sum(axis=1)):
        top = np.sort(totals)[-len(totals) // 10 :]
        assert 0.3 < top.sum() / totals.sum() < 0.5


def test_taste_drifts(shop: Shop) -> None:
    """Users buy in the same categories in the last months as in the first, but not quite as much."""
    category = _numbers(shop.items, "category", pa.table({"category": CATEGORIES}))
    third = shop.interactions.num_rows // 3

    def shares(rows: pa.Table) -> npt.NDArray[np.float64]:
        bought = np.zeros((2000, len(CATEGORIES)))
        users, items = _numbers(rows, "user_id", shop.users), _numbers(rows, "item_id", shop.items)
        np.add.at(bought, (users, category[items]), 1.0)
        return bought

    shuffled = shop.interactions.take(pa.array(np.random.default_rng(0).permutation(shop.interactions.num_rows)))

    def agreement(rows: pa.Table) -> float:
        first, second = shares(rows.slice(0, third)), shares(rows.slice(2 * third))
        active = (first.sum(axis=1) >= 20) & (second.sum(axis=1) >= 20)
        first, second = first[active], second[active]
        norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
        return float(((first * second).sum(axis=1) / norms).mean())

    drifted, stable = agreement(shop.interactions), agreement(shuffled)
    # Measured .89, where .93 is what the same purchases in random order have.
    assert 0.8 < drifted < stable - 0.02


def test_some_users_churn(shop: Shop) -> None:
    """A third of the users bought nothing in the last 60 days, also frequent buyers; most who buy what lasts."""
    counts = _counts(shop).sum(axis=1)
    last = np.zeros(2000)
    days = shop.interactions["timestamp"].cast(pa.int64()).to_numpy() / 86_400e6
    np.maximum.at(last, _numbers(shop.interactions, "user_id", shop.users), days)
    quiet = last < days.max() - 60
    assert 0.25 < quiet.mean() < 0.4
    assert 0.2 < quiet[counts >= 30].mean() < 0.4
    is_lasting = np.isin(shop.items["category"].to_numpy(), ["Garden", "Toys", "Sports", "Electronics"])
    share = _counts(shop) @ is_lasting / counts
    assert quiet[share > 0.7].mean() > 2 * quiet[share < 0.3].mean()


def test_the_seed_decides() -> None:
    """Equal seeds give equal tables; another seed gives another shop."""
    first, again, other = (_small_shop(seed) for seed in (1, 1, 2))
    assert first == again
    assert not first.interactions.equals(other.interactions)
    assert not first.items.equals(other.items)
    assert not first.users.equals(other.users)


@pytest.mark.parametrize(("n_users", "n_items"), [(1, 1), (1, 7), (7, 1), (30, 51)])
def test_small_shops(n_users: int, n_items: int) -> None:
    """Any size from one user and one item on has every purchase that was asked for."""
    counts = _counts(generate_shop(n_users=n_users, n_items=n_items, n_interactions=5 * n_users))
    assert counts.shape == (n_users, n_items)
    assert counts.sum(axis=1).tolist() == [5.0] * n_users


@pytest.mark.parametrize(("n_users", "n_items", "n_interactions"), [(0, 1, 10), (1, 0, 10), (2, 1, 9)])
def test_refuses_impossible_shops(n_users: int, n_items: int, n_interactions: int) -> None:
    """Sizes that cannot be had are refused with the sizes in the message."""
    with pytest.raises(InputError, match=f"got {n_users} users, {n_items} items and {n_interactions} interactions"):
        generate_shop(n_users=n_users, n_items=n_items, n_interactions=n_interactions)


def test_writes_parquet(tmp_path: Path) -> None:
    """The tables are read back equal; the same shop is the same bytes."""
    shop = generate_shop(n_users=5, n_items=9, n_interactions=50)
    paths = write_shop(shop, tmp_path / "new" / "folder")
    assert paths == {
        name: tmp_path / "new" / "folder" / f"{name}.parquet" for name in ("interactions", "items", "users")
    }
    for name, path in paths.items():
        assert pq.read_table(path).equals(getattr(shop, name))
    again = write_shop(generate_shop(n_users=5, n_items=9, n_interactions=50), tmp_path)
    assert {name: path.read_bytes() for name, path in again.items()} == {
        name: path.read_bytes() for name, path in paths.items()
    }
