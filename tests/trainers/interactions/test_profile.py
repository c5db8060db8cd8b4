from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner

from embedding_trainers.commands.profile import profile
from embedding_trainers.interactions import Columns
from embedding_trainers.interactions.profile import profile_log
from feast_embeddings.errors import InputError

DAY = 86_400


def table(rows: list[tuple[str, str, int]], **more: Any) -> pa.Table:
    users, items, days = zip(*rows, strict=True)
    return pa.table({"user_id": users, "item_id": items, "timestamp": [1_704_067_200 + DAY * d for d in days], **more})


ROWS = [("a", "x", 0), ("a", "x", 0), ("a", "y", 0), ("b", "x", 91), ("c", "z", 1)]


def test_counts(tmp_path: Path) -> None:
    """Every number is that of the rows counted by hand; months without a row are there."""
    items = tmp_path / "items.csv"
    items.write_text("item_id,title\nx,X\ny,Y\nv,V\nw,W\n")
    events = pa.array(["view", "view", "buy", "view", "buy"])
    found = profile_log(table(ROWS, event=events, w=[1, 2, 3, 0, 4]), Columns(event="event", weight="w"), items=items)

    assert (found.rows, found.users, found.items, found.duplicates) == (5, 3, 3, 1)
    assert (found.first, found.last) == ("2024-01-01T00:00:00+00:00", "2024-04-01T00:00:00+00:00")
    assert found.months == {"2024-01": 4, "2024-02": 0, "2024-03": 0, "2024-04": 1}
    assert found.heaviest_users == [("a", 3), ("b", 1), ("c", 1)]
    assert (found.users_with_one_row, found.items_with_few_rows) == (2, 3)
    assert (found.rows_per_user[0], found.rows_per_user[-1], found.rows_per_item[-1]) == (1, 3, 3)
    assert found.event_types == {"view": 3, "buy": 2}
    assert found.weights == {"min": 0, "median": 2, "max": 4, "zeros": 1}
    assert (found.without_interactions, found.not_in_catalogue) == (2, 1)
    assert found.top_items_share == pytest.approx(3 / 5)


def test_a_log_without_times() -> None:
    """There are no months then, and a pair that occurs twice may be one that was meant twice."""
    found = profile_log(table(ROWS).drop_columns(["timestamp"]))
    assert (found.first, found.months, found.duplicates) == (None, {}, 1)


def test_suggestions() -> None:
    """A bot, rows that are there twice, and rows that cannot be used each have their option."""
    rows = [(f"u{n}", f"i{n % 40}", n % 300) for n in range(4_000)] + [
        ("bot", f"i{n % 40}", n % 7) for n in range(3_000)
    ]
    log = pa.concat_tables([table(rows), table([("u1", "", 1)])])
    found = dict(profile_log(log).suggestions)

    assert found["--on-bad-rows drop"] == "1 row cannot be used"
    assert found["--max-user-interactions 1000"] == "43% of all rows are of 1 user"
    assert "rows repeat another in user, item and time" in found["--drop-duplicates"]
    assert found["--min-user-interactions 2"] == "4,000 users have one row each"


def test_command(tmp_path: Path) -> None:
    """It prints text to read or JSON, reads what it can of a messy log, and trains nothing."""
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id,timestamp\na,x,2024-01-01\na,y,soon\n,z,2024-02-01\nb,x,2024-03-01\n")
    run = CliRunner().invoke(profile, [str(log)], catch_exceptions=False)
    assert "2 rows of 2 users and 1 item" in run.output
    assert "1 whose timestamp is not a time" in run.output
    assert "2024-02  " in run.output
    assert "--on-bad-rows drop" in run.output
    run = CliRunner().invoke(profile, [str(log), "--json"], catch_exceptions=False)
    assert json.loads(run.output)["log"]["bad"] == {"whose timestamp is not a time": 1, "without user_id": 1}
    assert sorted(tmp_path.iterdir()) == [log]


def test_nothing_to_look_at(tmp_path: Path) -> None:
    """A log without a good row, or without the columns, is one clear error."""
    (tmp_path / "log.csv").write_text("user_id,item_id\n,x\n")
    with pytest.raises(InputError, match=r"1 of 1 rows .* 1 without user_id \(row 1\); no row is left"):
        profile_log(tmp_path / "log.csv")
    with pytest.raises(InputError, match="no column 'user_id'"):
        profile_log(pa.table({"item_id": ["x"]}))
    log = pa.table({"user_id": ["a"], "item_id": ["x"], "timestamp": ["2026-01-01"]})
    for columns in (Columns(event="item_id"), Columns(user="item_id"), Columns(event="timestamp")):
        with pytest.raises(InputError, match=r"^the column '(item_id|timestamp)' is named for two purposes"):
            profile_log(log, columns)
