"""`train --history`: only the newest items of each user are kept as seen, whatever is folded in later."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Command

from embedding_trainers.commands.like import settings_of
from embedding_trainers.fold_in import fold_in
from embedding_trainers.train import train_model
from embedding_trainers.trainer import RunOptions
from feast_embeddings.artifact import Artifact
from feast_embeddings.errors import InputError

N_USERS, N_ITEMS, KEPT = 30, 20, 3
FIRST = datetime(2026, 4, 1, tzinfo=UTC)


def write_log() -> pa.Table:
    rng = np.random.default_rng(0)
    rows = [(f"u{u:02}", f"i{i:02}") for u in range(N_USERS) for i in rng.choice(N_ITEMS, 6, replace=False).tolist()]
    times = [FIRST + timedelta(minutes=int(minute)) for minute in rng.permutation(len(rows))]
    return pa.table({"user_id": [u for u, _ in rows], "item_id": [i for _, i in rows], "timestamp": times})


LOG = write_log()


def trained(repo: Path, trainer: str = "als", **more: Any) -> Artifact:
    return train_model(
        repo, "m", LOG, trainer=trainer, parameters={"factors": 4}, options=RunOptions(threads=1), evaluation=False,
        align_to=None, **more,
    ).artifact  # fmt: skip


def newest(rows: list[dict[str, Any]]) -> dict[str, list[tuple[str, datetime]]]:
    found: dict[str, list[tuple[str, datetime]]] = {}
    for row in sorted(rows, key=lambda row: row["timestamp"]):
        found.setdefault(row["user_id"], []).append((row["item_id"], row["timestamp"]))
    return {user: pairs[-KEPT:] for user, pairs in found.items()}


def kept(table: pa.Table) -> dict[str, list[tuple[str, datetime]]]:
    columns = (table[name].to_pylist() for name in ("user_id", "seen_items", "seen_times"))
    return {user: list(zip(seen, times, strict=True)) for user, seen, times in zip(*columns, strict=True)}


def test_the_newest_are_kept(repo: Path) -> None:
    """Vectors are of all interactions, whatever is kept; all weights are 1, and are not written."""
    whole, cut = trained(repo), trained(repo, history=KEPT)
    assert (whole.manifest.history, cut.manifest.history) == (None, KEPT)
    assert "history" not in whole.manifest.model_dump()
    assert kept(cut.table("user")) == newest(LOG.to_pylist())
    assert {len(seen) for seen in whole.table("user")["seen_items"].to_pylist()} == {6}
    assert "seen_weights" not in whole.table("user").column_names
    for entity in ("user", "item"):
        assert cut.table(entity)["embedding"].equals(whole.table(entity)["embedding"])
    assert (settings_of(whole)["history"], settings_of(cut)["history"]) == (None, KEPT)


@pytest.mark.parametrize("trainer", ["als", "bpr"])
def test_fold_in_keeps_as_many(repo: Path, trainer: str) -> None:
    """Of users that the version knows and of new ones; the vector is the one without the setting."""
    whole, cut = trained(repo, trainer), trained(repo, trainer, history=KEPT)
    own = [row for row in LOG.to_pylist() if row["user_id"] == "u00"]
    later = [
        {"user_id": user, "item_id": f"i{item:02}", "timestamp": FIRST + timedelta(days=1 + item)}
        for user, items in (("u00", [3, 4]), ("new", [1, 2, 5, 7]))
        for item in items
    ]
    log = pa.Table.from_pylist(own + later)
    folded = fold_in(cut, "user", log)
    expected = newest([*later, *({**row} for row in own if row["item_id"] not in ("i03", "i04"))])
    assert kept(folded.table) == expected
    np.testing.assert_array_equal(folded.vectors, fold_in(whole, "user", log).vectors)
    # The version has no weights, as all are 1; a pair of the log is there twice.
    assert folded.table.schema.names == [*cut.schema("user").names, "seen_weights"]
    rows = Counter((row["user_id"], row["item_id"]) for row in log.to_pylist())
    assert max(rows.values()) == 2
    weights = [[rows[str(user), item] for item, _ in expected[str(user)]] for user in folded.ids]
    assert folded.table["seen_weights"].to_pylist() == weights


def test_it_needs_times(repo: Path, tmp_path: Path, command: Command) -> None:
    log = tmp_path / "log.csv"
    log.write_text("user_id,item_id\na,1\nb,2\n")
    done = command("train", "--repo", repo, "--model", "m", "--interactions", log, "--history", "2")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "the log has no column 'timestamp'; name its times (--timestamp-column)" in done.err
    with pytest.raises(InputError, match="history=0: expected 1 or more"):
        trained(repo, history=0)


def parsed(answer: Any) -> Any:
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def test_it_is_a_setting(repo: Path, tmp_path: Path, command: Command) -> None:
    """From embeddings.toml and --like; with --if-changed another one is a change."""
    pq.write_table(LOG, tmp_path / "log.parquet")
    train = ("train", "--repo", repo, "--model", "m", "--interactions", tmp_path / "log.parquet", "--trainer", "svd")
    small = ("--factors", "4", "--no-evaluate", "--json", "--quiet")
    (repo / "embeddings.toml").write_text("[train]\nhistory = 2\n")
    first = parsed(command(*train, *small))
    (repo / "embeddings.toml").unlink()
    assert first["history"] == 2
    assert parsed(command(*train, *small, "--like", "latest"))["history"] == 2
    assert "history" not in parsed(command(*train, *small, "--if-changed"))
    again = parsed(command(*train, *small, "--if-changed", "--history", "5"))
    assert (again["history"], again["unchanged"]) == (5, False)
    assert parsed(command(*train, *small, "--if-changed", "--history", "5"))["unchanged"]
