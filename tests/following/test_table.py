"""A table of PostgreSQL that is followed, on a real server: each committed row once, in whatever order they commit."""

from __future__ import annotations

import json
import random
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Command
from tests.support import process_jobs
from tests.support.job import TIMEOUT, Job

from feast_embeddings.errors import EmbeddingsError, InputError
from feast_embeddings.events import Event, EventLog
from feast_embeddings.following import Batch, Form, Table, follow_table
from feast_embeddings.repo import init_repo

psycopg = pytest.importorskip("psycopg")
pytest.importorskip("adbc_driver_postgresql")


class Clicks:
    """A table of a test's own, and connections to it."""

    def __init__(self, uri: str) -> None:
        self.uri, self.name = uri, f"clicks_{uuid.uuid4().hex[:12]}"
        self.connections: list[Any] = []
        self.main = self.connect(autocommit=True)
        self.main.execute(
            f"CREATE TABLE {self.name} (id bigserial PRIMARY KEY, user_id text, item_id text, weight numeric, "
            "timestamp timestamptz DEFAULT '2026-05-01 02:00+02', event_id text)"
        )

    def connect(self, **options: Any) -> Any:
        self.connections.append(psycopg.connect(self.uri, **options))
        return self.connections[-1]

    def insert(self, items: list[str], connection: Any = None) -> None:
        for item in items:
            insert = f"INSERT INTO {self.name} (user_id, item_id) VALUES ('u', %s)"  # noqa: S608 - ours
            (connection or self.main).execute(insert, [item])

    def followed(self, **others: Any) -> Table:
        return Table.parse(self.uri, self.name, others.get("position"))

    @property
    def full_name(self) -> str:
        return f"postgres.public.{self.name}"


@pytest.fixture
def clicks(postgres: str) -> Iterator[Clicks]:
    table = Clicks(postgres)
    yield table
    for connection in table.connections:
        connection.close()


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "shop.events.sqlite")


def kept(log: EventLog) -> list[Event]:
    return [event for part in log.batches() for event in part]


def items(log: EventLog) -> list[Any]:
    return [event.item_id for event in kept(log)]


def read(table: Table, log: EventLog, form: Form | None = None, batch: int = 1000) -> list[Batch]:
    return list(follow_table(table, log, form or Form(), batch=batch, once=True, stopped=lambda: False))


def test_every_row_once(clicks: Clicks, log: EventLog) -> None:
    """In batches; it goes on where it was; ids of events are the rows' own, or name the row; the rest is counted."""
    assert read(clicks.followed(), log) == []
    clicks.insert(["a", "b", "c"])
    name = clicks.full_name
    assert read(clicks.followed(), log, batch=2) == [Batch(name, 2, 0, 0, 0, 1), Batch(name, 1, 0, 0, 0, 0)]
    assert log.position(name) == 3
    assert kept(log) == [Event("u", item, 1_777_593_600_000_000, 1.0, f"{name}:{n}") for n, item in enumerate("abc", 1)]
    assert read(clicks.followed(), log) == []
    clicks.main.execute(
        f"INSERT INTO {clicks.name} (user_id, item_id, weight, event_id) "  # noqa: S608 - ours
        "VALUES ('u', 'd', 2.5, 'own'), ('u', 'e', 1, 'own'), ('u', 'f', 0, NULL), ('u', 'g', 1, NULL)"
    )
    assert read(clicks.followed(), log, Form(weight="weight")) == [Batch(name, 2, 1, 1, 0, 0)]
    assert [(e.item_id, e.weight, e.event_id) for e in kept(log)[3:]] == [("d", 2.5, "own"), ("g", 1.0, f"{name}:7")]


def test_a_smaller_id_that_is_committed_later(clicks: Clicks, log: EventLog) -> None:
    """What is committed is read at once, and what was begun before it when that commits, by one reader or two."""
    early = clicks.connect()
    clicks.insert(["early"], early)
    clicks.insert(["late"])
    assert [batch.added for batch in read(clicks.followed(), log)] == [1]
    assert items(log) == ["late"]
    early.commit()
    assert [(batch.added, batch.duplicates) for batch in read(clicks.followed(), log)] == [(1, 1)]
    assert items(log) == ["late", "early"]
    assert log.position(clicks.full_name) == 2

    clicks.insert(["second"], early)
    clicks.insert(["third"])
    stop: list[bool] = []
    batches = follow_table(clicks.followed(), log, Form(), batch=9, once=False, stopped=lambda: bool(stop))
    assert next(batches).added == 1
    early.commit()
    assert next(batches)[1:3] == (1, 0)  # what it has read is not counted again
    stop.append(True)
    assert list(batches) == []
    assert items(log) == ["late", "early", "third", "second"]
    assert read(clicks.followed(), log) == []


def test_an_id_before_its_transaction_has_a_number(clicks: Clicks, log: EventLog) -> None:
    """A writer that has its id, and waits before it writes: snapshots of the server know nothing of it."""
    clicks.insert(["first"])  # after this the sequence gives ids without a word to the server's log
    clicks.main.execute("SELECT pg_advisory_lock(1)")
    slow = clicks.connect()
    insert = (
        f"INSERT INTO {clicks.name} (id, user_id, item_id) VALUES "  # noqa: S608 - ours
        f"(nextval('{clicks.name}_id_seq'), (SELECT 'u' FROM pg_advisory_lock(1)), 'slow')"
    )
    with ThreadPoolExecutor(1) as pool, closing(clicks.main):  # so that the waiting one ends if a check fails
        inserted = pool.submit(slow.execute, insert)
        until = time.monotonic() + TIMEOUT
        waits = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        while clicks.main.execute(waits).fetchone() is None:
            assert time.monotonic() < until
        assert clicks.main.execute(f"SELECT last_value FROM {clicks.name}_id_seq").fetchone() == (2,)  # noqa: S608
        clicks.insert(["fast"])
        read(clicks.followed(), log)
        assert items(log) == ["first", "fast"]
        clicks.main.execute("SELECT pg_advisory_unlock(1)")
        inserted.result(TIMEOUT)
    read(clicks.followed(), log)
    slow.commit()
    read(clicks.followed(), log)
    assert items(log) == ["first", "fast", "slow"]


def test_rows_of_a_transaction_that_was_rolled_back(clicks: Clicks, log: EventLog) -> None:
    other = clicks.connect()
    clicks.insert(["never"], other)
    clicks.insert(["a"])
    read(clicks.followed(), log)
    other.rollback()
    read(clicks.followed(), log)
    assert (items(log), log.position(clicks.full_name)) == (["a"], 2)


def test_a_partition_that_is_written_to(clicks: Clicks, log: EventLog) -> None:
    """Its writers hold a lock on the partition only."""
    name = f"{clicks.name}_p"
    clicks.main.execute(
        f"CREATE TABLE {name} (id bigint NOT NULL, user_id text, item_id text, day int) PARTITION BY LIST (day)"
    )
    clicks.main.execute(f"CREATE TABLE {name}_1 PARTITION OF {name} FOR VALUES IN (1)")
    other = clicks.connect()
    other.execute(f"INSERT INTO {name}_1 (id, user_id, item_id, day) VALUES (1, 'u', 'early', 1)")  # noqa: S608
    clicks.main.execute(f"INSERT INTO {name} (id, user_id, item_id, day) VALUES (2, 'u', 'late', 1)")  # noqa: S608
    table = Table.parse(clicks.uri, name, None)
    read(table, log)
    other.commit()
    read(table, log)
    assert items(log) == ["late", "early"]


def test_a_bad_row(clicks: Clicks, log: EventLog) -> None:
    """Those before it are there; it is named, and met again; dropped if wanted."""
    clicks.insert(["a"])
    clicks.main.execute(f"INSERT INTO {clicks.name} (item_id) VALUES ('b')")  # noqa: S608 - ours
    clicks.insert(["c"])
    for _ in range(2):
        refused = "user_id must be a whole number or text that is not empty, got None"
        with pytest.raises(InputError, match=rf"{clicks.name}, row 2: {refused}"):
            read(clicks.followed(), log)
        assert (items(log), log.position(clicks.full_name)) == (["a"], 1)
    assert read(clicks.followed(), log, Form(on_bad_rows="drop"))[0][1:] == (1, 0, 0, 1, 0)
    assert items(log) == ["a", "c"]


def test_columns_and_tables_that_cannot_be_followed(clicks: Clicks, log: EventLog) -> None:
    """Each is named, with what there is; the password is not."""
    run, name = clicks.main.execute, clicks.name
    run(f"ALTER TABLE {name} ADD COLUMN nullable bigint, ADD COLUMN number numeric NOT NULL DEFAULT 1")
    run(f"CREATE VIEW {name}_view AS SELECT * FROM {name}")  # noqa: S608 - ours
    run(f"CREATE TABLE {name}_cached (id bigserial PRIMARY KEY, user_id text, item_id text)")
    run(f"ALTER SEQUENCE {name}_cached_id_seq CACHE 32")
    problems: list[tuple[str, str | None, Form, str]] = [
        (name, "number2", Form(), "has no column 'number2'; its columns are 'id', .*did you mean 'number'"),
        (name, "nullable", Form(), "column 'nullable' may be NULL, .*SET NOT NULL"),
        (name, "number", Form(), "column 'number' is numeric; expected one of whole numbers that grow"),
        (name, None, Form(user="who"), "has no column 'who'; its columns are 'id', 'user_id'"),
        (name, None, Form(timestamp="at"), "has no column 'at'"),
        ("gone", None, Form(), "has no table gone; .*in double quotes"),
        ("a b", None, Form(), "invalid name syntax"),
        (f"{name}_view", None, Form(), "is not a table"),
        (f"{name}_cached", None, Form(), "gives each session 32 numbers at once, .*CACHE 1"),
    ]
    for table, position, form, problem in problems:
        with pytest.raises(InputError, match=problem) as caught:
            read(Table.parse(clicks.uri, table, position), log, form)
        assert "s3cret" not in str(caught.value)
    with pytest.raises(InputError, match="expected the name of a table, with --table"):
        Table.parse(clicks.uri, None, None)
    assert not log.path.exists()


def test_no_server(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 1, and no secret in it, nor in what shows the table."""
    monkeypatch.setenv("PASSWORD_OF_A_TEST", "s3cret")
    table = Table.parse("postgresql://u:${PASSWORD_OF_A_TEST}@127.0.0.1:1/d", "clicks", None)
    with pytest.raises(EmbeddingsError, match="check that the server runs") as caught:
        read(table, log)
    assert caught.value.exit_code == 1
    assert "s3cret" not in f"{caught.value}{Table.parse('postgresql://u:s3cret@h/d', 'clicks', None)!r}"
    with pytest.raises(InputError, match="PASSWORD_OF_NO_ONE is not set"):
        read(Table.parse("postgresql://u:${PASSWORD_OF_NO_ONE}@127.0.0.1:1/d", "clicks", None), log)


def test_the_command(clicks: Clicks, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password is a variable of the environment; options of other sources are refused."""
    monkeypatch.setenv("PASSWORD_OF_A_TEST", "s3cret")
    address = clicks.uri.replace("s3cret", "${PASSWORD_OF_A_TEST}")
    repo = init_repo(tmp_path / "repo").path
    clicks.insert(["a"])
    follow = ["follow", "--source", address, "--repo", repo, "--model", "shop", "--once", "--json"]
    answer = command(*follow, "--table", clicks.name, "--position-column", "id", "--batch", 5)
    assert (answer.code, answer.err) == (0, "")
    counts = {"added": 1, "duplicates": 0, "without_weight": 0, "dropped": 0, "behind": 0}
    assert json.loads(answer.out) == {"source": clicks.full_name, **counts}
    assert items(EventLog(repo / "data" / "shop.events.sqlite")) == ["a"]
    for options, problem in (
        ([], "with --table"),
        (["--table", "clicks", "--group", "g"], "--group has no effect on a table"),
        (["--table", "gone"], "has no table gone"),
    ):
        answer = command(*follow, *options)
        assert (answer.code, answer.out, "s3cret" in answer.err) == (2, "", False)
        assert problem in answer.err
    answer = command("follow", "--source", tmp_path, "--table", "t", "--repo", repo, "--model", "shop")
    assert (answer.code, "--table has no effect on a folder" in answer.err) == (2, True)


@pytest.mark.slow
def test_kills_lose_nothing_and_count_nothing_twice(clicks: Clicks, log: EventLog, start: Callable[..., Job]) -> None:
    """SIGKILL at 20 moments, while connections commit in any order, and roll back; in the end all, once."""
    moments = random.Random(0)  # noqa: S311
    open_rows: dict[Any, list[str]] = {clicks.connect(): [] for _ in range(3)}
    oracle: set[str] = set()
    told = 0
    log.add([])  # a file of a process that was killed before it made the tables cannot be read
    for kill in range(20):
        job = start(process_jobs.follow_table_and_tell, clicks.followed(), log.path)
        for number in range(12):
            connection = moments.choice(list(open_rows))
            item = f"{kill}-{number}"
            clicks.insert([item], connection)
            open_rows[connection].append(item)
            if (end := moments.random()) < 0.4:
                connection.commit()
                oracle |= set(open_rows[connection])
            elif end < 0.5:
                connection.rollback()
            else:
                continue
            open_rows[connection] = []
        if job.pipe.poll(moments.uniform(0, 0.2)):
            told += job.pipe.recv()
        told += sum(job.kill())
        found = items(log)
        assert len(set(found)) == len(found) >= told
        assert set(found) <= oracle
    for connection, rows in open_rows.items():
        connection.commit()
        oracle |= set(rows)
    read(clicks.followed(), log)
    assert sorted(items(log)) == sorted(oracle)
    assert read(clicks.followed(), log) == []
