"""What users have seen, held against dictionaries: times of pairs, the newest of them, the union with a version."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from embedding_trainers.fold_in.histories import union
from embedding_trainers.interactions import read_interactions, seen
from embedding_trainers.interactions.seen import SeenItems, latest_times
from feast_embeddings.artifact.seen import NEXT_TO_SEEN

N_USERS, N_ITEMS = 4, 6
FIRST = datetime(2026, 1, 1, tzinfo=UTC)
ROWS = st.lists(
    st.tuples(
        st.integers(0, N_USERS - 1), st.integers(0, N_ITEMS - 1), st.integers(-3, 3), st.sampled_from([0.5, 1.0, 10.0])
    ),
    min_size=1,
    max_size=30,
)
Pair = tuple[float, datetime]


def histories(rows: list[tuple[int, int, int, float]]) -> list[dict[str, Pair]]:
    """Item -> sum of weights and newest time, of each user, the newest last and then by id."""
    found: list[dict[str, Pair]] = [{} for _ in range(N_USERS)]
    for user, item, day, weight in rows:
        total, latest = found[user].get(f"i{item}", (0.0, datetime.min.replace(tzinfo=UTC)))
        found[user][f"i{item}"] = total + weight, max(latest, FIRST + timedelta(days=day))
    return [newest_last(user) for user in found]


def newest_last(user: dict[str, Pair]) -> dict[str, Pair]:
    return dict(sorted(user.items(), key=lambda pair: (pair[1][1], pair[0])))


def table(users: list[dict[str, Pair]], names: list[str]) -> pa.Table:
    columns = {
        "seen_items": pa.array([list(user) for user in users], pa.list_(pa.string())),
        "seen_weights": pa.array([[w for w, _ in user.values()] for user in users], NEXT_TO_SEEN["seen_weights"]),
        "seen_times": pa.array([[t for _, t in user.values()] for user in users], NEXT_TO_SEEN["seen_times"]),
    }
    return pa.table({name: columns[name] for name in names})


@given(rows=ROWS, newest=st.sampled_from([None, 1, 2, 5]), rows_at_once=st.sampled_from([1, 3, 100]))
def test_lists_of_a_log(rows: list[tuple[int, int, int, float]], newest: int | None, rows_at_once: int) -> None:
    users, items, days, weights = (np.array(column) for column in zip(*rows, strict=True))
    shape = (N_USERS, N_ITEMS)
    pairs = csr_matrix((weights.astype(np.float32), (users, items)), shape=shape)
    pairs.sort_indices()
    first = int(FIRST.timestamp()) * 10**6
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(seen, "_LATEST_ROWS", rows_at_once)
        patch.setattr(seen, "_CHUNK_BYTES", rows_at_once)
        latest = latest_times(pairs, users, items, first + days.astype(np.int64) * 86_400 * 10**6)
        lists = SeenItems(pairs, pa.array([f"i{item}" for item in range(N_ITEMS)]), latest, newest)
        found = [
            lists.items(slice(0, N_USERS)).to_pylist(),
            lists.weights(slice(0, N_USERS)).to_pylist(),
            lists.times(slice(0, N_USERS)).to_pylist(),
        ]
    expected = [dict([*user.items()][-(newest or N_ITEMS) :]) for user in histories(rows)]
    assert found == [
        [list(user) for user in expected],
        [[weight for weight, _ in user.values()] for user in expected],
        [[time for _, time in user.values()] for user in expected],
    ]


def test_lists_of_a_log_without_times() -> None:
    log = read_interactions(pa.table({"user_id": ["u", "u", "u"], "item_id": ["b", "a", "b"]}))
    lists = SeenItems(log.to_csr(), log.items, None)
    assert latest_times(log.to_csr(), log.user_numbers, log.item_numbers, None) is None
    assert lists.items(slice(0, 1)).to_pylist() == [["a", "b"]]
    assert lists.weights(slice(0, 1)).to_pylist() == [[1, 2]]


@given(log=ROWS, before=ROWS, newest=st.sampled_from([None, 1, 3]))
def test_union_with_what_a_version_knew(
    log: list[tuple[int, int, int, float]], before: list[tuple[int, int, int, float]], newest: int | None
) -> None:
    """The log has all that a user did, so its weight of a pair counts, and not both: the version had those rows too."""
    new, old = histories(log), histories(before)
    names = ["seen_items", *NEXT_TO_SEEN]
    found = union(table(new, names), table(old, names), newest)
    merged = [
        newest_last(
            {i: (a.get(i, b.get(i))[0], max(p[i][1] for p in (a, b) if i in p)) for i in a | b}  # type: ignore[index]
        )
        for a, b in zip(new, old, strict=True)
    ]
    expected = table([dict([*user.items()][-(newest or N_ITEMS) :]) for user in merged], names)
    assert {name: column.to_pylist() for name, column in found.items()} == expected.to_pydict()


@given(log=ROWS, before=ROWS, weighed=st.booleans())
def test_union_with_a_version_without_times(
    log: list[tuple[int, int, int, float]], before: list[tuple[int, int, int, float]], weighed: bool
) -> None:
    """By id; what a version has no weight of weighs 1."""
    new, old = histories(log), histories(before)
    columns = ["seen_items", *(["seen_weights"] if weighed else [])]
    found = union(table(new, ["seen_items", *NEXT_TO_SEEN]), table(old, columns))
    merged = [
        {i: a[i][0] if i in a else b[i][0] if weighed else 1.0 for i in sorted(a | b)}
        for a, b in zip(new, old, strict=True)
    ]
    assert {name: column.to_pylist() for name, column in found.items()} == {
        "seen_items": [list(user) for user in merged],
        "seen_weights": [list(user.values()) for user in merged],
    }
