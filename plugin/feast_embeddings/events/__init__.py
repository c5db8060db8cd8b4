"""What came after the training, in files of the repo: interactions, attributes, who is hidden, and the last drift."""

from __future__ import annotations

from feast_embeddings.events.added import AddedAttributes, added_attributes_of
from feast_embeddings.events.attributes import SetAttributes, SetValue, set_attributes_of
from feast_embeddings.events.event import OLDEST, WEIGHTS, Event, to_events
from feast_embeddings.events.hidden import Hidden, hidden_of
from feast_embeddings.events.log import Added, Backlog, EventLog, Position, ReadFile, Since, event_log_of
from feast_embeddings.events.measured import MeasuredDrift, measured_drift_of

__all__ = [
    "OLDEST",
    "WEIGHTS",
    "Added",
    "AddedAttributes",
    "Backlog",
    "Event",
    "EventLog",
    "Hidden",
    "MeasuredDrift",
    "Position",
    "ReadFile",
    "SetAttributes",
    "SetValue",
    "Since",
    "added_attributes_of",
    "event_log_of",
    "hidden_of",
    "measured_drift_of",
    "set_attributes_of",
    "to_events",
]
