"""A topic that is followed, on a real broker: each event once, over kills, groups and bad messages."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Command
from tests.support import process_jobs
from tests.support.job import TIMEOUT, Job
from tests.support.kafka import Broker

from feast_embeddings.errors import EmbeddingsError, InputError
from feast_embeddings.events import Event, EventLog
from feast_embeddings.following import Batch, Form, Topic, follow_topic
from feast_embeddings.following.message import message_event
from feast_embeddings.repo import init_repo

NOW = datetime(2026, 5, 1, tzinfo=UTC)
T = 1_777_593_600_000_000


@pytest.fixture
def log(tmp_path: Path) -> EventLog:
    return EventLog(tmp_path / "shop.events.sqlite")


def message(user: Any = "u", item: Any = "a", **others: Any) -> bytes:
    return json.dumps({"user_id": user, "item_id": item, "timestamp": "2026-05-01", **others}).encode()


def kept(log: EventLog) -> list[Event]:
    return [event for part in log.batches() for event in part]


def read(topic: Topic, log: EventLog, form: Form | None = None, batch: int = 1000) -> list[Batch]:
    return list(follow_topic(topic, log, form or Form(), batch=batch, once=True, stopped=lambda: False))


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, Event("u", "a", T, 1.0, "t:0:5")),
        ({"event_id": "e", "page": 3}, Event("u", "a", T, 1.0, "e")),
        ({"user_id": 7, "timestamp": T // 1000}, Event(7, "a", T, 1.0, "t:0:5")),
        ({"timestamp": T // 10**6}, Event("u", "a", T, 1.0, "t:0:5")),
        ({"timestamp": T * 1000}, Event("u", "a", T, 1.0, "t:0:5")),
        ({"timestamp": None}, Event("u", "a", T, 1.0, "t:0:5")),
    ],
)
def test_what_a_message_says(fields: dict[str, Any], expected: Event) -> None:
    assert message_event(message(**{"user": "u", **fields}), Form(), NOW, "t:0:5") == expected


def test_a_message_of_another_form() -> None:
    """Names, types of ids, weights and types of events are those of the form."""
    form = Form("who", "what", "at", "times", "kind", {"view": 0, "buy": 5}, "int", "text", time_format="%d.%m.%Y")
    given = {"who": "7", "what": 8, "at": "01.05.2026", "times": 2, "kind": "buy"}
    assert message_event(json.dumps(given).encode(), form, NOW, "e") == Event(7, "8", T, 10.0, "e", "buy", 2)
    assert message_event(json.dumps(given | {"kind": "view"}).encode(), form, NOW, "e") is None


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (None, "expected a JSON object, got b''"),
        (b"\xff", "expected a JSON object"),
        (b"[1]", "expected a JSON object, got list"),
        (message(user=None), "user_id must be a whole number or text that is not empty, got None"),
        (message(user=2**63), "user_id must be a whole number of 64 bits"),
        (message(item=""), "item_id must be a whole number or text that is not empty"),
        (message(timestamp=5), "timestamp must be a time since 1970"),
        (message(timestamp="soon"), "timestamp must be a time in ISO 8601, got 'soon'"),
        (message(weight="3"), "weight must be a number, got '3'"),
        (b'{"user_id": 1, "item_id": 2, "weight": NaN}', "weight must be a number, got nan"),
        (message(weight=1e9), "weight must be a number from 1e-6 to 1e6"),
        (message(weight=1, event_id=3), "event_id must be text"),
    ],
)
def test_what_is_no_event(value: bytes | None, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        message_event(value, Form(weight="weight") if b"weight" in (value or b"") else Form(), NOW, "e")


@pytest.mark.parametrize("address", ["kafka://host:1", "kafka:///t", "kafka://u:secret@host:1/t", "kafka://h/a/b"])
def test_what_is_no_topic(address: str) -> None:
    with pytest.raises(InputError, match="expected kafka://host:port/topic"):
        Topic.parse(address, "g", {})


def test_secrets_are_not_shown(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither of the environment nor written out; a setting that is not Kafka's is bad input."""
    pytest.importorskip("confluent_kafka")
    monkeypatch.setenv("KAFKA_SECRET", "hunter2")
    for value in ("${KAFKA_SECRET}", "hunter2"):
        topic = Topic.parse("kafka://127.0.0.1:1/t", "g", {"security.protocol": value})
        assert "hunter2" not in repr(topic)
        with pytest.raises(InputError, match=r"--kafka-conf: .*security\.protocol") as caught:
            read(topic, log)
        assert "hunter2" not in str(caught.value)
    with pytest.raises(InputError, match="environment variable KAFKA_GONE is not set"):
        read(Topic.parse("kafka://127.0.0.1:1/t", "g", {"sasl.password": "${KAFKA_GONE}"}), log)
    with pytest.raises(InputError, match=r"--kafka-conf group\.id: follow sets it itself"):
        Topic.parse("kafka://127.0.0.1:1/t", "g", {"group.id": "x"})


def test_no_broker(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("confluent_kafka")
    monkeypatch.setattr("feast_embeddings.following.kafka._REACH_SECONDS", 0.5)
    with pytest.raises(EmbeddingsError, match=r"Kafka at 127\.0\.0\.1:1: .*check that the broker runs") as caught:
        read(Topic.parse("kafka://127.0.0.1:1/t", "g", {}), log)
    assert caught.value.exit_code == 1
    assert not log.path.exists()


def test_no_package(log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "confluent_kafka", None)
    with pytest.raises(EmbeddingsError, match=r"pip install 'feast-embeddings\[kafka\]'"):
        read(Topic("127.0.0.1:1", "t", "g"), log)


def test_every_message_once(kafka: Broker, log: EventLog) -> None:
    """Three partitions; the group goes on where it was; another group finds that all are there; the lag is counted."""
    name = kafka.topic(partitions=3)
    kafka.write(name, [message(item=n) for n in range(10)], lambda n: n % 3)
    topic = Topic(kafka.servers, name, name)
    batches = read(topic, log, batch=4)
    assert sum(batch.added for batch in batches) == 10
    assert [batch.behind for batch in batches] == [
        max(0, 10 - sum(b.added for b in batches[: n + 1])) for n in range(len(batches))
    ]
    assert kafka.committed(name, name, 3) == [4, 3, 3]
    assert {(e.item_id, e.event_id) for e in kept(log)} == {(n, f"{name}:{n % 3}:{n // 3}") for n in range(10)}
    kafka.write(name, [message(item=10, event_id="own"), message(item=11, event_id="own")])
    assert [(b.added, b.duplicates) for b in read(topic, log)] == [(1, 1)]
    assert [(b.added, b.duplicates) for b in read(Topic(kafka.servers, name, "other"), log)] == [(0, 12)]
    assert read(topic, log) == []
    assert len(kept(log)) == 11


def test_a_bad_message(kafka: Broker, log: EventLog, command: Command, tmp_path: Path) -> None:
    """Those before it are there and committed; it is named; dropped if wanted. All by the command line."""
    name = kafka.topic()
    kafka.write(name, [message(item="a"), b"what", message(item="b")])
    repo = init_repo(tmp_path / "repo").path
    follow = ["follow", "--source", f"kafka://{kafka.servers}/{name}", "--group", name, "--repo", repo]
    follow += ["--model", "shop", "--once", "--json"]
    for _ in range(2):
        answer = command(*follow)
        assert (answer.code, answer.out) == (2, "")
        assert f"topic {name}, partition 0, offset 1: expected a JSON object, got b'what'" in answer.err
        assert kafka.committed(name, name) == [1]
    answer = command(*follow, "--on-bad-rows", "drop")
    assert (answer.code, answer.err) == (0, "")
    said = {"source": name, "added": 1, "duplicates": 0, "without_weight": 0, "dropped": 1, "behind": 0}
    assert json.loads(answer.out) == said
    assert kafka.committed(name, name) == [3]
    assert [e.item_id for e in kept(EventLog(repo / "data" / "shop.events.sqlite"))] == ["a", "b"]


def test_events_are_in_the_log_before_offsets_are_committed(
    kafka: Broker, log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that cannot be written: nothing is committed, and the next reader has the messages."""
    name = kafka.topic()
    kafka.write(name, [message()])
    topic = Topic(kafka.servers, name, name)

    def full(*_: Any) -> Any:
        raise EmbeddingsError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(EventLog, "add", full)
        with pytest.raises(EmbeddingsError, match="disk full"):
            read(topic, log)
    assert kafka.committed(name, name) == [-1001]
    assert len(read(topic, log)) == 1


def test_no_such_topic(kafka: Broker, log: EventLog) -> None:
    with pytest.raises(InputError, match=r"topic 'gone' of .*Unknown topic"):
        read(Topic(kafka.servers, "gone", "g"), log)


@pytest.mark.slow
def test_kills_lose_nothing_and_count_nothing_twice(kafka: Broker, log: EventLog, start: Callable[..., Job]) -> None:
    """SIGKILL at 20 moments, while messages come; what was told is there, and in the end all, once."""
    name, moments, oracle = kafka.topic(partitions=2), random.Random(0), set()  # noqa: S311
    # A member that was killed holds its partitions until the session ends.
    settings = {"session.timeout.ms": "6000", "heartbeat.interval.ms": "500"}
    kills = 0
    while kills < 20:
        new = [f"{kills}-{n}" for n in range(20)]
        kafka.write(name, [message(item=item, event_id=item) for item in new], lambda n: n % 2)
        oracle |= set(new)
        # A group of its own: it begins at the oldest message, as after a kill between the log and the commit.
        job = start(
            process_jobs.follow_topic_and_tell, Topic(kafka.servers, name, f"{name}-{kills}", settings), log.path
        )
        for _ in range(moments.randrange(1, 4)):
            assert job.pipe.poll(TIMEOUT)
            job.pipe.recv()
        time.sleep(moments.uniform(0, 0.02))
        job.kill()
        kills += 1
        found = [str(event.item_id) for event in kept(log)]
        assert len(set(found)) == len(found)
        assert set(found) <= oracle
    read(Topic(kafka.servers, name, f"{name}-0", settings), log)
    assert {event.item_id for event in kept(log)} == oracle
    assert len(kept(log)) == len(oracle)


@pytest.mark.slow
def test_kills_of_one_group(kafka: Broker, log: EventLog, start: Callable[..., Job]) -> None:
    """SIGKILL at 50 moments of one consumer group, which goes on where it was; ids are those of topic and offset."""
    name, moments, written = kafka.topic(partitions=2), random.Random(0), 0  # noqa: S311
    # A member that was killed holds its partitions until its session ends; a static one takes its own place at once.
    settings = {"group.instance.id": "one", "session.timeout.ms": "6000", "heartbeat.interval.ms": "500"}
    topic = Topic(kafka.servers, name, name, settings)
    for _ in range(50):
        kafka.write(name, [message(item=written + n) for n in range(20)], lambda n: n % 2)
        written += 20
        job = start(process_jobs.follow_topic_and_tell, topic, log.path)
        for _ in range(moments.randrange(4)):
            job.receive()
        time.sleep(moments.uniform(0, 0.02))
        job.kill()
        assert len({event.event_id for event in kept(log)}) == len(kept(log)) <= written
    read(topic, log)
    assert sorted(event.item_id for event in kept(log)) == list(range(written))
    assert sum(kafka.committed(name, name, 2)) == written
