"""A folder that is followed, next to a dictionary of its rows: with kills, changes, bad rows and signals."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.conftest import Command
from tests.support import process_jobs
from tests.support.job import TIMEOUT, Job

from feast_embeddings.errors import InputError
from feast_embeddings.events import EventLog, ReadFile
from feast_embeddings.following import Batch, Form, follow_folder
from feast_embeddings.repo import init_repo

T = 1_777_593_600_000_000
Oracle = dict[str | None, tuple[Any, ...]]
ROWS = st.lists(
    st.tuples(st.sampled_from("uv"), st.sampled_from("abc"), st.none() | st.sampled_from("123")), min_size=1
)


def lines(*rows: Mapping[str, Any]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write(folder: Path, name: str, text: str) -> Path:
    """As writers should: under another name until it is complete."""
    path = folder / f"{name}.tmp"
    path.write_text(text)
    return path.rename(folder / name)


def read(folder: Path, log: EventLog, form: Form | None = None) -> list[Batch]:
    return list(follow_folder(folder, log, form or Form(), once=True, stopped=lambda: False))


def kept(log: EventLog) -> Oracle:
    events = [event for part in log.batches() for event in part]
    found = {event.event_id: (event.user_id, event.item_id, event.timestamp, event.weight) for event in events}
    assert len(found) == len(events)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    return tmp_path / "in"


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "shop.events.sqlite")


@settings(max_examples=15, deadline=None)
@given(files=st.lists(ROWS, min_size=1, max_size=4), order=st.randoms(use_true_random=False))
def test_every_row_once(
    files: list[list[tuple[str, str, str | None]]],
    order: random.Random,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """A dictionary oracle: files come in any order, between reads of the folder; ids of the file, or name and row."""
    root = tmp_path_factory.mktemp("f")
    folder, log = root / "in", EventLog(root / "x.sqlite")
    oracle: Oracle = {}
    folder.mkdir()
    numbered = list(enumerate(files))
    order.shuffle(numbered)
    for number, rows in numbered:
        name = f"{number}.jsonl"
        with_ids = all(event_id is not None for _, _, event_id in rows)
        objects = [
            {"user_id": u, "item_id": i, "timestamp": T} | ({"event_id": e} if with_ids else {}) for u, i, e in rows
        ]
        write(folder, name, lines(*objects))
        new = dict(oracle)
        for row, (user, item, event_id) in enumerate(rows, 1):
            new.setdefault(event_id if with_ids else f"{name}:{row}", (user, item, T, 1.0))
        added = len(new) - len(oracle)
        oracle = new
        assert read(folder, log) == [Batch(name, added, len(rows) - added, 0, 0, 0)]
        assert kept(log) == oracle
    assert read(folder, log) == []


def test_formats_and_columns(folder: Path, log: EventLog) -> None:
    """CSV, Parquet and JSON with the names, times, weights and types of a log, in the order of names."""
    form = Form("who", "what", "at", "times", "kind", {"view": 0.0, "buy": 5.0}, user_ids="int", item_ids="text")
    write(
        folder, "c.csv", "who,what,at,times,kind\n1,x,2026-05-01,2,buy\n1,y,2026-05-01,2,view\n1,z,2026-05-01,0,buy\n"
    )
    table = {"who": [2], "what": ["x"], "at": [datetime(2026, 5, 1)], "times": [0.5], "kind": ["buy"]}
    pq.write_table(pa.table(table), folder / "a.parquet")
    write(folder, "b.jsonl.gz.part", "not complete")
    write(folder, ".b.csv", "hidden")
    write(folder, "_SUCCESS", "")
    write(folder, "empty.json", "")
    (folder / "older").mkdir()
    write(folder, "b.json", '[{"who": 3, "what": 7, "at": 1777593600, "times": 1, "kind": "buy"}]')
    assert read(folder, log, form) == [
        Batch("a.parquet", 1, 0, 0, 0, 2),
        Batch("b.json", 1, 0, 0, 0, 1),
        Batch("c.csv", 1, 0, 2, 0, 0),
    ]
    assert kept(log) == {"a.parquet:1": (2, "x", T, 2.5), "b.json:1": (3, "7", T, 5.0), "c.csv:1": (1, "x", T, 10.0)}


def test_ids_of_json_keep_their_type(folder: Path, log: EventLog) -> None:
    write(folder, "a.jsonl", lines({"user_id": 7, "item_id": "7", "timestamp": T}))
    read(folder, log)
    assert kept(log) == {"a.jsonl:1": (7, "7", T, 1.0)}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (
            "user_id,item_id\nu,a\n,b\n",
            r"b.csv: 1 of 2 rows cannot be used: 1 .*user_id is empty|without user_id \(row 2",
        ),
        (
            "user_id,item_id,timestamp\nu,a,yesterday\n",
            r"b.csv: 1 of 1 .*timestamp is not a time \(row 1 'yesterday'\)",
        ),
        ("user_id,item_id,timestamp\nu,a,1985-01-01\n", r"b.csv: 1 of 1 .*timestamp is before 1990 \(row 1\)"),
        ("user_id,item_id,event_id\nu,a,1\nu,a,\n", r"b.csv: 1 of 2 .*without event_id \(row 2"),
        ("user_id,what\nu,a\n", r"b.csv has no column 'item_id'"),
    ],
)
def test_a_bad_row_stops(folder: Path, log: EventLog, text: str, problem: str) -> None:
    """File, row and column are named; the files before it are there, nothing of it is; corrected, it is read."""
    write(folder, "a.csv", "user_id,item_id\nu,a\n")
    write(folder, "b.csv", text)
    with pytest.raises(InputError, match=problem):
        read(folder, log)
    assert list(kept(log)) == ["a.csv:1"]
    write(folder, "b.csv", "user_id,item_id\nu,b\n")
    assert [batch.source for batch in read(folder, log)] == ["b.csv"]
    assert list(kept(log)) == ["a.csv:1", "b.csv:1"]


def test_bad_rows_are_dropped_if_wanted(folder: Path, log: EventLog) -> None:
    """Each is counted once, whatever is wrong with it."""
    form = Form(weight="weight", on_bad_rows="drop")
    rows = ["u,a,2026-05-01,1", ",a,2026-05-01,1", "u,b,1985-01-01,1e9", "u,c,2026-05-01,1e9", "u,d,2026-05-01,2"]
    write(folder, "a.csv", "\n".join(["user_id,item_id,timestamp,weight", *rows, ""]))
    assert read(folder, log, form) == [Batch("a.csv", 2, 0, 0, 3, 0)]
    assert kept(log) == {"a.csv:1": ("u", "a", T, 1.0), "a.csv:4": ("u", "d", T, 2.0)}
    write(folder, "b.csv", "user_id,item_id,weight\nu,a,1e9\n,a,1\n")
    with pytest.raises(InputError, match=r"usable row 1 '1e\+09'"):
        read(folder, log, form)


def test_a_file_that_changed_after_it_was_read(folder: Path, log: EventLog, tmp_path: Path) -> None:
    """Its name is given; a copy with the same bytes is the same file, also in another folder, and one may go."""
    text = "user_id,item_id\nu,a\n"
    path = write(folder, "a.csv", text)
    read(folder, log)
    os.utime(path, (1, 1))
    assert read(folder, log) == []
    (other := tmp_path / "other").mkdir()
    write(other, "a.csv", text)
    assert read(other, log) == []
    path.unlink()
    assert read(folder, log) == []
    write(folder, "a.csv", text.replace("u,a", "w,a"))
    with pytest.raises(InputError, match=r"in/a.csv changed after it was read"):
        read(folder, log)
    assert kept(log).keys() == {"a.csv:1"}


def test_a_file_that_changes_while_it_is_read(folder: Path, log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(folder, "a.csv", "user_id,item_id\nu,a\n")

    def grows(*arguments: Any) -> Any:
        from feast_embeddings.following.file_events import read_events

        found = read_events(*arguments)
        with path.open("a") as file:
            file.write("u,b\n")
        return found

    monkeypatch.setattr("feast_embeddings.following.folder.read_events", grows)
    with pytest.raises(InputError, match=r"in/a.csv changed while it was read.*rename it when it is complete"):
        read(folder, log)
    assert kept(log) == {}


def test_a_log_of_an_earlier_release(folder: Path, log: EventLog) -> None:
    """It has no table of files yet."""
    log.add([])
    with log._opened("rwc") as connection:
        connection.execute("DROP TABLE read_files")
    assert log.read_files() == {}
    write(folder, "a.csv", "user_id,item_id\nu,a\n")
    assert len(read(folder, log)) == 1
    assert list(log.read_files()) == ["a.csv"]
    assert isinstance(log.read_files()["a.csv"], ReadFile)


def test_kills_lose_nothing_and_count_nothing_twice(folder: Path, log: EventLog, start: Callable[..., Job]) -> None:
    """SIGKILL at 20 moments and more, while files come; what was told is there, and in the end all, once."""
    moments = random.Random(0)  # noqa: S311
    oracle: Oracle = {}
    told: set[str] = set()
    kills = files = 0
    while kills < 20 or len(told) < files:
        if kills < 20:
            for _ in range(4):
                files += 1
                rows = [(f"u{n}", f"i{files}") for n in range(5)]
                if files % 2:
                    write(
                        folder,
                        f"{files:04}.csv",
                        "user_id,item_id,timestamp\n" + "".join(f"{u},{i},{T}\n" for u, i in rows),
                    )
                    oracle |= {f"{files:04}.csv:{n}": (*row, T, 1.0) for n, row in enumerate(rows, 1)}
                else:
                    ids = [f"{files // 2}-{n}" for n in range(5)]
                    objects = [
                        {"user_id": u, "item_id": i, "timestamp": T, "event_id": e}
                        for (u, i), e in zip(rows, ids, strict=True)
                    ]
                    write(folder, f"{files:04}.jsonl", lines(*objects))
                    oracle |= {e: (*row, T, 1.0) for e, row in zip(ids, rows, strict=True)}
        job = start(process_jobs.follow_and_tell, folder, log.path)
        if kills < 20:
            for _ in range(moments.randrange(4)):
                if job.pipe.poll(TIMEOUT):
                    told.add(job.pipe.recv())
            time.sleep(moments.uniform(0, 0.02))
            kills += job.process.is_alive()
            told |= set(job.kill())
        else:
            told |= set(job.finish())
        told |= log.read_files().keys()
        found = kept(log)
        assert found.items() <= oracle.items()
        assert {event_id for event_id in oracle if str(event_id).partition(":")[0] in told} <= found.keys()
    assert kept(log) == oracle


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_well(folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Files that come while it runs are read; then it ends with 0, and says nothing of it."""
    repo = init_repo(tmp_path / "repo").path
    write(folder, "a.csv", "user_id,item_id\nu,a\n")
    program = [sys.executable, "-c", "from feast_embeddings.cli import run; run()"]
    options = ["--source", f"folder:{folder}", "--repo", str(repo), "--model", "shop", "--json"]
    with subprocess.Popen(
        [*program, "follow", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        first = json.loads(process.stdout.readline())
        write(folder, "b.csv", "user_id,item_id\nu,b\n")
        second = json.loads(process.stdout.readline())
        process.send_signal(number)
        out, err = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, out, err) == (0, "", "")
    assert [first["source"], second["source"]] == ["a.csv", "b.csv"]
    assert kept(EventLog(repo / "data" / "shop.events.sqlite")).keys() == {"a.csv:1", "b.csv:1"}


def test_the_command(folder: Path, tmp_path: Path, command: Command) -> None:
    """Names of columns come from embeddings.toml; a line for each batch, or none; bad input is exit code 2."""
    repo = init_repo(tmp_path / "repo").path
    (repo / "embeddings.toml").write_text('[log]\nuser_column = "who"\nhalf_life = "30d"\n')
    follow = ["follow", "--source", folder, "--repo", repo, "--model", "shop", "--once"]
    write(folder, "a.csv", "who,item_id\nu,a\nv,a\n")
    write(folder, "b.csv", "who,item_id,event_id\nu,a,a.csv:1\n")
    answer = command(*follow)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == "a.csv: 2 added; 1 behind\nb.csv: 0 added, 1 there already; 0 behind\n"
    write(folder, "c.csv", "who,item_id\nu,c\n")
    assert command(*follow, "--quiet").out == ""
    write(folder, "d.csv", "who,item_id\nu,\n")
    answer = command(*follow)
    assert (answer.code, answer.out) == (2, "")
    assert "d.csv: 1 of 1 rows cannot be used" in answer.err
    assert command("follow", "--source", tmp_path / "gone", "--repo", repo, "--model", "shop").code == 2
    assert kept(EventLog(repo / "data" / "shop.events.sqlite")).keys() == {"a.csv:1", "a.csv:2", "c.csv:1"}
