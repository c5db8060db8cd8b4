"""Interactions that came after the training: kept in a file of the repo, and part of the next answer."""

from __future__ import annotations

from feast_embeddings.events.event import Event, to_events
from feast_embeddings.events.log import Added, EventLog, event_log_of

__all__ = ["Added", "Event", "EventLog", "event_log_of", "to_events"]
