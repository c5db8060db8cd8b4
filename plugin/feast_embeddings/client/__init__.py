"""A client of the service: `EmbeddingClient`, and `AsyncEmbeddingClient` with the same methods as coroutines.

It needs only httpx and NumPy, not Feast: the import is fast, and no repo is needed.
"""

from __future__ import annotations

from feast_embeddings.client.answers import Embeddings, Neighbours, NeighboursBatch, Rows
from feast_embeddings.client.errors import EmbeddingServiceError
from feast_embeddings.client.http import AsyncEmbeddingClient, EmbeddingClient

__all__ = [
    "AsyncEmbeddingClient",
    "EmbeddingClient",
    "EmbeddingServiceError",
    "Embeddings",
    "Neighbours",
    "NeighboursBatch",
    "Rows",
]
