"""Changes of live versions and files without a training: users and items to forget or to hide, attributes
to set."""

from __future__ import annotations

from feast_embeddings.changes.forget import Forgotten, forget
from feast_embeddings.changes.hide import Visibility, set_hidden
from feast_embeddings.changes.set_attributes import AttributesSet, Given, new_types, set_attributes

__all__ = ["AttributesSet", "Forgotten", "Given", "Visibility", "forget", "new_types", "set_attributes", "set_hidden"]
