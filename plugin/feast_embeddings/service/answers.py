"""The answers of the service: their schemas for the documentation, and fast writers."""

from __future__ import annotations

import io
from binascii import b2a_base64
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import Annotated, Any, Literal

import numpy as np
import orjson
import pyarrow as pa
from pydantic import BaseModel, Field
from pydantic_core import to_jsonable_python
from starlette.responses import Response

from feast_embeddings.artifact import Entity
from feast_embeddings.query.answers import Embeddings, Found, Neighbours, NeighboursBatch, Page

__all__ = [
    "ARROW",
    "NUMPY",
    "BatchAnswer",
    "EmbeddingAnswer",
    "ModelsAnswer",
    "NeighboursAnswer",
    "PageAnswer",
    "PublishAnswer",
    "RankingAnswer",
    "SearchAnswer",
    "VisibilityAnswer",
    "batch_response",
    "embedding_file",
    "embedding_json",
    "json_response",
    "neighbours_response",
    "page_response",
    "search_response",
]

ARROW, NUMPY = "application/vnd.apache.arrow.stream", "application/x-npy"

Attributes = dict[str, Any]
Vector = list[float] | str


class EmbeddingRow(BaseModel):
    id: str | int
    vector: Vector | None = Field(description="Bit for bit as trained; null for an id that has no embedding.")
    version: str
    as_of: str
    event_timestamp: str | None


class EmbeddingAnswer(BaseModel):
    """Embeddings in the order of the request."""

    model: str
    version: str
    space: str = Field(description="Vectors of different spaces cannot be compared.")
    as_of: str = Field(description="Time of the newest interaction that the version was trained on.")
    dim: int
    embeddings: list[EmbeddingRow]
    missing: list[str | int] = Field(description="The ids that have no embedding.")


class Result(BaseModel):
    id: str | int
    score: float = Field(description="Higher is better.")
    metadata: Attributes | None = Field(default=None, description="The attributes, if requested.")


_Fallback = Annotated[
    Literal["popular", "recent"] | None,
    Field(description="How someone without an embedding was answered, if a fallback was requested; else null."),
]


class NeighboursAnswer(BaseModel):
    """Results, best first."""

    model: str
    version: str
    space: str = Field(description="The version's vector space: a `vector` of a request has to be of it.")
    results: Sequence[Result] = Field(description="`limit` results, or fewer if fewer match.")
    missing: list[str | int] = Field(description="Ids of the request that have no embedding, users or items.")
    fallback: _Fallback


class ReasonRow(BaseModel):
    id: str | int = Field(description="An item of the user or visitor.")
    adds: float = Field(description="To the score of the result, in units of the score.")


class RankedItem(Result):
    because: list[ReasonRow] | None = Field(
        default=None, description="If requested, at most 3 items that add most to the score, the most first."
    )


class RankingAnswer(NeighboursAnswer):
    results: list[RankedItem] = Field(description="`limit` results, or fewer if fewer match.")


class Places(BaseModel):
    """The place from 1 in each ranking that has the item."""

    words: int | None = Field(default=None, description="By the words of the text.")
    content: int | None = Field(default=None, description="By what the text says as content.")
    user: int | None = Field(default=None, description="By the score for the user, among the items of the others.")


class FoundItem(Result):
    places: Places


class SearchAnswer(BaseModel):
    """Items, best first; a score is the sum of 1 / (60 + place) over the places."""

    model: str
    version: str
    results: list[FoundItem] = Field(description="`limit` results, or fewer if fewer match.")
    missing: list[str | int] = Field(description="The user, if it has no embedding; the answer is then without it.")


class BatchResult(BaseModel):
    id: str | int = Field(description="As in the request; for a visitor, the position, from 0.")
    results: list[Result] | None = Field(description="null for an id that has no embedding, without a fallback.")
    fallback: _Fallback


class BatchAnswer(BaseModel):
    """Results in the order of the request, all of one version."""

    model: str
    version: str
    answers: list[BatchResult]
    missing: list[str | int]


class PageRow(BaseModel):
    id: str | int
    hidden: bool = Field(description="Whether the other answers leave it out.")
    metadata: Attributes | None = None
    vector: list[float] | None = None


class PageAnswer(BaseModel):
    """One page of a listing; all pages are of one version."""

    model: str
    version: str
    rows: list[PageRow]
    next_cursor: str | None = Field(description="Cursor of the next page; null after the last.")


class ModelRow(BaseModel):
    name: str
    live_version: str | None
    as_of: str | None
    space: str | None


class ModelsAnswer(BaseModel):
    models: list[ModelRow]


class PublishAnswer(BaseModel):
    model: str
    version: str
    changed: bool = Field(description="False if it was live already.")


class AddedAnswer(BaseModel):
    model: str
    added: int
    duplicates: int = Field(description="Events whose id was there already.")
    without_weight: int = Field(description="Events of a type that weighs 0, which are not added.")


class ForgottenAnswer(BaseModel):
    model: str
    versions: list[str] = Field(description="Versions on disk that changed.")
    collections: list[str] = Field(description="Collections in Qdrant, live or kept, that changed.")
    points: int = Field(description="Points removed from them.")
    lists: int = Field(description="Lists of seen items that changed in them.")
    events: int = Field(description="Recorded interactions removed.")


class AttributesSetAnswer(BaseModel):
    model: str
    version: str = Field(description="The live version, which has the values now.")
    users: int = Field(description="Users that had attributes set.")
    items: int = Field(description="Items that had attributes set.")
    n_unknown: int = Field(description="Ids that the live version does not have.")
    unknown: list[str | int] = Field(description="The first of them, at most 10.")


class VisibilityAnswer(BaseModel):
    model: str
    users: int = Field(description="Users that were not so before.")
    items: int = Field(description="Items that were not so before.")
    n_unknown: int = Field(description="Ids that the live version does not have; a later one may.")
    unknown: list[str | int] = Field(description="The first of them, at most 10.")


class NewItemsAnswer(BaseModel):
    model: str
    version: str
    added: int


def json_response(value: Any) -> Response:
    """Return a JSON response; float32 as the shortest numbers that parse to the same float32, NaN as null."""
    body = orjson.dumps(value, to_jsonable_python, orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_UTC_Z)
    return Response(body, media_type="application/json")


def neighbours_response(model: str, found: Neighbours, *, metadata: bool) -> Response:
    """A `NeighboursAnswer`, or a `RankingAnswer` if the results are explained."""
    results = _results(found, metadata)
    if found.because is not None:
        for row, reasons in zip(results, found.because, strict=True):
            row["because"] = [reason._asdict() for reason in reasons]
    return json_response(
        {
            "model": model,
            "version": found.version,
            "space": found.space,
            "results": results,
            "missing": found.missing,
            "fallback": found.fallback,
        }
    )


def search_response(model: str, found: Found, *, metadata: bool) -> Response:
    """A `SearchAnswer`."""
    results = [{**row, "places": own} for row, own in zip(_results(found, metadata), found.places, strict=True)]
    return json_response({"model": model, "version": found.version, "results": results, "missing": found.missing})


def batch_response(model: str, batch: NeighboursBatch, *, metadata: bool) -> Response:
    """A `BatchAnswer`."""
    answers = [
        {"id": id, "results": None, "fallback": None}
        if found is None
        else {"id": id, "results": _results(found, metadata), "fallback": found.fallback}
        for id, found in zip(batch.ids, batch.answers, strict=True)
    ]
    return json_response({"model": model, "version": batch.version, "answers": answers, "missing": batch.missing})


def _results(found: Neighbours, metadata: bool) -> list[dict[str, Any]]:
    scores = found.scores.tolist()
    if not metadata:
        return [{"id": id, "score": score} for id, score in zip(found.ids, scores, strict=True)]
    return [
        {"id": id, "score": score, "metadata": attributes}
        for id, score, attributes in zip(found.ids, scores, found.attributes, strict=True)
    ]


def page_response(model: str, page: Page, *, metadata: bool) -> Response:
    """A `PageAnswer`."""
    rows: list[dict[str, Any]] = [
        {"id": id, "hidden": hidden} for id, hidden in zip(page.ids, page.hidden, strict=True)
    ]
    if metadata:
        for row, attributes in zip(rows, page.attributes, strict=True):
            row["metadata"] = attributes
    if page.vectors is not None:
        for row, vector in zip(rows, page.vectors, strict=True):
            row["vector"] = vector
    return json_response({"model": model, "version": page.version, "rows": rows, "next_cursor": page.cursor})


def embedding_json(model: str, found: Embeddings, encoding: Literal["float", "base64"]) -> Response:
    """An `EmbeddingAnswer`."""
    vectors: Iterable[Any] = found.vectors
    if encoding == "base64":
        vectors = [b2a_base64(row, newline=False).decode() for row in found.vectors.astype("<f4", copy=False)]
    rows = [
        {
            "id": id,
            "vector": None if time is None else vector,
            "version": found.version,
            "as_of": found.as_of,
            "event_timestamp": time,
        }
        for id, vector, time in zip(found.ids, vectors, found.event_timestamps, strict=True)
    ]
    answer = {
        "model": model,
        "version": found.version,
        "space": found.space,
        "as_of": found.as_of,
        "dim": found.vectors.shape[1],
        "embeddings": rows,
        "missing": found.missing,
    }
    return Response(orjson.dumps(answer, None, orjson.OPT_SERIALIZE_NUMPY), media_type="application/json")


def embedding_file(model: str, entity: Entity, found: Embeddings, encoding: Literal["arrow", "numpy"]) -> Response:
    """Return embeddings as an Arrow stream or a NumPy file."""
    if encoding == "arrow":
        return Response(_arrow(model, entity, found), media_type=ARROW)
    return Response(_npy(found), media_type=NUMPY, headers=_headers(found))


def _arrow(model: str, entity: Entity, found: Embeddings) -> bytes:
    dim = found.vectors.shape[1]
    flat = pa.array(found.vectors.reshape(-1), pa.float32())
    vectors = pa.FixedSizeListArray.from_arrays(flat, dim, mask=pa.array(~found.found))
    table = pa.table(
        {
            f"{entity}_id": pa.array(found.ids),
            "embedding": vectors,
            "event_timestamp": pa.array(found.event_timestamps, pa.timestamp("us", tz="UTC")),
        }
    )
    about = {"model": model, "version": found.version, "space": found.space, "as_of": found.as_of}
    table = table.replace_schema_metadata(about)
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()


def _npy(found: Embeddings) -> bytes:
    little = found.vectors.astype("<f4", order="C", copy=False)
    return _npy_header(little.shape) + little.tobytes()


@lru_cache
def _npy_header(shape: tuple[int, ...]) -> bytes:
    """Return the header of a NumPy file; NumPy takes longer to write it than the numbers."""
    sink = io.BytesIO()
    np.lib.format.write_array_header_1_0(sink, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return sink.getvalue()


def _headers(found: Embeddings) -> dict[str, str]:
    return {
        "Embedding-Version": found.version,
        "Embedding-Space": found.space,
        "Embedding-As-Of": found.as_of,
        "Embedding-Missing": str(len(found.missing)),
    }
