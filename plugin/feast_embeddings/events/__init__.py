"""What came after the training, kept in files of the repo: interactions, attributes, and who is hidden."""

from __future__ import annotations

from feast_embeddings.events.added import AddedAttributes, added_attributes_of
from feast_embeddings.events.attributes import SetAttributes, SetValue, set_attributes_of
from feast_embeddings.events.event import OLDEST, WEIGHTS, Event, to_events
from feast_embeddings.events.hidden import Hidden, hidden_of
from feast_embeddings.events.log import Added, Backlog, EventLog, Position, ReadFile, Since, event_log_of

__all__ = [
    "OLDEST",
    "WEIGHTS",
    "Added",
    "AddedAttributes",
    "Backlog",
    "Event",
    "EventLog",
    "Hidden",
    "Position",
    "ReadFile",
    "SetAttributes",
    "SetValue",
    "Since",
    "added_attributes_of",
    "event_log_of",
    "hidden_of",
    "set_attributes_of",
    "to_events",
]
