"""Tests of some types of events only, and of what users had before."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedding_trainers.interactions import (
    Columns,
    Interactions,
    Preparation,
    Split,
    read_log,
    split_against,
    split_by_time,
    split_by_user,
    split_interactions,
    split_leave_last_out,
)
from feast_embeddings.errors import InputError

WEIGHTS = {"view": 1.0, "cart": 2.0, "buy": 2.0, "hide": 0.0}
Row = tuple[str, str, str, int]


def read(path: Path, rows: list[Row], *events: str, preparation: Preparation | None = None) -> Interactions:
    """The log of rows of user, item, event and second."""
    lines = [f"{user},{item},{event},{1_700_000_000 + second}\n" for user, item, event, second in rows]
    path.write_text("user_id,item_id,event,timestamp\n" + "".join(lines))
    preparation = preparation or Preparation(event_weights=WEIGHTS)
    return read_log(path, Columns(event="event"), preparation, test_events=events)[0]


def pairs(split: Split) -> set[tuple[str, str]]:
    """What is to be predicted."""
    rows, columns = split.test.nonzero()
    return {(split.users[int(u)].as_py(), split.items[int(i)].as_py()) for u, i in zip(rows, columns, strict=True)}


def trained(split: Split) -> dict[tuple[str, str], float]:
    matrix = split.train.tocoo()
    return {
        (split.users[int(u)].as_py(), split.items[int(i)].as_py()): float(w)
        for u, i, w in zip(matrix.row, matrix.col, matrix.data, strict=True)
    }


@st.composite
def logs(draw: st.DrawFn) -> list[Row]:
    """Rows at different seconds."""
    row = st.tuples(st.sampled_from("uvw"), st.sampled_from("abcdef"), st.sampled_from(["view", "cart", "buy"]))
    rows = draw(st.lists(row, min_size=12, max_size=40))
    return [(*each, second) for second, each in enumerate(rows)]


@given(rows=logs(), include_seen=st.booleans())
def test_by_time(tmp_path_factory: pytest.TempPathFactory, rows: list[Row], include_seen: bool) -> None:
    """All events up to the cut train; purchases after it are the test, repeats among them only if these count."""
    log = read(tmp_path_factory.getbasetemp() / "log.csv", rows, "buy")
    split = split_by_time(log, include_seen=include_seen)
    cut = int(np.quantile(np.arange(len(rows)), 0.9, method="lower"))
    before, after = rows[: cut + 1], rows[cut + 1 :]
    expected: dict[tuple[str, str], float] = {}
    for user, item, event, _ in before:
        expected[user, item] = expected.get((user, item), 0) + WEIGHTS[event]
    users, items = ({pair[side] for pair in expected} for side in (0, 1))
    bought = {(u, i) for u, i, event, _ in after if event == "buy"}
    known = {(u, i) for u, i in bought if u in users and i in items}

    assert trained(split) == expected
    assert pairs(split) == (known if include_seen else known - set(expected))
    assert split.left_out.unknown_pairs == len(bought - known)
    assert split.left_out.seen_pairs == (0 if include_seen else len(known & set(expected)))


@given(rows=logs())
def test_leave_the_last_purchase_out(tmp_path_factory: pytest.TempPathFactory, rows: list[Row]) -> None:
    """Of the items that a user bought, the one bought last for the first time; training has none of its rows."""
    if not any(event == "buy" for *_, event, _ in rows):
        return
    split = split_leave_last_out(read(tmp_path_factory.getbasetemp() / "log.csv", rows, "buy"))
    first: dict[str, dict[str, int]] = {}
    for user, item, event, second in rows:
        if event == "buy":
            first.setdefault(user, {}).setdefault(item, second)
    held = {(user, max(items, key=lambda i: items[i])) for user, items in first.items() if len(items) >= 2}
    rest = {(user, item) for user, item, *_ in rows} - held
    users, items = ({pair[side] for pair in rest} for side in (0, 1))

    assert set(trained(split)) == rest
    assert pairs(split) == {(u, i) for u, i in held if u in users and i in items}


def test_a_fifth_of_what_each_user_bought(tmp_path: Path) -> None:
    """Views do not count as items, neither for the five that a user needs nor for the fifth."""
    rows: list[Row] = [("u", item, "buy", n) for n, item in enumerate("abcde")]
    rows += [("u", item, "view", 10 + n) for n, item in enumerate("eghij")]
    rows += [("v", item, "view", 20 + n) for n, item in enumerate("abcdeghij")] + [("w", "e", "buy", 30)]
    split = split_by_user(read(tmp_path / "log.csv", rows, "buy"), seed=0)

    assert pairs(split) == {("u", "e")}
    assert ("u", "e") not in trained(split)
    assert len(trained(split)) == 19 - 1


def test_against_a_file(tmp_path: Path) -> None:
    """Only the purchases of the file are the test; one without any is refused."""
    train = read(tmp_path / "a.csv", [("u", "a", "view", 0), ("v", "b", "buy", 1)])
    rows: list[Row] = [("u", "b", "buy", 2), ("v", "a", "view", 3), ("v", "b", "buy", 4)]
    test = read(tmp_path / "b.csv", rows, "buy")

    assert pairs(split_against(train.users, train.items, train.to_csr(), test, "m")) == {("u", "b")}
    with_seen = split_against(train.users, train.items, train.to_csr(), test, "m", include_seen=True)
    assert pairs(with_seen) == {("u", "b"), ("v", "b")}
    assert (with_seen.masked.nnz, with_seen.masked.shape) == (0, (2, 2))
    with pytest.raises(InputError, match="nothing to predict in m: no row is one of the test events"):
        split_against(
            train.users, train.items, train.to_csr(), read(tmp_path / "b.csv", rows, "cart"), "m", include_seen=True
        )


def test_with_repeats_auto_is_by_time(tmp_path: Path) -> None:
    """Also where few users return; without times it is refused."""
    rows: list[Row] = [("u", "ab"[n % 2], "view", n) for n in range(20)]
    log = read(tmp_path / "log.csv", rows)

    assert pairs(split_interactions(log, seed=0, include_seen=True)) == {("u", "a"), ("u", "b")}
    timeless = Interactions(log.users, log.items, log.user_numbers, log.item_numbers)
    with pytest.raises(InputError, match="the log has no times"):
        split_interactions(timeless, seed=0, include_seen=True)


def test_a_purchase_is_not_a_duplicate_of_a_cart(tmp_path: Path) -> None:
    """Of rows alike in user, item, time and weight, the one that a test may have is kept."""
    rows: list[Row] = [("u", "a", "cart", 0), ("u", "a", "buy", 0), ("v", "a", "cart", 1), ("v", "a", "cart", 1)]
    preparation = Preparation(event_weights=WEIGHTS, drop_duplicates=True)
    log = read(tmp_path / "log.csv", rows, "buy", preparation=preparation)

    assert log.targets is not None
    assert list(zip(log.user_numbers.tolist(), log.targets.tolist(), strict=True)) == [(0, True), (1, False)]


@pytest.mark.parametrize(
    ("columns", "event", "message"),
    [
        (Columns(event="event"), "bought", "the test event 'bought' has no weight above 0; those with one are view"),
        (Columns(event="event"), "hide", "the test event 'hide' has no weight above 0"),
        (Columns(), "buy", r"need the column that has the types of events; name it \(--event-column\)"),
    ],
)
def test_unusable_events(columns: Columns, event: str, message: str) -> None:
    """A type that no row of the training can have is refused before anything is read."""
    weights = WEIGHTS if columns.event else {}
    with pytest.raises(InputError, match=message):
        read_log("nowhere.csv", columns, Preparation(event_weights=weights), test_events=[event])
