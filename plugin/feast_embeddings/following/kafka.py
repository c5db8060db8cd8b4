"""Follow a Kafka topic: offsets are committed after the events are in the log."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from feast_embeddings.errors import EmbeddingsError, InputError, import_extra
from feast_embeddings.events import Event, EventLog
from feast_embeddings.following.form import Batch, Form
from feast_embeddings.following.message import message_event
from feast_embeddings.times import from_microseconds

__all__ = ["Topic", "follow_topic"]

_VARIABLE = re.compile(r"\$\{(\w+)\}")
_OURS = ("bootstrap.servers", "group.id", "enable.auto.commit", "auto.offset.reset", "enable.partition.eof")
_POLL_SECONDS = 1.0
_REACH_SECONDS = 10.0


@dataclass(frozen=True)
class Topic:
    """A topic of Kafka, and who reads it.

    Attributes:
        servers: ``host:port``, several separated by commas.
        group: the consumer group, which shares the partitions and keeps how far it is.
        settings: of librdkafka, such as ``security.protocol``; ``${NAME}`` stands for a variable of the environment.
    """

    servers: str
    name: str
    group: str
    settings: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def parse(cls, address: str, group: str, settings: Mapping[str, str]) -> Topic:
        """Read ``kafka://host:port/topic``.

        Raises:
            InputError: it is not of that form, or a setting is one that follow itself makes.
        """
        found = re.fullmatch(r"kafka://([^/@\s]+)/([\w.-]+)", address)
        if found is None:
            raise InputError(f"{address!r}: expected kafka://host:port/topic; several servers are separated by commas")
        if ours := next((name for name in settings if name in _OURS), None):
            raise InputError(f"--kafka-conf {ours}: follow sets it itself; leave it out")
        return cls(found[1], found[2], group, settings)

    def expanded(self) -> dict[str, str]:
        """Return the settings with the variables of the environment in them.

        Raises:
            InputError: one is not set.
        """

        def value(found: re.Match[str]) -> str:
            if (text := os.environ.get(found[1])) is None:
                raise InputError(f"--kafka-conf: the environment variable {found[1]} is not set")
            return text

        return {name: _VARIABLE.sub(value, text) for name, text in self.settings.items()}


def follow_topic(
    topic: Topic, log: EventLog, form: Form, *, batch: int, once: bool, stopped: Callable[[], bool]
) -> Iterator[Batch]:
    """Add the events of a topic's messages to the log, and yield what became of each batch.

    Offsets are committed when the events are on disk. A process that is killed between the two has the messages again,
    and their events are found to be there: an event's id is its ``event_id``, or else ``topic:partition:offset``. A new
    group begins at the oldest message. One without a time happened when the message was made.

    Args:
        batch: the most messages of a batch.
        once: end when the ends of all partitions have been reached; otherwise wait for more.
        stopped: asked between batches, each second.

    Raises:
        InputError: there is no such topic, a setting is not one of Kafka's, or a message is no event; then those before
            it are added.
        EmbeddingsError: the broker cannot be reached, or refuses.
        MissingExtraError: the extra kafka is not installed.
    """
    kafka = import_extra("confluent_kafka", "following a topic", "kafka")
    with closing(_Consumer(kafka, topic)) as consumer:
        while not stopped():
            messages = consumer.next(batch)
            if messages:
                yield _add(consumer, messages, topic, log, form)
            if once and consumer.is_at_end():
                return


class _Consumer:
    """A consumer of one topic, which knows which partitions it has, and whose ends it has reached."""

    def __init__(self, kafka: Any, topic: Topic) -> None:
        self._kafka, self._topic = kafka, topic
        settings = topic.expanded()
        self._secrets = [value for value in settings.values() if value]
        self._unreachable = False
        # librdkafka would write to standard error.
        silent = logging.Logger("librdkafka")
        silent.addHandler(logging.NullHandler())
        try:
            self._consumer = kafka.Consumer(
                {
                    **settings,
                    "bootstrap.servers": topic.servers,
                    "group.id": topic.group,
                    "enable.auto.commit": False,
                    "auto.offset.reset": "earliest",
                    "enable.partition.eof": True,
                    "error_cb": self._on_error,
                },
                logger=silent,
            )
        except (kafka.KafkaException, TypeError, ValueError) as error:
            raise InputError(f"--kafka-conf: {self._said(error)}") from None
        self._has_joined = False
        self._ended: set[int] = set()
        try:
            self._reach()
            self._consumer.subscribe([topic.name], on_assign=self._on_assign)
        except BaseException:
            self.close()
            raise

    def next(self, count: int) -> list[Any]:
        """Return the next messages, up to a limit; none if none came in a second."""
        try:
            messages = self._consumer.consume(count, _POLL_SECONDS)
        except self._kafka.KafkaException as error:
            raise self._failed(error) from None
        if self._unreachable:
            self._unreachable = False
            self._reach()
        return [message for message in messages if self._is_message(message)]

    def commit(self, messages: list[Any]) -> None:
        """Tell the group that it has these; when it returns, the broker knows."""
        next_offsets = {message.partition(): message.offset() + 1 for message in messages}
        offsets = [self._kafka.TopicPartition(self._topic.name, *each) for each in next_offsets.items()]
        error = self._kafka.KafkaError
        try:
            self._consumer.commit(offsets=offsets, asynchronous=False)
        except self._kafka.KafkaException as failure:
            # The partitions have gone to another member, which gets these messages again.
            if failure.args[0].code() not in (error.ILLEGAL_GENERATION, error.UNKNOWN_MEMBER_ID, error._NO_OFFSET):
                raise self._failed(failure) from None

    def behind(self) -> int:
        """Return how many messages of its partitions it has not given out: high watermark − position."""
        behind = 0
        try:
            for partition in self._consumer.position(self._consumer.assignment()):
                low, high = self._consumer.get_watermark_offsets(partition, timeout=_REACH_SECONDS)
                behind += max(0, high - max(low, partition.offset))
        except self._kafka.KafkaException as error:
            raise self._failed(error) from None
        return behind

    def is_at_end(self) -> bool:
        """Return whether it has reached the ends of all its partitions."""
        return self._has_joined and {each.partition for each in self._consumer.assignment()} <= self._ended

    def close(self) -> None:
        """Leave the group."""
        self._consumer.close()

    def _reach(self) -> None:
        try:
            found = self._consumer.list_topics(self._topic.name, timeout=_REACH_SECONDS).topics[self._topic.name]
        except self._kafka.KafkaException as error:
            raise self._failed(error) from None
        if found.error is not None:
            raise InputError(f"topic {self._topic.name!r} of {self._topic.servers}: {self._said(found.error.str())}")

    def _is_message(self, message: Any) -> bool:
        if (error := message.error()) is None:
            self._ended.discard(message.partition())
            return True
        if error.code() == self._kafka.KafkaError._PARTITION_EOF:
            self._ended.add(message.partition())
            return False
        if error.retriable():
            return False
        raise self._failed(error)

    def _on_assign(self, _: Any, partitions: list[Any]) -> None:
        self._has_joined = True
        self._ended.difference_update(partition.partition for partition in partitions)

    def _on_error(self, error: Any) -> None:
        self._unreachable = self._unreachable or error.code() == self._kafka.KafkaError._ALL_BROKERS_DOWN

    def _failed(self, error: Any) -> EmbeddingsError:
        return EmbeddingsError(
            f"Kafka at {self._topic.servers}: {self._said(error)}; check that the broker runs, that its advertised "
            "address can be reached from here, and the settings of --kafka-conf"
        )

    def _said(self, error: Any) -> str:
        """Return the text of an error without the values of settings, which may be secret."""
        if isinstance(error, self._kafka.KafkaException):
            error = error.args[0]
        said = error.str() if isinstance(error, self._kafka.KafkaError) else str(error)
        for secret in sorted(self._secrets, key=len, reverse=True):
            said = said.replace(secret, "***")
        return said


def _add(consumer: _Consumer, messages: list[Any], topic: Topic, log: EventLog, form: Form) -> Batch:
    """Add the events of messages, then commit; if one is none, only those before it."""
    events: list[Event] = []
    done: list[Any] = []
    without_weight = dropped = 0
    refused: InputError | None = None
    for message in messages:
        place = f"{topic.name}:{message.partition()}:{message.offset()}"
        try:
            event = message_event(message.value(), form, _made(message), place)
        except InputError as error:
            if form.on_bad_rows == "error":
                refused = InputError(
                    f"topic {topic.name}, partition {message.partition()}, offset {message.offset()}: {error}; leave "
                    "such messages out with --on-bad-rows drop"
                )
                break
            dropped += 1
        else:
            if event is None:
                without_weight += 1
            else:
                events.append(event)
        done.append(message)
    added = log.add(events)
    if done:
        consumer.commit(done)
    if refused is not None:
        raise refused
    return Batch(topic.name, added.added, added.duplicates, without_weight, dropped, consumer.behind())


def _made(message: Any) -> datetime:
    kind, milliseconds = message.timestamp()
    return from_microseconds(milliseconds * 1000) if kind else datetime.now(UTC)
