"""The collection in Qdrant for one side of a version: its users or its items."""

from __future__ import annotations

from dataclasses import dataclass

from feast_embeddings.artifact.table_files import TableFiles
from feast_embeddings.engines.dropped import count_unless_dropped
from feast_embeddings.engines.engine import CollectionSpec, Engine
from feast_embeddings.model.sides import Side

__all__ = ["Target"]


@dataclass(frozen=True)
class Target:
    """The collection of one side, and the rows to load into it."""

    side: Side
    collection: str
    spec: CollectionSpec
    rows: TableFiles

    def is_loaded(self, engine: Engine) -> bool:
        """Return whether the collection is complete and verified; rows written since then only add to it."""
        existing = engine.collections(self.side.alias).get(self.collection)
        if existing is None or not existing.verified or not existing.same_content(self.spec):
            return False
        count = count_unless_dropped(engine, self.collection, self.side.alias)
        return count is not None and count >= self.rows.num_rows
