from __future__ import annotations

import json
from collections import Counter, defaultdict
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from embedding_trainers.interactions import Columns, Interactions, Preparation, Reading, read_interactions
from embedding_trainers.interactions.preparation import core, decay
from feast_embeddings.errors import InputError
from feast_embeddings.reading import scan

COLUMNS = Columns("user", "item", "time", "weight", "event")
START = datetime(2026, 1, 1, tzinfo=UTC)


class Row(NamedTuple):
    user: str
    item: int
    event: str
    weight: float
    time: datetime


def table(rows: list[Row]) -> pa.Table:
    types = [pa.string(), pa.int64(), pa.string(), pa.float64(), pa.timestamp("us", "UTC")]
    columns = zip(*rows, strict=True)
    return pa.table(dict(zip(Row._fields, map(pa.array, columns, types), strict=True)))


def obvious(rows: list[Row], preparation: Preparation) -> dict[tuple[str, int], float]:
    """The training matrix as a dictionary, a row at a time."""
    kept = []
    for row in rows:
        weight = row.weight * preparation.event_weights[row.event]
        early = preparation.since is not None and row.time < preparation.since
        late = preparation.until is not None and row.time > preparation.until
        if weight > 0 and not early and not late:
            kept.append(row._replace(weight=weight))
    if preparation.drop_duplicates:
        kept = list(dict.fromkeys(row._replace(event="any") for row in kept))
    if preparation.max_user_interactions is not None:
        users = Counter(row.user for row in kept)
        kept = [row for row in kept if users[row.user] <= preparation.max_user_interactions]
    while True:
        users, items = Counter(row.user for row in kept), Counter(row.item for row in kept)
        poor = [
            row
            for row in kept
            if users[row.user] < preparation.min_user_interactions
            or items[row.item] < preparation.min_item_interactions
        ]
        if not poor:
            break
        kept.remove(poor[0])
    matrix: dict[tuple[str, int], float] = defaultdict(float)
    for row in kept:
        age = max(other.time for other in kept) - row.time
        faded = 2 ** -(age / preparation.half_life) if preparation.half_life else 1
        matrix[row.user, row.item] += row.weight * faded
    return dict(matrix)


def as_dictionary(log: Interactions) -> dict[tuple[str, int], float]:
    matrix = log.to_csr().tocoo()
    users, items = log.users.to_pylist(), log.items.to_pylist()
    return {
        (users[row], items[column]): value
        for row, column, value in zip(matrix.row, matrix.col, matrix.data.tolist(), strict=True)
    }


times = st.integers(0, 5).map(lambda day: START + timedelta(days=day))
rows = st.lists(
    st.builds(
        Row,
        user=st.sampled_from("abc"),
        item=st.integers(0, 3),
        event=st.sampled_from(["view", "buy"]),
        weight=st.sampled_from([0, 0.5, 1, 3]),
        time=times,
    ),
    min_size=1,
    max_size=12,
)
windows = st.tuples(times, times, st.integers(0, 3)).map(
    lambda drawn: {
        name: day
        for bit, name, day in zip((1, 2), ("since", "until"), sorted(drawn[:2]), strict=True)
        if drawn[2] & bit
    }
)
preparations = st.builds(
    lambda window, **others: Preparation(**window, **others),
    windows,
    event_weights=st.fixed_dictionaries({"view": st.sampled_from([0, 1]), "buy": st.sampled_from([0, 2.5])}),
    drop_duplicates=st.booleans(),
    max_user_interactions=st.none() | st.integers(1, 6),
    half_life=st.none() | st.sampled_from([timedelta(hours=12), timedelta(days=3)]),
    min_user_interactions=st.integers(1, 3),
    min_item_interactions=st.integers(1, 3),
)


@given(rows=rows, preparation=st.none() | preparations, piece_rows=st.integers(1, 5))
def test_as_a_dictionary_would_do_it(rows: list[Row], preparation: Preparation | None, piece_rows: int) -> None:
    """All settings together, on a log that comes in pieces, give what one row at a time gives."""
    preparation = preparation or Preparation(event_weights={"view": 1, "buy": 1})
    expected = obvious(rows, preparation)
    with patch.object(scan, "BATCH_ROWS", piece_rows):
        if not expected:
            with pytest.raises(InputError, match=r"weights are 0|no interactions|every user"):
                read_interactions(table(rows), COLUMNS, preparation)
            return
        log = read_interactions(table(rows), COLUMNS, preparation)

    assert expected == pytest.approx(as_dictionary(log), rel=1e-6)
    assert {user for user, _ in expected} == set(log.users.to_pylist())
    assert {item for _, item in expected} == set(log.items.to_pylist())


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One log in every form that can be read."""
    rng = np.random.default_rng(0)
    n = 200
    log = pa.table(
        {
            "user": [f"ü {number}" for number in rng.integers(0, 20, n)],
            "item": rng.integers(-5, 30, n),
            "event": rng.choice(["view", "buy"], n).tolist(),
            "weight": rng.integers(1, 4, n),
            "time": 1_700_000_000 + rng.integers(0, 10**6, n),
        }
    )
    folder = tmp_path_factory.mktemp("log")
    pq.write_table(log, folder / "log.parquet", row_group_size=70)
    pa.csv.write_csv(log, folder / "log.csv")
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in log.to_pylist()))
    for part in range(2):
        (folder / "parts" / f"day={part}").mkdir(parents=True)
        pq.write_table(log.slice(100 * part, 100), folder / "parts" / f"day={part}" / "0.parquet")
    categories = log.to_pandas().astype({"user": "category", "event": "category"})
    views = log.cast(log.schema.set(0, pa.field("user", pa.string_view())))
    return {
        "Parquet": folder / "log.parquet",
        "text path": str(folder / "log.parquet"),
        "CSV": folder / "log.csv",
        "JSON lines": folder / "log.jsonl",
        "folder": folder / "parts",
        "Arrow": log,
        "Arrow of string views": views,
        "Arrow stream": log.to_reader(max_chunksize=30),
        "pandas": log.to_pandas(),
        "pandas categories": categories,
        "polars": pl.DataFrame(log),
        "polars categories": pl.DataFrame(log).with_columns(pl.col("user", "event").cast(pl.Categorical)),
        "DuckDB": duckdb.table("log"),
    }


def test_all_forms_agree(sources: dict[str, Any]) -> None:
    """Files of every format and frames of every library give the same log."""
    preparation = Preparation(event_weights={"view": 1, "buy": 3})
    # CSV does not say that items are numbers.
    logs = {
        form: read_interactions(log, COLUMNS, preparation, Reading(item_ids="int" if form == "CSV" else None))
        for form, log in sources.items()
    }

    assert len(set(logs)) == 13
    assert {log.fingerprint() for log in logs.values()} == {logs["Parquet"].fingerprint()}
    assert len(logs["Parquet"]) == 200


def test_columns_of_a_folder_may_differ_in_order_and_width(tmp_path: Path) -> None:
    """Columns are found by name, and integers of any width are one; a column that a file lacks is null in its rows."""
    pq.write_table(pa.table({"user_id": ["a"], "item_id": pa.array([1], pa.int64())}), tmp_path / "1.parquet")
    pq.write_table(pa.table({"x": [0], "item_id": pa.array([2], pa.int32()), "user_id": ["b"]}), tmp_path / "2.parquet")
    log = read_interactions(tmp_path)
    assert as_dictionary(log) == {("a", 1): 1, ("b", 2): 1}

    pq.write_table(pa.table({"user_id": ["c"]}), tmp_path / "3.parquet")
    with pytest.raises(InputError, match=r"1 of 3 rows .* 1 without item_id \(.*3\.parquet row 1\)"):
        read_interactions(tmp_path)


@pytest.mark.parametrize(
    ("log", "message"),
    [
        ([("a", "x")], "expected a path, or a table of Arrow, pandas, polars or DuckDB .* but got list"),
        (pd.DataFrame({"user_id": ["a"]}), "the DataFrame has no column 'item_id'; its columns are 'user_id'"),
        (pd.DataFrame({"user_id": ["a", None], "item_id": 1}), "the DataFrame: 1 of 2 rows .* 1 without user_id"),
        (pd.DataFrame({"user_id": ["a", 7], "item_id": 1}), "the DataFrame cannot be read as an Arrow stream: "),
        (pa.table({"user_id": pa.array([], pa.string()), "item_id": pa.array([], pa.string())}), "has no rows"),
    ],
    ids=["list", "no-column", "null", "mixed", "empty"],
)
def test_unusable_frames(log: Any, message: str) -> None:
    """What is no table, or not a good one, is one clear line."""
    with pytest.raises(InputError, match=message):
        read_interactions(log)


def test_event_types_need_weights() -> None:
    """A type without a weight is named with what to do; types that do not occur may have one."""
    log = table([Row("a", 1, event, 1, START) for event in ("view", "view", "buy", "like")])
    with pytest.raises(InputError) as error:
        read_interactions(log, COLUMNS, Preparation(event_weights={"view": 1, "gift": 2}))
    assert "2 whose event has no weight (--event-weights) (row 3 'buy', row 4 'like')" in str(error.value)
    with pytest.raises(InputError) as error:
        read_interactions(log, COLUMNS)
    assert "column 'event': 3 of 3 event types have no weight: 'buy', 'like', 'view'" in str(error.value)
    assert "0 to those to leave out (--event-weights buy=0)" in str(error.value)

    kept = read_interactions(log, COLUMNS, Preparation(event_weights={"view": 1, "gift": 2, "buy": 0, "like": 0}))
    assert as_dictionary(kept) == {("a", 1): 2}
    with pytest.raises(InputError, match="no event column is named"):
        read_interactions(log, replace(COLUMNS, event=None), Preparation(event_weights={"view": 1}))
    holes = log.set_column(2, "event", pa.array(["view", None, "view", "view"]))
    with pytest.raises(InputError, match=r"1 of 4 rows .* 1 without event \(row 2\)"):
        read_interactions(holes, COLUMNS, Preparation(event_weights={"view": 1}))


def test_core_peels_to_the_end() -> None:
    """A path of users and items falls apart from its ends; the square next to it stays."""
    path = np.arange(6)
    users = np.r_[path, path[1:], 6, 6, 7, 7].astype(np.int32)
    items = np.r_[path, path[:-1], 6, 7, 6, 7].astype(np.int32)

    assert core(users, items, 2, 2).tolist() == [False] * 11 + [True] * 4


def test_decay_never_reaches_zero() -> None:
    """A half-life back is half, and what is thousands of them old still counts as an interaction."""
    hour = 3_600_000_000
    factors = decay(np.array([5 * hour, 4 * hour, 0, -10_000 * hour]), timedelta(hours=1))

    assert factors[:3].tolist() == [1, 0.5, 1 / 32]
    assert 0 < factors[3] < 1e-30
    rows = [Row("a", 1, "view", 1e-30, START - timedelta(days=9999)), Row("a", 1, "view", 1, START)]
    log = read_interactions(
        table(rows), COLUMNS, Preparation(event_weights={"view": 1e-9}, half_life=timedelta(seconds=1))
    )
    assert log.weights is not None
    assert (log.weights > 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"since": datetime(2026, 1, 1)}, "since=2026-01-01 00:00:00 has no time zone"),
        ({"since": START, "until": START - timedelta(days=1)}, "is after until="),
        ({"event_weights": {"x": -1}}, "the weight of the event type 'x' must be 0 or more, but it is -1"),
        ({"event_weights": {"x": float("nan")}}, "must be 0 or more, but it is nan"),
        ({"half_life": timedelta()}, "half-life must be longer than 0, but it is 0:00:00"),
        ({"min_user_interactions": 0}, "min_user_interactions must be 1 or more, but it is 0"),
        ({"max_user_interactions": 0}, "max_user_interactions must be 1 or more, but it is 0"),
        ({"min_item_interactions": -1}, "min_item_interactions must be 1 or more, but it is -1"),
    ],
)
def test_senseless_settings(settings: dict[str, Any], message: str) -> None:
    """They are refused before anything is read."""
    with pytest.raises(InputError, match=message):
        Preparation(**settings)


@pytest.mark.parametrize("setting", [{"since": START}, {"until": START}, {"half_life": timedelta(days=1)}])
def test_settings_that_need_times(setting: dict[str, Any]) -> None:
    """They name the column that is missing."""
    (name,) = setting
    with pytest.raises(InputError, match=f"the Table has no column 'timestamp', which {name} needs; name the column"):
        read_interactions(pa.table({"user_id": ["a"], "item_id": ["x"]}), None, Preparation(**setting))


def test_nothing_left() -> None:
    """An empty window and a core that nobody is in say what there was."""
    log = table([Row("a", 1, "view", 1, START), Row("b", 2, "view", 1, START + timedelta(days=1))])
    day = timedelta(days=1)
    window = Preparation(since=START + 2 * day, until=START + 3 * day, event_weights={"view": 1})
    with pytest.raises(InputError, match=r"no interactions since .*01-03.* until .*01-04.*first is at .* last at .*"):
        read_interactions(log, COLUMNS, window)
    with pytest.raises(InputError, match="each user has at least 2 and each item at least 1; ask for fewer"):
        read_interactions(log, COLUMNS, Preparation(min_user_interactions=2, event_weights={"view": 1}))


@given(preparation=preparations)
def test_recorded(preparation: Preparation) -> None:
    """What a manifest says about the preparation is all of it: it can be made again from its JSON."""
    adapter = TypeAdapter(Preparation)
    assert preparation == adapter.validate_json(json.dumps(adapter.dump_python(preparation, mode="json")))
