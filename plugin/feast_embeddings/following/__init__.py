"""Events from files, Kafka or PostgreSQL into a model's event log, at least once, none counted twice."""

from __future__ import annotations

from feast_embeddings.following.folder import follow_folder
from feast_embeddings.following.form import Batch, Form
from feast_embeddings.following.kafka import Topic, follow_topic
from feast_embeddings.following.table import Table, follow_table

__all__ = ["Batch", "Form", "Table", "Topic", "follow_folder", "follow_table", "follow_topic"]
