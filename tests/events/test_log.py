"""The event log beside a list, with threads, processes and kills."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feast_embeddings.errors import EmbeddingsError, InputError
from feast_embeddings.events import Added, Event, EventLog, to_events

NOW = datetime(2026, 5, 1, tzinfo=UTC)
US = 1_777_593_600_000_000


@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.lists(
            st.builds(
                Event,
                st.sampled_from(["u", "007", "7", ""]) | st.sampled_from([7, -7, 2**63 - 1]),
                st.text(max_size=3).filter(lambda text: "\0" not in text) | st.integers(-(2**63), 2**63 - 1),
                st.integers(0, 5),
                st.floats(1e-6, 1e6),
                st.none() | st.sampled_from("abc"),
                st.none() | st.text(max_size=3).filter(lambda text: "\0" not in text),
                st.none() | st.floats(1e-6, 1e6),
            ),
            max_size=5,
        ),
        max_size=5,
    )
)
def test_what_is_added_is_there_once(batches: list[list[Event]]) -> None:
    """A dictionary model: each event id once, ids of their type, a user's events by time."""
    with tempfile.TemporaryDirectory() as folder:
        log, kept, ids = EventLog(Path(folder) / "x.sqlite"), [], set()
        marks = [(0, 0)]
        assert list(log.batches()) == []
        assert log.of_users(["u"]) == {}
        assert log.backlog(-1) == (0, None)
        assert log.since(0) == ([], [], 0)
        assert not log.path.exists()
        for batch in batches:
            new = []
            for event in batch:
                if event.event_id is None or event.event_id not in ids:
                    new.append(event)
                    ids.add(event.event_id)
            assert log.add(batch) == Added(len(new), len(batch) - len(new))
            kept += new
            marks.append((log.since(0).position, len(kept)))
        assert [event for part in log.batches() for event in part] == kept
        newest = max((event.timestamp for event in kept), default=None)
        for since in (-1, 2, 5):
            assert log.backlog(since) == (sum(event.timestamp > since for event in kept), newest)
        for user in ("u", "007", "7", "", 7, -7, 2**63 - 1):
            own = sorted(
                (e for e in kept if (type(e.user_id), e.user_id) == (type(user), user)), key=lambda e: e.timestamp
            )
            assert log.of_users([user]) == ({user: own} if own else {})
            with_it = sorted(
                (e for e in kept if (type(e.item_id), e.item_id) == (type(user), user)), key=lambda e: e.timestamp
            )
            assert log.of_items([user]) == ({user: with_it} if with_it else {})
        for position, n in marks:
            found = log.since(position)
            assert set(found.users) == {event.user_id for event in kept[n:]}
            assert set(found.items) == {event.item_id for event in kept[n:]}
            assert found.position == marks[-1][0]


def test_many_writers_lose_nothing(tmp_path: Path) -> None:
    """Threads with their own logs of one file; every tenth event id is sent by all."""
    path = tmp_path / "x.sqlite"

    def write(writer: int) -> int:
        log = EventLog(path)
        return sum(log.add([Event(writer, n, n, 1.0, f"{0 if n % 10 == 0 else writer}-{n}")]).added for n in range(50))

    with ThreadPoolExecutor(4) as pool:
        added = sum(pool.map(write, range(1, 5)))
    kept = [event for part in EventLog(path).batches() for event in part]
    assert added == len(kept) == 4 * 45 + 5
    assert len({event.event_id for event in kept}) == len(kept)


def test_a_new_file_waits_for_who_is_making_it(tmp_path: Path) -> None:
    """SQLite answers "locked" at once to a change of the journal while another connection is about to write."""
    path = tmp_path / "x.sqlite"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    ending = threading.Timer(0.3, other.execute, ["ROLLBACK"])
    ending.start()
    assert EventLog(path).add([Event("u", "i", 1, 1.0, "a")]).added == 1
    ending.join()
    other.close()


def test_a_new_file_has_its_tables_from_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads at the moment when it appears, or makes it at the same time, finds it complete."""
    path, link, seen = tmp_path / "x.sqlite", os.link, list[object]()

    def appear(source: Path, target: Path) -> None:
        assert not path.exists()
        monkeypatch.setattr(os, "link", link)
        seen.append(EventLog(path).of_users(["u"]))
        EventLog(path).add([Event("u", "first", 1, 1.0, "a")])
        link(source, target)  # the other one was quicker

    monkeypatch.setattr(os, "link", appear)
    EventLog(path).add([Event("u", "second", 2, 1.0, "b")])
    assert seen == [{}]
    assert [event.item_id for part in EventLog(path).batches() for event in part] == ["first", "second"]
    assert not [file.name for file in tmp_path.iterdir() if not file.name.startswith(path.name)]


def test_a_kept_connection_sees_what_others_write(tmp_path: Path) -> None:
    """Other processes, a forked child, and a file that took the place of the first."""
    log, event = EventLog(tmp_path / "x.sqlite"), Event("u", "i", 1, 1.0, None)
    assert log.of_users(["u"]) == {}
    log.add([event])
    assert log.of_users(["u"]) == {"u": [event]}
    add = "import sys; from pathlib import Path; from feast_embeddings.events import *; "
    add += "EventLog(Path(sys.argv[1])).add([Event('u', 'j', 2, 1.0, None)])"
    subprocess.run([sys.executable, "-c", add, log.path], check=True)
    assert [found.item_id for found in log.of_users(["u"])["u"]] == ["i", "j"]
    child = os.fork()
    if child == 0:  # what its parent opened is not its own
        os._exit(0 if len(log.of_users(["u"])["u"]) == 2 and log.add([event]).added == 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert len(log.of_users(["u"])["u"]) == 3
    shutil.copy(log.path, tmp_path / "copy.sqlite")
    assert len(EventLog(tmp_path / "copy.sqlite").of_users(["u"])["u"]) == 3
    log.forget(["u"], [])
    assert log.of_users(["u"]) == {}
    log.add([event, event])
    log.path.unlink()
    assert log.of_users(["u"]) == {}
    log.add([event])
    assert log.of_users(["u"]) == {"u": [event]}


_WRITER = """
import sys
from pathlib import Path
from feast_embeddings.events import Event, EventLog
log = EventLog(Path(sys.argv[1]))
for n in range(int(sys.argv[2]), 10**9):
    log.add([Event("u", n, n, 1.0, str(n))])
    print(n, flush=True)
"""


def test_what_was_acknowledged_survives_a_kill(tmp_path: Path) -> None:
    """SIGKILL in the middle of writes, several times: every number that was printed is there, none twice."""
    path, last = tmp_path / "x.sqlite", -1
    for _ in range(5):
        command = [sys.executable, "-c", _WRITER, str(path), str(last + 1)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for _ in range(40):
                last = int(process.stdout.readline())
            os.kill(process.pid, signal.SIGKILL)
            last = max([last, *map(int, process.stdout.read().split())])
        kept = [event.item_id for part in EventLog(path).batches() for event in part]
        assert kept == list(range(len(kept)))
        assert len(kept) in (last + 1, last + 2)  # one may have been written and not printed
        last = len(kept) - 1


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"user_id": "u", "item_id": 1}, Event("u", 1, US, 1.0, None)),
        ({"user_id": np.int64(3), "item_id": "i", "weight": np.float32(2)}, Event(3, "i", US, 2.0, None)),
        ({"user_id": "u", "item_id": "i", "weight": float("nan"), "event_id": None}, Event("u", "i", US, 1.0, None)),
        ({"user_id": "u", "item_id": "i", "timestamp": "2026-05-01T02:00:00+02:00"}, Event("u", "i", US, 1.0, None)),
        ({"user_id": "u", "item_id": "i", "timestamp": pd.Timestamp("2026-05-01")}, Event("u", "i", US, 1.0, None)),
    ],
)
def test_what_is_an_event(given: dict[str, Any], expected: Event) -> None:
    assert to_events([given], NOW) == [expected]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"event": "buy"}, Event("u", "i", US, 5.0, None, "buy", 1.0)),
        ({"event": "buy", "weight": 0.5}, Event("u", "i", US, 2.5, None, "buy", 0.5)),
        ({"event": "view"}, Event("u", "i", US, 0.0, None, "view", 1.0)),
        ({"event": None}, Event("u", "i", US, 1.0, None)),
    ],
)
def test_types_weigh(given: dict[str, Any], expected: Event) -> None:
    """The weight of the type times that of the event."""
    assert to_events([{"user_id": "u", "item_id": "i", **given}], NOW, lambda: {"buy": 5.0, "view": 0.0}) == [expected]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"event": "sell"}, "event 'sell' has no weight in the training; those with one are buy, view"),
        ({"event": 7}, "event 7 has no weight"),
        ({"event": ["buy"]}, "event ['buy'] has no weight"),
        ({"event": "buy", "weight": 1e6}, "weight 1e+06 of an event 'buy' is 5e+06 in all, expected 1e-6 to 1e6"),
    ],
)
def test_types_without_weight(given: dict[str, Any], problem: str) -> None:
    with pytest.raises(InputError, match="interaction 0: ") as caught:
        to_events([{"user_id": "u", "item_id": "i", **given}], NOW, lambda: {"buy": 5.0, "view": 0.0})
    assert problem in str(caught.value)


def test_a_file_of_an_earlier_release(tmp_path: Path) -> None:
    """It has no types of events until something is written."""
    path, old, new = tmp_path / "x.sqlite", Event("u", "i", 1, 2.0, "a"), Event("u", "j", 2, 5.0, "b", "buy", 1.0)
    EventLog(path).add([old])
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE events DROP COLUMN type")
        connection.execute("ALTER TABLE events DROP COLUMN own_weight")
    connection.close()
    log = EventLog(path)
    assert log.of_users(["u"]) == {"u": [old]}
    log.add([new])
    assert [event for part in log.batches() for event in part] == [old, new]


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({"item_id": "i"}, "user_id must be a whole number or text that is not empty, got None"),
        ({"user_id": 1.5, "item_id": "i"}, "user_id must be a whole number or text that is not empty, got 1.5"),
        ({"user_id": True, "item_id": "i"}, "user_id must be"),
        ({"user_id": "", "item_id": "i"}, "user_id must be a whole number or text that is not empty, got ''"),
        ({"user_id": "u", "item_id": ""}, "item_id must be a whole number or text that is not empty, got ''"),
        ({"user_id": "u", "item_id": "i", "weight": 0}, "weight must be a number from 1e-6 to 1e6, got 0"),
        ({"user_id": "u", "item_id": "i", "weight": "3"}, "weight must be"),
        ({"user_id": "u", "item_id": "i", "weight": float("inf")}, "weight must be"),
        ({"user_id": "u", "item_id": "i", "timestamp": "yesterday"}, "timestamp must be a time in ISO 8601"),
        ({"user_id": "u", "item_id": "i", "timestamp": 5}, "timestamp must be a time, got 5"),
        ({"user_id": "u", "item_id": "i", "timestamp": pd.NaT}, "timestamp must be a time"),
        ({"user_id": "u", "item_id": "i", "timestamp": "1970-01-01"}, "before 1990 or in the future"),
        ({"user_id": "u", "item_id": "i", "timestamp": datetime.now(UTC) + timedelta(days=2)}, "in the future"),
        ({"user_id": "u", "item_id": "i", "event_id": 7}, "event_id must be text"),
        ({"user_id": "u", "item_id": "i", "event_id": ""}, "event_id must be text"),
        ({"user_id": "u", "item_id": "i", "kind": "buy"}, "there is no field 'kind'; there are user_id, item_id"),
        ("u", "expected a dictionary"),
    ],
)
def test_what_is_none(given: Any, problem: str) -> None:
    """The position and the field are named."""
    with pytest.raises(InputError, match=r"interaction 1: ") as caught:
        to_events([{"user_id": "u", "item_id": "i"}, given], NOW)
    assert problem in str(caught.value)
    for whole in ({"user_id": "u"}, "text"):
        with pytest.raises(InputError, match="a list of dictionaries"):
            to_events(whole, NOW)  # type: ignore[arg-type]


def test_a_damaged_file_is_one_error(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "x.sqlite")
    log.path.write_bytes(b"not a database" * 1000)
    calls: list[Callable[[], Any]] = [lambda: log.add([]), lambda: log.of_users(["u"]), lambda: list(log.batches())]
    for call in calls:
        with pytest.raises(EmbeddingsError, match=r"the events in .*x.sqlite cannot be used"):
            call()


def test_read_only_mount(tmp_path: Path) -> None:
    """Events are read where nothing can be written, and adding is one error."""
    folder = tmp_path / "data"
    folder.mkdir()
    event = Event("u", "i", 1, 1.0, None)
    EventLog(folder / "x.sqlite").add([event])
    program = shutil.which("mount")
    done = program and subprocess.run([program, "--bind", "-o", "ro", folder, folder], capture_output=True, check=False)
    if not done or done.returncode:
        pytest.skip("nothing can be mounted here")
    try:
        log = EventLog(folder / "x.sqlite")
        assert log.of_users(["u"]) == {"u": [event]}
        assert list(log.batches()) == [[event]]
        with pytest.raises(EmbeddingsError, match="cannot be used"):
            log.add([event])
    finally:
        subprocess.run(["umount", folder], check=True)
