"""How a followed source writes an interaction, and the fate of some interactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from feast_embeddings.reading import IdType, OnBadRows

__all__ = ["EVENT_ID", "Batch", "Form"]

EVENT_ID = "event_id"
_TIMESTAMP = "timestamp"


@dataclass(frozen=True)
class Form:
    """The columns of files, or the fields of messages, and how their values are read; see docs/input.md.

    Attributes:
        timestamp: None takes ``timestamp`` if there is one. An event without a time happened when it was read, or as
            its message says.
        weight: None weighs each event 1.
        event: the type of an event, which `event_weights` weighs; a weight of 0 means that it is none.
        user_ids, item_ids: the types of the model's ids; None takes text as text and whole numbers as such.
        time_format: strptime's pattern for times; None takes ISO 8601 and numbers since 1970.
        on_bad_rows: stop at what cannot be used, or leave it out and count it.
    """

    user: str = "user_id"
    item: str = "item_id"
    timestamp: str | None = None
    weight: str | None = None
    event: str | None = None
    event_weights: Mapping[str, float] = field(default_factory=dict)
    user_ids: IdType | None = None
    item_ids: IdType | None = None
    time_format: str | None = None
    allow_future: bool = False
    on_bad_rows: OnBadRows = "error"

    @property
    def times(self) -> str:
        """The name of the times, which need not exist if it is not given."""
        return self.timestamp or _TIMESTAMP


class Batch(NamedTuple):
    """What was read and is in the log.

    Attributes:
        source: the name of the file, or of the topic.
        added: new events.
        duplicates: events that were there already.
        without_weight: rows of weight 0, which are no interactions.
        dropped: rows that cannot be used.
        behind: files or messages that are there and have not been read.
    """

    source: str
    added: int
    duplicates: int
    without_weight: int
    dropped: int
    behind: int
