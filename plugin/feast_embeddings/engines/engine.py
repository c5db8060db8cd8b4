"""What the rest of the package asks of Qdrant, whichever engine holds the vectors.

Two engines implement `Engine`: `EmbeddedEngine` runs Qdrant's own code in this process, and `ServerEngine` talks to a
Qdrant node or cluster. Names on this side are Qdrant's: collection, alias, point, payload, named vector, filter. One
test suite runs over both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict
from qdrant_client import models

from feast_embeddings.engines.points import (
    TIMESTAMP_KEY,
    Page,
    PointBatch,
    PointId,
    ScoredPoint,
    StoredPoint,
    all_pages,
    all_points,
    plain_id,
    scored_points,
    stored_points,
)

__all__ = [
    "ACORN_SELECTIVITY",
    "DEFAULT_EF",
    "TIMESTAMP_KEY",
    "CollectionSpec",
    "Distance",
    "Engine",
    "Hnsw",
    "IndexType",
    "Page",
    "PointBatch",
    "PointId",
    "ScoredPoint",
    "StoredPoint",
    "VectorSpec",
    "all_pages",
    "all_points",
    "no_more_than_there_are",
    "plain_id",
    "scored_points",
    "stored_points",
]

Distance = Literal["Dot", "Cosine", "Euclid", "Manhattan"]
# "lookup" is of integers that are compared for equality only. "unlinked" is "integer", but the graphs get no edges of
# their own for its ranges.
IndexType = Literal["keyword", "integer", "lookup", "unlinked", "float", "bool"]

# Qdrant's default of 100 finds 93 % of the ten nearest of 48,000 trained item vectors, 512 finds 99.7 %
# (tests/benchmarks/read.py).
DEFAULT_EF = 512
# A filter that takes out less than the rest leaves a graph whole enough (tests/benchmarks/filtered.py).
ACORN_SELECTIVITY = 0.6


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Hnsw:
    """How the graph of a vector is built and searched (Malkov and Yashunin, arXiv 1603.09320).

    Attributes:
        m: edges of a node.
        ef_construct: candidates for the edges of a new node.
        search_ef: fewest candidates that a search keeps; None: `DEFAULT_EF`, or what is enough for a collection.
    """

    m: int = 16
    ef_construct: int = 100
    search_ef: int | None = None

    def candidates(self, search_ef: int, enough_ef: int) -> int:
        """How many a search keeps; the arguments are those of `Engine.query`."""
        if enough_ef and self.search_ef is None:
            return enough_ef
        return max(search_ef, DEFAULT_EF if self.search_ef is None else self.search_ef)


class VectorSpec(_Frozen):
    """One named vector of a collection."""

    size: int
    distance: Distance
    indexed: bool
    """Whether an HNSW graph is built; without one, searches on this vector are exact scans."""


class CollectionSpec(_Frozen):
    """All that must be known to create a collection, and to say what an existing one holds."""

    alias: str
    """The name under which queries find it once it is live."""
    view: str = ""
    """The feature view whose rows it holds; an alias alone does not say: version 2 of ``a`` or the view ``a_v2``."""
    vectors: dict[str, VectorSpec]
    payload_indexes: dict[str, IndexType]
    version: str = ""
    """Version of the model whose vectors these are; empty for an ordinary feature view."""
    space: str = ""
    """Vector space of that version; vectors of different spaces must never meet in one query."""
    as_of: str = ""
    """Cut-off of the training data, ISO 8601 UTC."""
    fingerprint: str = ""
    """Checksum of the table that is loaded; with an equal one, a half-loaded collection can be continued."""
    verified: bool = True
    """False from the start of a publish until it has checked what it loaded."""
    search_ef: int = 0
    """Fewest candidates that a search on it keeps, as found by that check; more if the settings say so."""
    enough_ef: int = 0
    """Candidates that are enough to find the ten nearest of all its points, as found by that check; 0: not known."""

    def same_content(self, other: CollectionSpec) -> bool:
        """Whether the other is of the same rows in the same form, verified or not."""
        checked = {"verified": self.verified, "search_ef": self.search_ef, "enough_ef": self.enough_ef}
        return self == other.model_copy(update=checked)


class Engine(Protocol):
    """Collections of points under atomic aliases. Every method raises `EngineError` when Qdrant fails."""

    def aliases(self) -> dict[str, str]:
        """Alias -> collection, as one consistent snapshot."""
        ...

    def switch(self, aliases: Mapping[str, str | None]) -> None:
        """Point all these aliases at their collections in one atomic step; None removes an alias."""
        ...

    def collections(self, alias: str) -> dict[str, CollectionSpec]:
        """All collections made for an alias, live or not, with what they hold."""
        ...

    def describe(self, collection: str) -> CollectionSpec:
        """What a collection holds."""
        ...

    def create(
        self, collection: str, spec: CollectionSpec, batches: Iterable[PointBatch], *, wait_for_indexes: bool = True
    ) -> None:
        """Create a collection, fill it and build its indexes. A half-built one of the same name is replaced.

        A server continues a half-built one of the same fingerprint: points that are there are not sent again.

        Args:
            wait_for_indexes: False returns while searches and filters may still be exact scans, which are slower but
                never wrong: the graph comes later or not at all, a payload index with the first filter that needs it.
        """
        ...

    def free_bytes(self) -> int | None:
        """Room for more, where collections are stored; None where that cannot be known."""
        ...

    def wait_until_indexed(self, collection: str) -> None:
        """Return when the indexes of a collection are built; one that `create` has left early, or another process."""
        ...

    def annotate(self, collection: str, spec: CollectionSpec) -> None:
        """Replace what `describe` says of a collection; its vectors and indexes must be the same."""
        ...

    def upsert(self, collection: str, batches: Iterable[PointBatch], *, wait_for_indexes: bool = True) -> None:
        """Write points into an existing collection; a stored point with a newer event timestamp stays.

        The embedded engine writes all batches or none. A server keeps the batches before one that fails.

        Args:
            wait_for_indexes: as for `create`.
        """
        ...

    def retrieve(
        self,
        collection: str,
        ids: Sequence[PointId],
        *,
        vectors: Sequence[str],
        payload: Sequence[str] | None = None,
    ) -> list[StoredPoint | None]:
        """Points by id, in the order of `ids`; None where there is none.

        Args:
            payload: the keys to return with each; None returns all.
        """
        ...

    def query(
        self,
        collection: str,
        vector_name: str,
        vector: npt.NDArray[np.float32],
        *,
        limit: int,
        filter: models.Filter | None = None,
        payload: Sequence[str] | None = None,
        exact: bool = False,
        search_ef: int = 0,
        enough_ef: int = 0,
    ) -> list[ScoredPoint]:
        """The nearest points to a vector, nearest first.

        A filter takes points out of the graph, so a search with one looks behind those that it takes out where many
        are (ACORN: Patel et al., SIGMOD 2024, arXiv:2403.04871). That finds more, and takes longer.

        Args:
            payload: the keys to return with each; None returns all.
            exact: look at every point that passes the filter. A search of the graph may find fewer than `limit`.
            search_ef: fewest candidates to keep, e.g. what the collection's spec says; more if the settings say so.
            enough_ef: candidates to keep if the settings say nothing; 0: by `search_ef`.
        """
        ...

    def page(
        self,
        collection: str,
        *,
        limit: int,
        start: PointId | None,
        payload: Sequence[str] | None,
        vectors: Sequence[str],
        filter: models.Filter | None = None,
    ) -> Page:
        """At most `limit` points that pass the filter, in the order of their ids, and where the next page starts.

        Args:
            start: the first point; None starts at the beginning.
            payload: the keys to return with each; None returns all.
        """
        ...

    def scroll(
        self,
        collection: str,
        *,
        payload: Sequence[str] | None,
        vectors: Sequence[str],
        filter: models.Filter | None = None,
    ) -> Iterator[list[StoredPoint]]:
        """Every point that passes the filter, in pages, at least one, with only these named vectors.

        The embedded engine gives them as they were at the call, whatever is written or dropped meanwhile.

        Args:
            payload: the keys to return with each; None returns all.
        """
        ...

    def count(self, collection: str) -> int:
        """Exact number of points."""
        ...

    def drop(self, collections: Iterable[str]) -> None:
        """Delete collections; those that do not exist are ignored, and those that an alias names are left.

        Clears the `leftovers`, too, whichever collections are given.
        """
        ...

    def leftovers(self) -> list[str]:
        """What writers left that were killed, and no collection: a server has none."""
        ...

    def close(self) -> None:
        """Release files or connections. Safe to repeat."""
        ...


# For fewer results Qdrant reserves room without need, but little.
_FEW = 10_000


def no_more_than_there_are(n: int, engine: Engine, collection: str) -> int:
    """The number of results to ask for: Qdrant reserves room for as many as it is asked for."""
    return n if n <= _FEW else max(1, min(n, engine.count(collection)))
