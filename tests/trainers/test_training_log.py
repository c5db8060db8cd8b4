"""Trainers that read more than the matrix: what they get, from every command, and that nothing held back is in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy.sparse import csr_matrix
from tests.conftest import Command

from embedding_trainers.interactions import Interactions, read_interactions, split_interactions
from embedding_trainers.models.svd import SVD
from embedding_trainers.search import Search
from embedding_trainers.testing import TrainerTests
from embedding_trainers.train import train_model
from embedding_trainers.trainer import Factors, RunOptions, Trainer, TrainerConfig, TrainingLog, find_trainer
from feast_embeddings.errors import InputError

ONE_THREAD = RunOptions(seed=0, threads=1)
PACKAGE = """
import os, pathlib, pickle
import numpy as np
from pydantic import Field
from embedding_trainers.trainer import Factors, RaceEntry, Trainer, TrainerConfig
from embedding_trainers.models.svd import SVD

class Config(TrainerConfig):
    iterations: int = Field(default=1, ge=1, json_schema_extra={"search": {"low": 1, "high": 3}})

def train(matrix, config, options):
    with open(os.environ["READ_LOGS"], "ab") as file:
        pickle.dump((matrix, options.log), file)
    factors = SVD.train(matrix, SVD.configure({"factors": config.factors}), options)
    if options.watch:
        options.watch(1, lambda: factors)
    return factors

READER = Trainer(Config, train, SVD.fold_in, reads_log=True, race=RaceEntry(cost=0.1))
"""
Row = tuple[int, int, float, int | None]


@pytest.fixture
def read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[tuple[csr_matrix, TrainingLog | None]]]:
    """An installed trainer ``reader``, and what it was given each time."""
    import pickle

    site, logs = tmp_path / "site", tmp_path / "logs"
    info = site / "reader-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "reader_trainer.py").write_text(PACKAGE)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: reader\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[embedding_trainers]\nreader = reader_trainer:READER\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("READ_LOGS", str(logs))

    def given() -> list[tuple[csr_matrix, TrainingLog | None]]:
        found = []
        with logs.open("rb") as file:
            while file.peek(1):
                found.append(pickle.load(file))  # noqa: S301 (this test wrote it)
        logs.unlink()
        return found

    return given


@pytest.fixture(scope="module")
def table() -> pa.Table:
    """150 users with 12 of 40 items each, some twice, at times that are not sorted and often equal."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(150), 13)
    items = np.concatenate([np.append(drawn := rng.choice(40, 12, replace=False), drawn[0]) for _ in range(150)])
    order = rng.permutation(len(users))
    return pa.table(
        {
            "user_id": pa.array([f"u{n:03}" for n in users[order]]),
            "item_id": pa.array([f"i{n:02}" for n in items[order]]),
            "timestamp": pa.array(rng.integers(1, 400, len(users)) * 3_600_000_000, pa.timestamp("us", "UTC")),
            "weight": rng.choice([0.5, 1.0, 4.0], len(users)),
        }
    )


@pytest.fixture
def log_file(table: pa.Table, tmp_path: Path) -> Path:
    pq.write_table(table, path := tmp_path / "log.parquet")
    return path


def by_time(log: Interactions, keep: np.ndarray[Any, Any]) -> list[tuple[str, str, int]]:
    """The rows that are kept, by a stable sort in Python."""
    assert log.timestamps is not None
    rows = [
        (log.users[int(u)].as_py(), log.items[int(i)].as_py(), int(t))
        for u, i, t, kept in zip(log.user_numbers, log.item_numbers, log.timestamps, keep, strict=True)
        if kept
    ]
    return sorted(rows, key=lambda row: row[2])


def named(log: TrainingLog | None, users: pa.Array, items: pa.Array) -> list[tuple[str, str, int]]:
    assert log is not None
    assert log.times is not None
    rows = zip(log.user_rows.tolist(), log.item_columns.tolist(), log.times.tolist(), strict=True)
    return [(users[user].as_py(), items[item].as_py(), time) for user, item, time in rows]


def sums_up(matrix: csr_matrix, log: TrainingLog | None) -> None:
    """The log is that of the matrix, to the pair."""
    assert log is not None
    assert log.user_rows.dtype == log.item_columns.dtype == np.int32
    weights = np.ones(len(log), np.float32) if log.weights is None else log.weights
    found: Counter[tuple[int, int]] = Counter()
    for user, item, weight in zip(log.user_rows.tolist(), log.item_columns.tolist(), weights.tolist(), strict=True):
        found[user, item] += weight
    entries = matrix.tocoo()
    assert found == Counter(dict(zip(zip(entries.row, entries.col, strict=True), entries.data, strict=True)))
    assert log.times is None or (np.diff(log.times) >= 0).all()


def test_held_back_rows_are_not_in_it(table: pa.Table) -> None:
    """The log of a split has the rows of its training part in the order of their times, and no other."""
    log = read_interactions(table)
    split = split_interactions(log, seed=0).with_log(log)

    assert split.held_back is not None
    assert 0 < split.held_back.sum() < len(log)
    assert named(split.log, split.users, split.items) == by_time(log, ~split.held_back)
    sums_up(split.train, split.log)


def test_train(read: Callable[[], Any], repo: Path, table: pa.Table, tmp_path: Path) -> None:
    """Evaluation, search and early stop give what they train on, with the attributes of it; the fit gives all."""
    pq.write_table(table, log_file := tmp_path / "log.parquet")
    items = pa.table({"item_id": [f"i{n:02}" for n in range(50)], "price": np.arange(50) * 2.5})
    train_model(
        repo, "m", log_file, trainer="reader", parameters={"factors": 4}, options=ONE_THREAD, content="none",
        item_attributes=items, search=Search(2), patience=1,
    )  # fmt: skip
    log = read_interactions(log_file)
    outer = split_interactions(log, seed=0)
    assert outer.held_back is not None
    seen = log.where(~outer.held_back)
    inner = split_interactions(seen, seed=0)
    expected = [(inner, seen)] * 3 + [(outer, log)]  # two trials, early stop, evaluation
    given = read()

    assert len(given) == 5
    for (matrix, found), (split, of) in zip(given[:4], expected, strict=True):
        assert split.held_back is not None
        assert (matrix != split.train).nnz == 0
        assert named(found, split.users, split.items) == by_time(of, ~split.held_back)
        assert found.item_attributes["price"].to_pylist() == [int(i.as_py()[1:]) * 2.5 for i in split.items]
        assert found.user_attributes is None
    matrix, found = given[4]
    sums_up(matrix, found)
    assert named(found, log.users, log.items) == by_time(log, np.ones(len(log), bool))


def test_race(read: Callable[[], Any], repo: Path, log_file: Path) -> None:
    """``auto`` races it on the log of the training part."""
    train_model(repo, "m", log_file, parameters={"factors": 4}, options=ONE_THREAD)
    log = read_interactions(log_file)
    split = split_interactions(log, seed=0)
    assert split.held_back is not None

    assert named(read()[0][1], split.users, split.items) == by_time(log, ~split.held_back)


@pytest.mark.parametrize("choice", [[], ["--split", "last"], ["--split", "cold-items"], ["--split", "cold-users"]])
def test_evaluate(choice: list[str], read: Callable[[], Any], log_file: Path, command: Command) -> None:
    """Each way to hold out gives the log of what is trained on."""
    arguments = [
        "--interactions",
        log_file,
        "--weight-column",
        "weight",
        "--trainer",
        "reader",
        "--factors",
        4,
        *choice,
    ]
    command("evaluate", *arguments, "--threads", 1, "--seed", 0)
    [(matrix, found)] = read()

    sums_up(matrix, found)


def test_compare(read: Callable[[], Any], log_file: Path, command: Command) -> None:
    """In a process of its own, next to trainers that get no log, and within `concat`."""
    config = log_file.with_name("both.toml")
    config.write_text('trainer = "concat"\nparts = ["svd", "reader"]\ndims = [4, 4]\n')
    command(
        "compare",
        "--interactions",
        log_file,
        "--trainers",
        "svd,reader",
        "--config",
        config,
        "--threads",
        1,
        "--seed",
        0,
    )
    log = read_interactions(log_file)
    split = split_interactions(log, seed=0)
    assert split.held_back is not None
    given = read()

    assert len(given) == 2
    for _, found in given:
        assert named(found, split.users, split.items) == by_time(log, ~split.held_back)


def test_part(table: pa.Table) -> None:
    """Some users and items, numbered as the matrix of them."""
    log = read_interactions(table)
    whole = split_interactions(log, seed=0).with_log(log).log
    assert whole is not None
    n_users, n_items = len(log.users), len(log.items)
    attributes = pa.table({"number": np.arange(n_users)})
    rng = np.random.default_rng(1)
    users, items = rng.permutation(n_users)[:60], np.sort(rng.permutation(n_items)[:20])
    part = replace(whole, user_attributes=attributes).of(users, items)
    weights = np.ones(len(whole), np.float32)
    matrix = csr_matrix((weights, (whole.user_rows, whole.item_columns)), shape=(n_users, n_items))

    sums_up(matrix[users][:, items], part)
    assert part.user_attributes is not None
    assert part.user_attributes["number"].to_pylist() == users.tolist()
    assert part.item_attributes is None


def test_refused_without_a_log(log_file: Path) -> None:
    """Where only the matrix is there, a trainer that reads the log is refused; others never get one."""

    def train(matrix: csr_matrix, config: TrainerConfig, options: RunOptions) -> Factors:
        assert options.log is None
        return SVD.train(matrix, SVD.config(factors=4), options)

    matrix = read_interactions(log_file).to_csr()
    log = TrainingLog(np.zeros(1, np.int32), np.zeros(1, np.int32))
    with pytest.raises(InputError, match="TrainerConfig: this trainer reads the single interactions"):
        Trainer(TrainerConfig, train, reads_log=True).fit(matrix, TrainerConfig(), ONE_THREAD, None)
    Trainer(TrainerConfig, train).fit(matrix, TrainerConfig(), ONE_THREAD, log)


def by_first_item(matrix: csr_matrix, config: TrainerConfig, options: RunOptions) -> Factors:
    """A side of the checkerboard each, told by the first item of a user and its attribute."""
    log = options.log
    assert log is not None
    odd = np.zeros(matrix.shape[1], bool)
    if log.item_attributes is not None:
        odd = log.item_attributes["odd"].to_numpy()
    _, first = np.unique(log.user_rows, return_index=True)
    side = odd[log.item_columns[first]]
    users, items = (np.zeros((n, config.factors), np.float32) for n in matrix.shape)
    users[:, 0], items[:, 0] = np.where(side, 1, -1), np.where(odd, 1, -1)
    weights = np.bincount(log.user_rows, log.weights, matrix.shape[0])
    return Factors(users * weights[:, None].astype(np.float32), items, np.zeros(len(items), np.float32))


class TestOrderAndAttributes(TrainerTests):
    """`TrainerTests` gives a trainer that reads the log one with times and attributes."""

    trainer = Trainer(TrainerConfig, by_first_item, reads_log=True)


def changes_the_log(matrix: csr_matrix, config: TrainerConfig, options: RunOptions) -> Factors:
    assert options.log is not None
    options.log.user_rows[0] += 1
    return SVD.train(matrix, SVD.config(factors=config.factors), options)


def needs_times(matrix: csr_matrix, config: TrainerConfig, options: RunOptions) -> Factors:
    assert options.log is not None
    assert options.log.times is not None, "no times"
    return SVD.train(matrix, SVD.config(factors=config.factors), options)


@pytest.mark.parametrize(
    ("train", "message"), [(changes_the_log, "the log was changed: user_rows"), (needs_times, "no times")]
)
def test_broken_readers_fail(train: Any, message: str) -> None:
    """What a trainer must not do with a log is found."""
    tests = TrainerTests()
    tests.trainer = Trainer(TrainerConfig, train, reads_log=True)

    with pytest.raises(AssertionError, match=message):
        tests.test_log()


def test_concat_reads_what_its_parts_read(read: Callable[[], Any]) -> None:
    """`concat` keeps a log only for parts that read it."""
    concat = find_trainer("concat")

    assert not concat.needs_log(concat.configure({"parts": "als,svd"}))
    assert concat.needs_log(concat.configure({"parts": "als,reader"}))
