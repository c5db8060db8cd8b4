from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_trainers.interactions import Columns, Interactions, Preparation, read_interactions
from embedding_trainers.interactions import log as log_module
from feast_embeddings.errors import InputError

SECOND = 1_700_000_000


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.parquet"


def write(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path)
    return path


def interactions(rows: list[tuple[str, int, float, int]]) -> Interactions:
    """The rows (user, item, weight, µs), numbered by hand."""
    users, items, weights, timestamps = zip(*rows, strict=True)
    all_users, all_items = sorted(set(users)), sorted(set(items))
    return Interactions(
        pa.array(all_users),
        pa.array(all_items),
        np.array([all_users.index(u) for u in users], np.int32),
        np.array([all_items.index(i) for i in items], np.int32),
        np.array(weights, np.float32),
        np.array(timestamps, np.int64),
    )


def test_read(path: Path) -> None:
    """Ids are numbered in ascending order, weights and times stay with their rows."""
    write(
        path,
        user_id=["b", "a", "b"],
        item_id=[300, 300, -1],
        timestamp=pa.array([3, 1, 2], pa.timestamp("us")),
        w=[1, 2, 3],
        other=[None, None, None],
    )
    log = read_interactions(path, Columns(weight="w"))

    assert (log.users.to_pylist(), log.items.to_pylist()) == (["a", "b"], [-1, 300])
    assert (log.user_numbers.tolist(), log.item_numbers.tolist()) == ([1, 0, 1], [1, 1, 0])
    assert log.weights is not None
    assert log.timestamps is not None
    assert (log.weights.tolist(), log.timestamps.tolist()) == ([1, 2, 3], [3, 1, 2])
    assert datetime(1970, 1, 1, 0, 0, 0, 3, UTC) == log.as_of


def test_columns_of_other_names(path: Path) -> None:
    """Every column can be called something else, and a default timestamp is then not looked at."""
    write(path, u=["a"], i=["x"], t=["2024-01-01"], timestamp=[None])
    log = read_interactions(path, Columns("u", "i", "t"))

    assert datetime(2024, 1, 1, tzinfo=UTC) == log.as_of


def test_without_times(path: Path) -> None:
    """A log without the default timestamp column has no times."""
    log = read_interactions(write(path, user_id=["a"], item_id=["x"]))

    assert (log.timestamps, log.as_of, log.weights) == (None, None, None)


def test_csr_sums_duplicates(path: Path) -> None:
    """The matrix holds the summed weight of a pair, or how often it occurs."""
    write(path, user_id=["a", "b", "a", "a"], item_id=[1, 1, 1, 0], w=[0.5, 1, 2, 4])

    assert read_interactions(path, Columns(weight="w")).to_csr().toarray().tolist() == [[4, 2.5], [0, 1]]
    matrix = read_interactions(path).to_csr()
    assert matrix.toarray().tolist() == [[1, 2], [0, 1]]
    assert (np.float32, True) == (matrix.dtype, matrix.has_sorted_indices)


def test_weight_zero_is_no_interaction(path: Path) -> None:
    """Rows of weight 0 go, and with them ids and times that only they had."""
    write(path, user_id=["a", "b"], item_id=["x", "y"], w=[1, 0], timestamp=[SECOND, SECOND + 1])
    log = read_interactions(path, Columns(weight="w"))

    assert (log.users.to_pylist(), log.items.to_pylist(), len(log)) == (["a"], ["x"], 1)
    assert datetime.fromtimestamp(SECOND, UTC) == log.as_of


def test_until(path: Path) -> None:
    """What happened at the instant is kept, what happened after it is not."""
    write(path, user_id=["a", "b", "c"], item_id=["x", "x", "y"], timestamp=[SECOND, SECOND + 10, SECOND + 11])
    log = read_interactions(path, preparation=Preparation(until=datetime.fromtimestamp(SECOND + 10, UTC)))

    assert (log.users.to_pylist(), log.items.to_pylist()) == (["a", "b"], ["x"])


@pytest.mark.parametrize("values", [["ü / 🍕", "x" * 300], [128, 2**40]], ids=["text", "int64"])
def test_unusual_ids(path: Path, values: list[Any]) -> None:
    """Long ids, ids with spaces, slashes and emoji, and large numbers come back as they were."""
    log = read_interactions(write(path, user_id=values, item_id=values))

    assert sorted(values) == log.users.to_pylist() == log.items.to_pylist()


@pytest.mark.parametrize(
    ("columns", "changes", "message"),
    [
        (
            Columns(),
            {"user_id": None, "userid": ["a", "b"]},
            "has no column 'user_id'; its columns are 'item_id', 'timestamp', 'w', 'userid'; did you mean 'userid'?",
        ),
        (Columns(item="sku"), {}, "has no column 'sku'; its columns are 'user_id', 'item_id', 'timestamp', 'w'"),
        (Columns(timestamp="time"), {}, "has no column 'time'"),
        (Columns(timestamp="timestamp"), {"timestamp": None}, "has no column 'timestamp'"),
        (Columns(weight="weight"), {}, "has no column 'weight'"),
        (Columns(), {"user_id": ["a", None]}, "1 of 2 rows cannot be used: 1 without user_id (row 2); correct"),
        (Columns(), {"item_id": [None, None]}, "2 of 2 rows cannot be used: 2 without item_id (row 1, row 2); no row"),
        (Columns(), {"item_id": ["x", ""]}, "1 whose item_id is empty (row 2)"),
        (Columns(), {"item_id": [1.5, 2]}, "column 'item_id': ids must be text or whole numbers"),
        (Columns(), {"timestamp": [SECOND, None]}, "1 without timestamp (row 2)"),
        (Columns(weight="w"), {"w": [float("nan"), 1]}, "1 whose w is not a finite number (row 1 'nan')"),
        (Columns(weight="w"), {"w": [float("inf"), 1]}, "1 whose w is not a finite number (row 1 'inf')"),
        (Columns(weight="w"), {"w": [1e300, 1]}, "1 whose w is too large for float32 (3.4e38) (row 1 '1e+300')"),
        (Columns(weight="w"), {"w": [1e-46, 1]}, "1 whose w is too small for float32 (1.4e-45) (row 1 '1e-46')"),
        (Columns(weight="w"), {"w": ["1_0", "1"]}, "1 whose w is not a finite number (row 1 '1_0')"),
        (Columns(weight="w"), {"w": ["1", "-1,06"]}, "write decimals with a point, as 1.5, not with a comma"),
        (Columns(weight="w"), {"w": [None, 1]}, "1 without w (row 1)"),
        (Columns(weight="w"), {"w": [-1, -0.5]}, "2 whose w is negative (row 1 '-1.0', row 2 '-0.5')"),
        (Columns(weight="w"), {"w": ["1", "much"]}, "1 whose w is not a finite number (row 2 'much')"),
        (Columns(weight="w"), {"w": [0, 0]}, "all weights are 0"),
        (Columns(), {"user_id": [], "item_id": [], "timestamp": [], "w": []}, "has no rows"),
    ],
)
def test_refused(path: Path, columns: Columns, changes: dict[str, Any], message: str) -> None:
    """A log that cannot be used is one line that names file and column, with counts."""
    table = {"user_id": ["a", "b"], "item_id": ["x", "y"], "timestamp": [SECOND, SECOND + 1], "w": [1, 2]} | changes
    write(path, **{name: values for name, values in table.items() if values is not None})

    with pytest.raises(InputError) as error:
        read_interactions(path, columns)
    assert str(error.value).startswith(str(path))
    assert message in str(error.value)


def test_until_refused(path: Path) -> None:
    """A cut needs times, and something before it."""
    write(path, user_id=["a"], item_id=["x"])
    with pytest.raises(InputError, match="has no column 'timestamp', which until needs; name the column"):
        read_interactions(path, preparation=Preparation(until=datetime(2024, 1, 1, tzinfo=UTC)))
    write(path, user_id=["a"], item_id=["x"], timestamp=["2024-01-02"])
    with pytest.raises(InputError, match=r"has no interactions until 2024-01-01.*the first is at 2024-01-02"):
        read_interactions(path, preparation=Preparation(until=datetime(2024, 1, 1, tzinfo=UTC)))


row = st.tuples(st.sampled_from("abc"), st.integers(0, 3), st.sampled_from([0.5, 1.0]), st.integers(0, 3))


@given(rows=st.lists(row, min_size=1, max_size=8), other=st.lists(row, min_size=1, max_size=8), data=st.data())
def test_fingerprint(rows: list[Any], other: list[Any], data: st.DataObject) -> None:
    """The fingerprint is the same for the same rows in another order, and for no other rows."""
    shuffled = data.draw(st.permutations(rows))

    assert interactions(rows).fingerprint() == interactions(shuffled).fingerprint()
    same = sorted(rows) == sorted(other)
    assert same == (interactions(rows).fingerprint() == interactions(other).fingerprint())


def test_fingerprint_tells_types_and_columns_apart(path: Path) -> None:
    """Ids 1 and "1", absent times and times, and absent weights and weights of 1 differ."""
    numbers = {"user_id": [1], "item_id": [1]}
    seen = {
        read_interactions(write(path, **numbers)).fingerprint(),
        read_interactions(write(path, user_id=["1"], item_id=[1])).fingerprint(),
        read_interactions(write(path, **numbers, timestamp=[SECOND])).fingerprint(),
        read_interactions(write(path, **numbers, w=[1]), Columns(weight="w")).fingerprint(),
    }
    assert len(seen) == 4


@pytest.mark.parametrize("most", [0, 1 << 25])
def test_a_pair_in_many_rows_is_one_entry(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights are summed, in one pass or in halves."""
    monkeypatch.setattr(log_module, "_MOST_IN_HALVES", most)
    rng = np.random.default_rng(0)
    users, items = rng.integers(9, size=500).astype(np.int32), rng.integers(7, size=500).astype(np.int32)
    weights = rng.integers(1, 5, size=500).astype(np.float32)
    log = Interactions(pa.array(range(9)), pa.array(range(7)), users, items, weights)
    expected = np.zeros((9, 7), np.float32)
    np.add.at(expected, (users, items), weights)
    matrix = log.to_csr()
    assert matrix.has_sorted_indices
    assert matrix.nnz == np.count_nonzero(expected)
    assert matrix.toarray().tolist() == expected.tolist()
