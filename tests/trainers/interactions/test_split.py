from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from embedding_trainers.interactions import (
    Interactions,
    LeftOut,
    Split,
    split_against,
    split_by_time,
    split_interactions,
    split_leave_last_out,
    split_parts,
)
from embedding_trainers.interactions.split import MIN_TEST_USERS
from feast_embeddings.errors import InputError
from feast_embeddings.times import from_microseconds

Pair = tuple[int, int]


def log(users: list[int], items: list[int], times: list[int] | None = None) -> Interactions:
    """Interactions whose ids are their numbers."""
    assert set(range(max(users) + 1)) == set(users)
    assert set(range(max(items) + 1)) == set(items)
    return Interactions(
        pa.array(range(max(users) + 1)),
        pa.array(range(max(items) + 1)),
        np.array(users, np.int32),
        np.array(items, np.int32),
        timestamps=None if times is None else np.array(times, np.int64),
    )


def random_log(rng: np.random.Generator, n_users: int, n_items: int, n: int, *, times: bool) -> Interactions:
    users = np.concatenate([np.arange(n_users), rng.integers(n_users, size=n)])
    items = np.concatenate(
        [rng.integers(n_items, size=n_users), np.arange(n_items), rng.integers(n_items, size=n - n_items)]
    )
    return log(users.tolist(), items.tolist(), rng.integers(n, size=len(users)).tolist() if times else None)


def renumbered(train: list[Pair], test: list[Pair]) -> tuple[dict[Pair, int], set[Pair]]:
    """The obvious way: what the training part and the test become in the numbers of the training part."""
    users = sorted({u for u, _ in train})
    items = sorted({i for _, i in train})
    counts: dict[Pair, int] = defaultdict(int)
    for u, i in train:
        counts[users.index(u), items.index(i)] += 1
    known = {(u, i) for u, i in test if u in users and i in items} - set(train)
    return dict(counts), {(users.index(u), items.index(i)) for u, i in known}


def contents(split: Split) -> tuple[dict[Pair, int], set[Pair]]:
    train, test = split.train.tocoo(), split.test.tocoo()
    assert (test.data > 0).all()
    return (
        {(u, i): int(w) for u, i, w in zip(train.row.tolist(), train.col.tolist(), train.data, strict=True)},
        set(zip(test.row.tolist(), test.col.tolist(), strict=True)),
    )


def left_out(train: list[Pair], test: list[Pair]) -> LeftOut:
    """The obvious way: what of the test is unknown to the training part, and what is in it."""
    users, items = {u for u, _ in train}, {i for _, i in train}
    known = {(u, i) for u, i in test if u in users and i in items}
    return LeftOut(
        unknown_users=len({u for u, _ in test} - users),
        unknown_items=len({i for _, i in test} - items),
        unknown_pairs=len(set(test) - known),
        seen_pairs=len(known & set(train)),
    )


def rows(interactions: Interactions) -> list[Pair]:
    return list(zip(interactions.user_numbers.tolist(), interactions.item_numbers.tolist(), strict=True))


def test_by_time() -> None:
    """The newest tenth is the test, checked against the obvious implementation."""
    interactions = random_log(np.random.default_rng(0), 600, 900, 4000, times=True)
    split = split_interactions(interactions, seed=0)
    assert interactions.timestamps is not None
    times = interactions.timestamps.tolist()
    cut = sorted(times)[int((len(times) - 1) * 0.9)]
    pairs = rows(interactions)
    train = [pair for pair, time in zip(pairs, times, strict=True) if time <= cut]
    test = [pair for pair, time in zip(pairs, times, strict=True) if time > cut]

    # There is something of each that cannot be predicted: a user, an item, and a pair known already.
    assert {u for u, _ in test} - {u for u, _ in train}
    assert {i for _, i in test} - {i for _, i in train}
    assert set(test) & set(train)
    assert renumbered(train, test) == contents(split)
    assert left_out(train, test) == split.left_out
    # Ids are the numbers here.
    assert sorted({u for u, _ in train}) == split.users.to_pylist()
    assert sorted({i for _, i in train}) == split.items.to_pylist()
    assert split.method == "newest 10% of the interactions"
    assert len({u for u, _ in contents(split)[1]}) == split.n_test_users >= MIN_TEST_USERS


@pytest.mark.parametrize("times", [True, False])
def test_by_user(times: bool) -> None:
    """Each user with 5 items or more gives a fifth of them, the newest where there are times."""
    rng = np.random.default_rng(1)
    interactions = random_log(rng, 40, 25, 400, times=times)
    if interactions.timestamps is not None:  # distinct, as the oracle does not know how ties are broken
        interactions.timestamps[:] = rng.permutation(len(interactions))
    split = split_interactions(interactions, seed=3)
    train, test = contents(split)
    pairs = rows(interactions)
    assert set(train).isdisjoint(test)

    if interactions.timestamps is not None:
        first: dict[Pair, int] = {}
        for pair, time in zip(pairs, interactions.timestamps.tolist(), strict=True):
            first[pair] = min(time, first.get(pair, time))
        held: set[Pair] = set()
        for user in range(40):
            own = sorted((pair for pair in first if pair[0] == user), key=lambda pair: -first[pair])
            held |= set(own[: len(own) // 5])
        assert renumbered([p for p in pairs if p not in held], list(held)) == (train, test)
    else:
        for user in range(40):  # no user and, with these numbers, no item is unknown to the training part
            n = len({pair for pair in pairs if pair[0] == user})
            assert n // 5 == sum(u == user for u, _ in test)
    method = "newest" if times else "random"
    assert f"{method} 20% of each user's items" == split.method


def test_by_user_with_few_items() -> None:
    """A user with 4 items keeps them all, one with 5 gives the newest; a repeat does not count."""
    users = [0] * 5 + [1] * 5 + [2] * 5
    items = [0, 1, 2, 3, 3, 0, 1, 2, 3, 4, 4, 3, 2, 1, 0]
    split = split_interactions(log(users, items, list(range(15))), seed=0)

    assert {(1, 4), (2, 0)} == contents(split)[1]


def test_seed() -> None:
    """Without times the seed decides what is held back."""
    interactions = random_log(np.random.default_rng(2), 40, 25, 400, times=False)
    first, second, other = (contents(split_interactions(interactions, seed=seed)) for seed in (1, 1, 2))

    assert first == second != other


def test_nothing_held_back() -> None:
    """One interaction, one user with few items, or one instant for all: no test users, no error."""
    for interactions in (log([0], [0]), log([0], [0], [5]), log([0, 0], [0, 1], [1, 2]), log([0] * 3, [0] * 3)):
        assert split_interactions(interactions, seed=0).n_test_users == 0


def test_by_time_at_an_instant() -> None:
    """What happened at the instant is trained on, what came later is the test."""
    interactions = log([0, 0, 1, 1, 0], [0, 1, 0, 1, 1], [10, 20, 30, 31, 40])
    split = split_by_time(interactions, from_microseconds(30))
    assert contents(split) == ({(0, 0): 1, (0, 1): 1, (1, 0): 1}, {(1, 1)})
    assert split.left_out == LeftOut(0, 0, 0, seen_pairs=1)
    assert split.method == "interactions after 1970-01-01 00:00:00 UTC"
    for at, side in ((9, "after"), (40, "not after")):
        with pytest.raises(InputError, match=f"all interactions are {side} 1970.*choose another time"):
            split_by_time(interactions, from_microseconds(at))


def test_leave_last_out() -> None:
    """The item that each user met last for the first time, unless it is the only one."""
    interactions = random_log(np.random.default_rng(3), 40, 25, 200, times=True)
    assert interactions.timestamps is not None
    interactions.timestamps[:] = np.random.default_rng(4).permutation(len(interactions))
    pairs = rows(interactions)
    first: dict[Pair, int] = {}
    for pair, time in zip(pairs, interactions.timestamps.tolist(), strict=True):
        first[pair] = min(time, first.get(pair, time))
    held = set()
    for user in range(40):
        own = [pair for pair in first if pair[0] == user]
        held |= {max(own, key=lambda pair: first[pair])} if len(own) > 1 else set()
    train = [pair for pair in pairs if pair not in held]
    split = split_leave_last_out(interactions)
    assert renumbered(train, list(held)) == contents(split)
    assert left_out(train, list(held)) == split.left_out
    assert split.method == "newest item of each user"


def test_leave_last_out_of_one_item() -> None:
    """Who has one item keeps it, and is no user that training did not see."""
    split = split_leave_last_out(log([0, 0, 0, 1, 1], [0, 1, 2, 1, 1], [1, 2, 3, 1, 2]))
    assert contents(split) == ({(0, 0): 1, (0, 1): 1, (1, 1): 2}, set())
    assert split.left_out == LeftOut(0, unknown_items=1, unknown_pairs=1, seen_pairs=0)


@pytest.mark.parametrize("split", [split_by_time, split_leave_last_out])
def test_times_are_needed(split: Callable[[Interactions], Split]) -> None:
    """A log without times is not split by them."""
    with pytest.raises(InputError, match="the log has no times, so it cannot be split by them; name their column"):
        split(log([0, 0], [0, 1]))


def test_against_given_interactions() -> None:
    """Ids meet as text; what training does not know or has seen is left out and counted."""
    interactions = log([0, 0, 1, 2], [0, 1, 0, 2])
    test = Interactions(
        pa.array(["0", "1", "9"]),
        pa.array(["0", "1", "2", "8"]),
        np.array([0, 0, 0, 1, 1, 2, 2, 1], np.int32),
        np.array([2, 2, 0, 1, 3, 3, 0, 0], np.int32),
    )
    split = split_against(interactions.users, interactions.items, interactions.to_csr(), test, "theirs")
    assert contents(split) == ({(0, 0): 1, (0, 1): 1, (1, 0): 1, (2, 2): 1}, {(0, 2), (1, 1)})
    assert split.left_out == LeftOut(unknown_users=1, unknown_items=1, unknown_pairs=3, seen_pairs=2)
    assert (split.users, split.items, split.method) == (interactions.users, interactions.items, "theirs")


@settings(max_examples=100)
@given(
    filled=st.lists(st.lists(st.booleans(), min_size=5, max_size=5), min_size=1, max_size=12),
    size=st.integers(1, 20),
    seed=st.integers(0, 5),
)
def test_pairs_are_looked_up_in_blocks(filled: list[list[bool]], size: int, seed: int) -> None:
    """Whatever a block holds, and with empty rows, each pair is found where the matrix has an entry."""
    dense = np.array(filled)
    rows, columns = (each.ravel() for each in np.indices(dense.shape))
    order = np.random.default_rng(seed).permutation(len(rows))
    with patch.object(split_parts, "_BLOCK_ENTRIES", size):
        found = split_parts._is_entry(csr_matrix(dense.astype(np.float32)), rows[order], columns[order])
    assert found.tolist() == dense.ravel()[order].tolist()


@pytest.mark.parametrize(("users", "items", "kind"), [(["x"], [0], "users"), ([0], ["x"], "items")])
def test_against_interactions_of_another_world(users: list[object], items: list[object], kind: str) -> None:
    """Files whose ids never meet are told apart from a bad model."""
    known = log([0, 1], [0, 0])
    zero = np.zeros(1, np.int32)
    test = Interactions(pa.array(users), pa.array(items), zero, zero)
    with pytest.raises(InputError, match=rf"none of the {kind} to test on \(e.g. 'x'\) is in .*use the same ids"):
        split_against(known.users, known.items, known.to_csr(), test, "theirs")
