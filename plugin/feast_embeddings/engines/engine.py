"""The interface of the rest of the package to Qdrant, whichever engine holds the vectors.

Two engines implement `Engine`: `EmbeddedEngine` runs Qdrant's own code in this process, and `ServerEngine` talks to a
Qdrant node or cluster. Names here are Qdrant's: collection, alias, point, payload, named vector, filter. One
test suite runs on both.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer
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
# "lookup" is for integers that are only compared for equality. "unlinked" is "integer", but the graphs get no extra
# edges for its ranges.
IndexType = Literal["keyword", "integer", "lookup", "unlinked", "float", "bool"]

# Qdrant's default of 100 finds 93 % of the ten nearest of 48,000 trained item vectors, 512 finds 99.7 %
# (tests/benchmarks/read.py).
DEFAULT_EF = 512
# A filter that keeps more than this share leaves the graph connected enough (tests/benchmarks/filtered.py).
ACORN_SELECTIVITY = 0.6


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Hnsw:
    """How the graph of a vector is built and searched (Malkov and Yashunin, arXiv 1603.09320).

    Attributes:
        m: edges per node; 0 builds no graph.
        ef_construct: candidates for the edges of a new node.
        search_ef: fewest candidates that a search keeps; None: `DEFAULT_EF`, or the number known to be enough.
    """

    m: int = 16
    ef_construct: int = 100
    search_ef: int | None = None

    def candidates(self, search_ef: int, enough_ef: int) -> int:
        """Return how many candidates a search keeps; the arguments are the same as for `Engine.query`."""
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
    """Everything needed to create a collection, and to describe the content of an existing one."""

    alias: str
    """The name by which queries find it once it is live."""
    view: str = ""
    """The feature view whose rows it holds; an alias is ambiguous: version 2 of ``a`` or the view ``a_v2``."""
    vectors: dict[str, VectorSpec]
    payload_indexes: dict[str, IndexType]
    version: str = ""
    """Version of the model whose vectors these are; empty for an ordinary feature view."""
    space: str = ""
    """Vector space of that version; vectors of different spaces must never meet in one query."""
    as_of: str = ""
    """Cut-off of the training data, ISO 8601 UTC."""
    fingerprint: str = ""
    """Checksum of the loaded table; if it is equal, loading a half-loaded collection can be resumed."""
    verified: bool = True
    """False from the start of a publish until it has verified the collection."""
    search_ef: int = 0
    """Fewest candidates that a search on it keeps, found by that verification; more if the settings say so."""
    enough_ef: int = 0
    """Candidates that are enough to find the ten nearest of all its points, found by that verification; 0: unknown."""
    datatype: Literal["float32", "float16"] = "float32"
    """Of the stored vectors, by the engine's settings; see `as_stored`."""

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        if self.datatype == "float32":
            # Older releases refuse a spec that has it.
            fields.pop("datatype", None)
        return fields

    def same_content(self, other: CollectionSpec) -> bool:
        """Return whether the other has the same rows in the same form, verified or not."""
        own = ("verified", "search_ef", "enough_ef", "datatype")
        return self == other.model_copy(update={name: getattr(self, name) for name in own})


class Engine(Protocol):
    """Collections of points under atomic aliases. Every method raises `EngineError` if Qdrant fails.

    Stability: provisional, see docs/compatibility.md.
    """

    def aliases(self) -> dict[str, str]:
        """Return alias -> collection, as one consistent snapshot."""
        ...

    def switch(self, aliases: Mapping[str, str | None]) -> None:
        """Point all these aliases at their collections in one atomic step; None removes an alias."""
        ...

    def collections(self, alias: str) -> dict[str, CollectionSpec]:
        """Return all collections made for an alias, live or not, with their specs."""
        ...

    def describe(self, collection: str) -> CollectionSpec:
        """Return the spec of a collection."""
        ...

    def create(
        self, collection: str, spec: CollectionSpec, batches: Iterable[PointBatch], *, wait_for_indexes: bool = True
    ) -> None:
        """Create a collection, fill it and build its indexes. A half-built one of the same name is replaced.

        A server resumes a half-built one with the same fingerprint: points that it has are not sent again.

        Args:
            wait_for_indexes: False returns while searches and filters may still be exact scans, which are slower but
                never wrong: the graph is built later or never, a payload index by the first filter that needs it.
        """
        ...

    def free_bytes(self) -> int | None:
        """Return the free space where collections are stored; None if unknown."""
        ...

    def wait_until_indexed(self, collection: str) -> None:
        """Wait until the indexes of a collection are built, if `create` or another process did not wait for them."""
        ...

    def annotate(self, collection: str, spec: CollectionSpec) -> None:
        """Replace the spec of a collection; its vectors and indexes must be the same."""
        ...

    def add_indexes(self, collection: str, indexes: Mapping[str, IndexType]) -> None:
        """Add payload indexes to a collection and its spec; the embedded engine builds one for the first filter."""
        ...

    def upsert(self, collection: str, batches: Iterable[PointBatch], *, wait_for_indexes: bool = True) -> None:
        """Write points into an existing collection; a stored point with a newer event timestamp stays.

        The embedded engine writes all batches or none. A server keeps the batches before a failed one.

        Args:
            wait_for_indexes: as for `create`.
        """
        ...

    def set_payload(self, collection: str, payloads: Mapping[PointId, Mapping[str, Any]]) -> None:
        """Set keys in the payload of points; None removes a key. Vectors and other keys stay as they are.

        Ids that are not there are left out. The embedded engine writes all or nothing.
        """
        ...

    def forget(self, collection: str, ids: Collection[PointId], payloads: Mapping[PointId, Mapping[str, Any]]) -> None:
        """Delete points, and set keys in the payload of others, in the files too; None removes a key.

        Ids that are not there are left out. The embedded engine writes the collection again, so that no file has the
        old values. A server deletes them from its disk when it optimizes the collection.
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
        """Return points by id, in the order of `ids`; None for a missing one.

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
        """Find the nearest points to a vector, nearest first.

        A filter removes points from the graph. If it removes many, the search looks behind them (ACORN: Patel et al.,
        SIGMOD 2024, arXiv:2403.04871), which finds more, but takes longer.

        Args:
            payload: the keys to return with each; None returns all.
            exact: scan every point that passes the filter. A search of the graph may find fewer than `limit`.
            search_ef: fewest candidates to keep, e.g. from the collection's spec; more if the settings say so.
            enough_ef: candidates to keep if the settings give no number; 0: by `search_ef`.
        """
        ...

    def highest(
        self,
        collection: str,
        key: str,
        *,
        limit: int,
        filter: models.Filter | None = None,
        payload: Sequence[str] | None = None,
    ) -> list[StoredPoint]:
        """Return the points with the highest whole number under a payload key, the highest first.

        Points without one are left out.

        Args:
            key: one of the spec's payload indexes.
            payload: the keys to return with each, at least `key`; None returns all.
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
        """Return at most `limit` points that pass the filter, ordered by id, and where the next page starts.

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
        """Yield every point that passes the filter, in pages, at least one, with only these named vectors.

        The embedded engine yields them as of the call, whatever is written or dropped meanwhile.

        Args:
            payload: the keys to return with each; None returns all.
        """
        ...

    def count(self, collection: str) -> int:
        """Return the exact number of points."""
        ...

    def drop(self, collections: Iterable[str]) -> None:
        """Delete collections; missing ones are ignored, and those with an alias are kept.

        Always deletes the `leftovers` too.
        """
        ...

    def leftovers(self) -> list[str]:
        """Return what killed writers left, apart from collections; a server has none."""
        ...

    def close(self) -> None:
        """Release files or connections. Safe to repeat."""
        ...


# For fewer results, the memory that Qdrant reserves is small.
_FEW = 10_000


def no_more_than_there_are(n: int, engine: Engine, collection: str) -> int:
    """Limit the number of results to the points present: Qdrant reserves memory for all requested ones."""
    return n if n <= _FEW else max(1, min(n, engine.count(collection)))
