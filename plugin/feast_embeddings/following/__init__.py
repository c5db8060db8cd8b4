"""Events from a folder or a Kafka topic into a model's event log, at least once, none counted twice."""

from __future__ import annotations

from feast_embeddings.following.folder import follow_folder
from feast_embeddings.following.form import Batch, Form
from feast_embeddings.following.kafka import Topic, follow_topic

__all__ = ["Batch", "Form", "Topic", "follow_folder", "follow_topic"]
