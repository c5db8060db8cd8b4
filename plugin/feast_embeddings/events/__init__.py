"""What came after the training, interactions and attributes: kept in a file of the repo."""

from __future__ import annotations

from feast_embeddings.events.attributes import SetAttributes, SetValue, set_attributes_of
from feast_embeddings.events.event import Event, to_events
from feast_embeddings.events.log import Added, EventLog, event_log_of

__all__ = [
    "Added",
    "Event",
    "EventLog",
    "SetAttributes",
    "SetValue",
    "event_log_of",
    "set_attributes_of",
    "to_events",
]
