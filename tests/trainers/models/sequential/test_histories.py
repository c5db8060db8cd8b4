"""Histories against dictionaries."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from embedding_trainers.models.sequential.histories import Histories
from embedding_trainers.trainer import TrainingLog

ROWS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 6), st.integers(0, 9)), min_size=1, max_size=60)


def expected(rows: list[tuple[int, int, int]]) -> dict[int, list[int]]:
    """The items of each user, each at its latest time, by a stable sort in Python."""
    found: dict[int, dict[int, None]] = {user: {} for user in range(5)}
    for user, item, _ in sorted(rows, key=lambda row: row[2]):
        found[user].pop(item, None)
        found[user][item] = None
    return {user: list(items) for user, items in found.items()}


def histories(rows: list[tuple[int, int, int]]) -> Histories:
    users, items, times = (np.array([row[k] for row in rows], np.int64) for k in range(3))
    return Histories(TrainingLog(users.astype(np.int32), items.astype(np.int32), times=times), 5)


def listed(row: np.ndarray[tuple[int], np.dtype[np.int64]]) -> list[int]:
    n = int((row >= 0).sum())
    assert (row[: len(row) - n] == -1).all()
    items: list[int] = row[len(row) - n :].tolist()
    return items


@given(ROWS, st.integers(1, 8), st.integers(1, 3))
def test_newest(rows: list[tuple[int, int, int]], length: int, most: int) -> None:
    found: dict[int, list[int]] = {}
    for users, items in histories(rows).newest(length, most):
        assert len(users) <= most
        found |= dict(zip(users.tolist(), map(listed, items), strict=True))
    assert found == {user: items[-length:] for user, items in expected(rows).items()}


@given(ROWS, st.integers(1, 8), st.integers(1, 3), st.integers(0, 99))
def test_pieces(rows: list[tuple[int, int, int]], length: int, size: int, seed: int) -> None:
    """Every step from an item to the next one occurs once, and with as many items before as fit."""
    found: Counter[tuple[int, int]] = Counter()
    for batch in histories(rows).pieces(length, size, np.random.default_rng(seed)):
        assert len(batch) <= size
        for piece in map(listed, batch):
            assert 2 <= len(piece) <= length + 1
            found.update(pairwise(piece))
    wanted = Counter(step for items in expected(rows).values() for step in pairwise(items))
    assert found == wanted
