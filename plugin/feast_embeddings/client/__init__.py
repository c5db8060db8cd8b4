"""A client of the service: `EmbeddingClient`, and `AsyncEmbeddingClient` with the same methods to be awaited.

It needs httpx and NumPy only, not Feast: importing it is quick, and its machine needs no repo.
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
