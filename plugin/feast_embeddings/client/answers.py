"""The results of the client: vectors as NumPy matrices, neighbours as ids and scores."""

from __future__ import annotations

import base64
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from feast_embeddings.arguments import Id

__all__ = ["Embeddings", "Found", "Neighbours", "NeighboursBatch", "Rows"]


@dataclass(frozen=True)
class Embeddings:
    """Vectors by id, aligned with the requested ids.

    Attributes:
        ids: n of them.
        vectors: float32, shape (n, dim), bit for bit as trained; a row of NaN for an id that has no embedding.
        found: boolean, shape (n,).
        event_timestamps: per id, ISO 8601; None where missing.
        missing: the ids that have no embedding.
        version, space, as_of: of the model; vectors of different spaces cannot be compared.
    """

    ids: list[Id]
    vectors: npt.NDArray[np.float32]
    found: npt.NDArray[np.bool_]
    event_timestamps: list[str | None]
    missing: list[Id]
    version: str
    space: str
    as_of: str

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Embeddings:
        """Decode an answer with base64 vectors."""
        rows = answer["embeddings"]
        found = np.array([row["vector"] is not None for row in rows], dtype=np.bool_)
        vectors = np.full((len(rows), answer["dim"]), np.nan, dtype=np.float32)
        flat = b"".join(base64.b64decode(row["vector"]) for row in rows if row["vector"] is not None)
        vectors[found] = np.frombuffer(flat, dtype="<f4").reshape(-1, answer["dim"])
        return cls(
            ids=[row["id"] for row in rows],
            vectors=vectors,
            found=found,
            event_timestamps=[row["event_timestamp"] for row in rows],
            missing=answer["missing"],
            version=answer["version"],
            space=answer["space"],
            as_of=answer["as_of"],
        )


@dataclass(frozen=True)
class Neighbours:
    """Results, best first.

    Attributes:
        ids: at most as many as requested.
        scores: float32, shape (len(ids),), higher is better.
        metadata: per id its attributes, if they were requested.
        missing: ids of the query that have no embedding.
        version, space: the model version that answered, and its vector space; a batch does not say the space.
        fallback: how someone without an embedding was answered, e.g. ``popular``; None for an answer by vector.
        because: with `explain`, per id at most 3 items and what each adds to the score, the most first.
    """

    ids: list[Id]
    scores: npt.NDArray[np.float32]
    metadata: list[dict[str, Any]] | None
    missing: list[Id]
    version: str
    space: str | None = None
    fallback: str | None = None
    because: list[list[tuple[Id, float]]] | None = None

    @classmethod
    def of(cls, answer: dict[str, Any], *, metadata: bool, explain: bool = False) -> Neighbours:
        """Decode an answer."""
        found = cls.of_row(answer, answer["missing"], answer["version"], answer["space"], metadata=metadata)
        if not explain:
            return found
        because = [[(reason["id"], reason["adds"]) for reason in row["because"]] for row in answer["results"]]
        return replace(found, because=because)

    @classmethod
    def of_row(
        cls, row: dict[str, Any], missing: list[Id], version: str, space: str | None = None, *, metadata: bool
    ) -> Neighbours:
        """Decode the fields specific to an answer, or to one of a batch."""
        results = row["results"]
        return cls(
            ids=[row["id"] for row in results],
            scores=np.array([row["score"] for row in results], dtype=np.float32),
            metadata=[row["metadata"] for row in results] if metadata else None,
            missing=missing,
            version=version,
            space=space,
            fallback=row["fallback"],
        )


@dataclass(frozen=True)
class Found:
    """Items for a text, best first.

    Attributes:
        ids: at most as many as requested.
        scores: float32, shape (len(ids),): the sum of 1 / (60 + place) over the places.
        places: per id, its place from 1 in each ranking that has it: ``words``, ``content`` and ``user``.
        metadata: per id its attributes, if they were requested.
        missing: the user, if it has no embedding.
        version: the model version that answered.
    """

    ids: list[Id]
    scores: npt.NDArray[np.float32]
    places: list[dict[str, int]]
    metadata: list[dict[str, Any]] | None
    missing: list[Id]
    version: str

    @classmethod
    def of(cls, answer: dict[str, Any], *, metadata: bool) -> Found:
        """Decode an answer."""
        rows = answer["results"]
        return cls(
            ids=[row["id"] for row in rows],
            scores=np.array([row["score"] for row in rows], dtype=np.float32),
            places=[row["places"] for row in rows],
            metadata=[row["metadata"] for row in rows] if metadata else None,
            missing=answer["missing"],
            version=answer["version"],
        )


@dataclass(frozen=True)
class NeighboursBatch:
    """The answers to many queries, in the order of the request, all of one version; None for an unknown id."""

    ids: list[Id]
    answers: list[Neighbours | None]
    missing: list[Id]
    version: str

    @classmethod
    def of(cls, answer: dict[str, Any], *, metadata: bool) -> NeighboursBatch:
        """Decode a batch answer."""
        version = answer["version"]
        return cls(
            ids=[row["id"] for row in answer["answers"]],
            answers=[
                None if row["results"] is None else Neighbours.of_row(row, [], version, metadata=metadata)
                for row in answer["answers"]
            ],
            missing=answer["missing"],
            version=version,
        )


@dataclass(frozen=True)
class Rows:
    """One page of a listing.

    Attributes:
        ids: at most as many as requested.
        hidden: per id, whether the other answers leave it out.
        metadata: per id its attributes, if they were requested.
        vectors: float32, shape (len(ids), dim), if they were requested.
        version: the model version; the same for all pages of a listing.
        next_cursor: cursor of the next page; None after the last.
    """

    ids: list[Id]
    hidden: list[bool]
    metadata: list[dict[str, Any]] | None
    vectors: npt.NDArray[np.float32] | None
    version: str
    next_cursor: str | None

    @classmethod
    def of(cls, answer: dict[str, Any], *, metadata: bool, vectors: bool) -> Rows:
        """From a page."""
        rows = answer["rows"]
        return cls(
            ids=[row["id"] for row in rows],
            hidden=[row["hidden"] for row in rows],
            metadata=[row["metadata"] for row in rows] if metadata else None,
            vectors=np.array([row["vector"] for row in rows], dtype=np.float32) if vectors else None,
            version=answer["version"],
            next_cursor=answer["next_cursor"],
        )
