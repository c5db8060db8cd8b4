"""How much room a collection takes on disk, before it is built."""

from __future__ import annotations

from feast_embeddings.engines.engine import CollectionSpec

__all__ = ["room_for"]

# Vectors twice, as segments are merged into new ones; payload, indexes and graph of each point; and files that exist
# from the start.
_VECTOR_COPIES, _POINT_BYTES, _COLLECTION_BYTES, _INDEX_BYTES = 2, 1024, 64 * 2**20, 16 * 2**20


def room_for(spec: CollectionSpec, points: int) -> int:
    """Return an upper bound of the bytes that a collection takes in the embedded engine's folder while it is built."""
    vector_bytes = _VECTOR_COPIES * 4 * sum(vector.size for vector in spec.vectors.values())
    return _COLLECTION_BYTES + _INDEX_BYTES * len(spec.payload_indexes) + points * (_POINT_BYTES + vector_bytes)
