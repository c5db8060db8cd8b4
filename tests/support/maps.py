"""A saved map without the work of drawing one."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from feast_embeddings.artifact import Artifact, Entity
from feast_embeddings.artifact.saved_map import Colouring, SavedMap, write_map

__all__ = ["save_any_map"]


def save_any_map(artifact: Artifact, entity: Entity, labels: list[str] | None = None) -> SavedMap:
    """Save one with every user or item at a random place, in two groups, and in one; titles have the ids in them."""
    ids: pa.Array = artifact.table(entity)[f"{entity}_id"].combine_chunks()
    rng = np.random.default_rng(0)
    drawn = SavedMap(
        ids=ids,
        places=rng.normal(0, 20, (len(ids), 2)),
        titles=[f"Title of {id}" for id in ids.to_pylist()],
        colourings=[
            Colouring("parity", ["even", "odd"], np.arange(len(ids), dtype=np.uint8) % 2),
            Colouring("segment", ["all", *(labels or [])], np.zeros(len(ids), np.uint8), of_segments=True),
        ],
        labels=[(float(place), 1.0, name) for place, name in enumerate(labels or [])],
    )
    write_map(artifact.path, entity, drawn)
    return drawn
