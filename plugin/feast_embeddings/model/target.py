"""Where one side of a version, its users or its items, goes in Qdrant."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from feast_embeddings.artifact import Entity
from feast_embeddings.codec.rows import PointCodec
from feast_embeddings.engines.engine import CollectionSpec, Engine

__all__ = ["Target"]


@dataclass(frozen=True)
class Target:
    """The collection of one side, and what is to be in it."""

    entity: Entity
    codec: PointCodec
    alias: str
    collection: str
    spec: CollectionSpec
    table: pa.Table

    def is_loaded(self, engine: Engine) -> bool:
        """Whether the collection is there, whole and verified; rows written into it since then only add to it."""
        existing = engine.collections(self.alias).get(self.collection)
        return (
            existing is not None
            and existing.verified
            and existing.same_content(self.spec)
            and engine.count(self.collection) >= self.table.num_rows
        )
