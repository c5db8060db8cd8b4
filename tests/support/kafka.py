"""A real Kafka broker: KAFKA_BOOTSTRAP, else one of the jars below KAFKA_HOME, on loopback, in a temporary folder."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Broker", "kafka"]

_START_SECONDS = 60


class Broker:
    """Where a broker listens; makes topics and writes to them."""

    def __init__(self, servers: str) -> None:
        from confluent_kafka import Producer
        from confluent_kafka.admin import AdminClient

        self.servers = servers
        self._admin = AdminClient({"bootstrap.servers": servers})
        self._producer = Producer({"bootstrap.servers": servers})

    def is_up(self) -> bool:
        from confluent_kafka import KafkaException

        try:
            return bool(self._admin.list_topics(timeout=1).brokers)
        except KafkaException:
            return False

    def topic(self, partitions: int = 1) -> str:
        """Make a topic with a name of its own."""
        from confluent_kafka.admin import NewTopic  # type: ignore[attr-defined]  # not in its list of names

        name = f"t-{uuid.uuid4().hex[:12]}"
        self._admin.create_topics([NewTopic(name, partitions, 1)])[name].result()
        return name

    def write(self, topic: str, values: Sequence[bytes], partition: Callable[[int], int] = lambda _: 0) -> None:
        """Write messages; when this returns the broker has them."""
        for number, value in enumerate(values):
            self._producer.produce(topic, value, partition=partition(number))
        assert self._producer.flush(_START_SECONDS) == 0

    def committed(self, topic: str, group: str, partitions: int = 1) -> list[int]:
        """How far a group is, by partition; -1001 for one that it has not begun."""
        from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition

        asked = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, n) for n in range(partitions)])
        answer: Any = self._admin.list_consumer_group_offsets([asked])[group].result()
        return [each.offset for each in answer.topic_partitions]


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broker]:
    """A broker of one node; skips where there is none."""
    pytest.importorskip("confluent_kafka")
    if servers := os.environ.get("KAFKA_BOOTSTRAP"):
        yield Broker(servers)
        return
    home, java = os.environ.get("KAFKA_HOME"), shutil.which("java")
    if not home or java is None:
        pytest.skip("no Kafka: KAFKA_BOOTSTRAP is not set, nor KAFKA_HOME with java on the PATH")
    folder = tmp_path_factory.mktemp("kafka")
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        clients, controller = one.getsockname()[1], other.getsockname()[1]
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller}",
        "listeners": f"PLAINTEXT://127.0.0.1:{clients},CONTROLLER://127.0.0.1:{controller}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{clients}",
        "controller.listener.names": "CONTROLLER",
        "log.dirs": str(folder / "data"),
        "offsets.topic.replication.factor": "1",
        "offsets.topic.num.partitions": "1",
        "group.initial.rebalance.delay.ms": "0",
        "auto.create.topics.enable": "false",
    }
    properties = folder / "server.properties"
    properties.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    jars = ":".join(sorted(str(jar) for jar in Path(home).rglob("*.jar")))
    form = ["kafka.tools.StorageTool", "format", "-t", "MkU3OEVBNTcwNTJENDM2Qk", "-c", str(properties)]
    subprocess.run([java, "-cp", jars, *form], check=True, capture_output=True)
    with (folder / "out").open("w") as out:
        broker = subprocess.Popen(
            [java, "-Xmx256m", "-cp", jars, "kafka.Kafka", properties], stdout=out, stderr=subprocess.STDOUT
        )
    try:
        at = Broker(f"127.0.0.1:{clients}")
        until = time.monotonic() + _START_SECONDS
        while not at.is_up():
            assert broker.poll() is None, (folder / "out").read_text()[-2000:]
            assert time.monotonic() < until, "the broker does not start"
        yield at
    finally:
        broker.send_signal(signal.SIGKILL)
        broker.wait()
