"""A generated shop: purchases with structure that embeddings can find, for the quickstart and for tests.

By design, each user likes few categories and, in each, some kinds of item more than others; that taste drifts a little
over the months; few items and few users make most of the purchases; some users stop buying, much more often those who
buy durable things. So taste predicts churn and lifetime value beyond the counts of purchases.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feast_embeddings.errors import InputError

__all__ = ["CATEGORIES", "Shop", "generate_shop", "write_shop"]

_ADJECTIVES = ("Classic", "Compact", "Deluxe", "Foldable", "Handmade", "Modern", "Quiet", "Rustic", "Simple", "Vintage")
# Category -> typical price, materials, kinds of item.
_CATALOGUE: dict[str, tuple[float, tuple[str, ...], tuple[str, ...]]] = {
    "Books": (18, ("Cloth", "Leather", "Linen", "Paper", "Velvet"), ("Atlas", "Cookbook", "Diary", "Novel", "Guide")),
    "Kitchen": (32, ("Bamboo", "Cast-Iron", "Copper", "Glass", "Steel"), ("Kettle", "Knife", "Pan", "Scale", "Teapot")),
    "Garden": (27, ("Cedar", "Clay", "Rope", "Stone", "Zinc"), ("Bench", "Feeder", "Hammock", "Planter", "Rake")),
    "Toys": (21, ("Cork", "Felt", "Foam", "Plush", "Wooden"), ("Bear", "Castle", "Kite", "Puzzle", "Train")),
    "Sports": (45, ("Carbon", "Gel", "Mesh", "Nylon", "Rubber"), ("Dumbbell", "Helmet", "Paddle", "Racket", "Sneaker")),
    "Clothing": (39, ("Cotton", "Denim", "Silk", "Tweed", "Wool"), ("Coat", "Dress", "Hat", "Scarf", "Shirt")),
    "Beauty": (15, ("Almond", "Aloe", "Honey", "Lavender", "Rose"), ("Balm", "Cream", "Perfume", "Serum", "Soap")),
    "Electronics": (120, ("Ceramic", "Oak", "Solar", "Steel", "Walnut"), ("Fan", "Clock", "Lamp", "Radio", "Speaker")),
    "Office": (24, ("Beech", "Brass", "Chrome", "Oak", "Slate"), ("Binder", "Lectern", "Tray", "Pen", "Stapler")),
    "Pets": (19, ("Canvas", "Fleece", "Hemp", "Jute", "Wicker"), ("Basket", "Bowl", "Collar", "Leash", "Tunnel")),
}  # fmt: skip
CATEGORIES = tuple(_CATALOGUE)
_KINDS = 5
_COUNTRIES = {"DE": 0.3, "FR": 0.2, "NL": 0.2, "ES": 0.12, "PL": 0.1, "SE": 0.08}

_DAYS = 245
_MIN_PURCHASES = 5
# Share of purchases that follow popularity and not the user's taste.
_CASUAL = 0.1
# Share of a user's taste that is new by the end.
_DRIFT = 0.4
# Probability that a user stops buying in the period, per unit of taste for a category: durable things are bought for a
# while, the rest again and again.
_LEAVING = np.array([0.95 if name in ("Garden", "Toys", "Sports", "Electronics") else 0.02 for name in CATEGORIES])

_TIMESTAMP = pa.timestamp("us", tz="UTC")
_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Shop:
    """Three tables; timestamps are UTC.

    Attributes:
        interactions: user_id, item_id, timestamp, quantity (int64 ≥ 1); a row for each purchase, oldest first.
        items: item_id (``sku-1`` …), title (distinct), category (of `CATEGORIES`), price (float64 > 0),
            tags (list of string); a row for each item.
        users: user_id (``u-1`` …), country, joined_at (before the first purchase); a row for each user.
    """

    interactions: pa.Table
    items: pa.Table
    users: pa.Table


def generate_shop(
    seed: int = 0,
    *,
    n_users: int = 2000,
    n_items: int = 500,
    n_interactions: int = 80_000,
    end: datetime = datetime(2026, 11, 1, tzinfo=UTC),
) -> Shop:
    """Generate a shop; equal arguments give equal tables.

    Args:
        seed: seed of all randomness.
        n_interactions: number of purchases; each user makes at least 5.
        end: time of the last possible purchase; the first is 245 days before.

    Raises:
        InputError: there are no users, no items, or less than 5 purchases per user.
    """
    if n_users < 1 or n_items < 1 or n_interactions < _MIN_PURCHASES * n_users:
        raise InputError(
            f"a shop needs users, items, and at least {_MIN_PURCHASES} interactions per user, got "
            f"{n_users:,} users, {n_items:,} items and {n_interactions:,} interactions"
        )
    rng = np.random.default_rng(seed)
    # Every category and kind gets its share, in random order.
    group = rng.permutation(np.arange(n_items) % (len(CATEGORIES) * _KINDS))
    popularity = rng.permutation((np.arange(n_items) + 10.0) ** -1.0)
    item_ids = _ids("sku-", n_items)
    user_ids = _ids("u-", n_users)

    taste = _tastes(rng, n_users)
    joined, first, last = _lifetimes(rng, taste.before @ _LEAVING)
    user = _purchasers(rng, n_users, n_interactions)
    day = first[user] + (last - first)[user] * rng.random(n_interactions)
    oldest_first = np.argsort(day, kind="stable")
    user, day = user[oldest_first], day[oldest_first]
    item = _purchased(rng, user, day, group, popularity, taste)

    interactions = pa.table(
        {
            "user_id": user_ids.take(pa.array(user)),
            "item_id": item_ids.take(pa.array(item)),
            "timestamp": _timestamps(end, day),
            "quantity": rng.geometric(0.8, n_interactions),
        }
    )
    countries = pa.array(list(_COUNTRIES))
    country = rng.choice(len(countries), n_users, p=list(_COUNTRIES.values()))
    users = pa.table(
        {"user_id": user_ids, "country": countries.take(pa.array(country)), "joined_at": _timestamps(end, joined)}
    )
    return Shop(interactions, _items(rng, item_ids, group), users)


def write_shop(shop: Shop, folder: Path) -> dict[str, Path]:
    """Write ``interactions.parquet``, ``items.parquet`` and ``users.parquet``; returns their paths by table."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = {name: folder / f"{name}.parquet" for name in ("interactions", "items", "users")}
    for name, path in paths.items():
        pq.write_table(getattr(shop, name), path)
    return paths


@dataclass(frozen=True)
class _Taste:
    """Tastes of users: shares of the categories on the first and on the last day, and of the kinds in a category."""

    before: _Floats
    after: _Floats
    kinds: _Floats


def _tastes(rng: np.random.Generator, n_users: int) -> _Taste:
    by_category = rng.uniform(0.5, 1.5, len(CATEGORIES)) * 0.2
    before, fresh = rng.dirichlet(by_category, (2, n_users))
    kinds = rng.dirichlet(np.full(_KINDS, 0.6), (n_users, len(CATEGORIES)))
    return _Taste(before, (1 - _DRIFT) * before + _DRIFT * fresh, kinds)


def _lifetimes(rng: np.random.Generator, leaving: _Floats) -> tuple[_Floats, _Floats, _Floats]:
    """Draw per user the days of joining, of the first and of the last possible purchase, from 0 to `_DAYS`.

    Half of the users joined before day 0. Users churn with probability `leaving`, at any time after their first month.
    """
    n_users = len(leaving)
    joined = rng.uniform(-_DAYS, 0.7 * _DAYS, n_users)
    first = np.maximum(joined, 0.0)
    is_churned = rng.random(n_users) < leaving
    leaves = first + 30 + (_DAYS - 30 - first) * rng.beta(1.0, 1.5, n_users)
    return joined, first, np.where(is_churned, leaves, float(_DAYS))


def _purchasers(rng: np.random.Generator, n_users: int, n_interactions: int) -> _Ints:
    """Draw the user of each purchase, shape (n_interactions,); the counts per user are log-normal above the minimum."""
    activity = rng.lognormal(0.0, 1.1, n_users)
    extra = rng.multinomial(n_interactions - _MIN_PURCHASES * n_users, activity / activity.sum())
    return np.repeat(np.arange(n_users), _MIN_PURCHASES + extra)


def _purchased(
    rng: np.random.Generator, user: _Ints, day: _Floats, group: _Ints, popularity: _Floats, taste: _Taste
) -> _Ints:
    """Draw the item of each purchase: a group by the user's taste on that day, then an item of it by popularity."""
    n_groups = len(CATEGORIES) * _KINDS
    in_group = group == np.arange(n_groups)[:, None]
    group_popularity = (in_group * popularity).sum(axis=1)
    n_users = len(taste.before)
    # Rows are the users with their taste on the first day, then the same users on the last.
    categories = np.concatenate([taste.before, taste.after])
    groups = (categories[:, :, None] * np.tile(taste.kinds, (2, 1, 1))).reshape(2 * n_users, n_groups)
    groups = (1 - _CASUAL) * groups * (group_popularity > 0) + _CASUAL * group_popularity / group_popularity.sum()
    is_late = rng.random(len(day)) < day / _DAYS
    return _draw(rng, in_group * popularity, _draw(rng, groups, user + n_users * is_late))


def _draw(rng: np.random.Generator, weights: _Floats, rows: _Ints) -> _Ints:
    """Draw for each of `rows` a column of that row of `weights`, with probability proportional to its weight."""
    n_rows, n_columns = weights.shape
    # A row without weight (a group without items) is never drawn.
    cumulative = np.cumsum(weights, axis=1) / np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    steps = (np.minimum(cumulative, 1.0) + np.arange(n_rows)[:, None]).ravel()
    found = np.searchsorted(steps, rows + rng.random(len(rows)), side="right") - rows * n_columns
    columns: _Ints = np.minimum(found, n_columns - 1)
    return columns


def _items(rng: np.random.Generator, item_ids: pa.Array, group: _Ints) -> pa.Table:
    n_items = len(group)
    category = group // _KINDS
    prices, materials, kinds = zip(*_CATALOGUE.values(), strict=True)
    # The items of a group use its names in the group's own order, and then again as a second edition.
    by_group = np.argsort(group, kind="stable")
    number = np.empty(n_items, dtype=np.int64)
    number[by_group] = np.arange(n_items) - np.searchsorted(group[by_group], group[by_group])
    n_names = len(_ADJECTIVES) * _KINDS
    name = (number * 7 + rng.integers(n_names, size=len(CATEGORIES) * _KINDS)[group]) % n_names
    adjective = _take(_ADJECTIVES, name % len(_ADJECTIVES))
    material = _take(np.ravel(materials), category * _KINDS + name // len(_ADJECTIVES))
    edition = pa.array(number // n_names + 1).cast(pa.string())
    title = pc.binary_join_element_wise(adjective, material, _take(np.ravel(kinds), group), " ")
    numbered = pc.binary_join_element_wise(title, edition, " ")
    tags = pc.utf8_lower(pa.concat_arrays([adjective, material])).take(
        pa.array(np.arange(2 * n_items).reshape(2, n_items).T.ravel())
    )
    price = np.asarray(prices)[category] * rng.lognormal(0.0, 0.5, n_items)
    return pa.table(
        {
            "item_id": item_ids,
            "title": pc.if_else(pa.array(number >= n_names), numbered, title),
            "category": _take(CATEGORIES, category),
            "price": np.floor(price) + 0.99,
            "tags": pa.ListArray.from_arrays(pa.array(np.arange(0, 2 * n_items + 1, 2, dtype=np.int32)), tags),
        }
    )


def _take(words: Any, numbers: _Ints) -> pa.Array:
    return pa.array(list(words)).take(pa.array(numbers))


def _ids(prefix: str, n: int) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pa.array(np.arange(1, n + 1)).cast(pa.string()), "")


def _timestamps(end: datetime, day: _Floats) -> pa.Array:
    """Return timestamps in whole seconds, `day` days after the first day."""
    start = np.datetime64((end - timedelta(days=_DAYS)).astimezone(UTC).replace(tzinfo=None), "s")
    return pa.array(start + (day * 86_400).astype("timedelta64[s]")).cast(_TIMESTAMP)
