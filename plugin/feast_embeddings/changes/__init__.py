"""Changes of what is live and on disk without a training: users and items to forget, attributes to set."""

from __future__ import annotations

from feast_embeddings.changes.forget import Forgotten, forget
from feast_embeddings.changes.set_attributes import AttributesSet, Given, set_attributes

__all__ = ["AttributesSet", "Forgotten", "Given", "forget", "set_attributes"]
