"""Checks of a version: of its tables before anything is loaded, and of what was loaded before it goes live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feast_embeddings.artifact import Artifact, Entity
from feast_embeddings.artifact.brute_force import Matrix, kth_best_scores, matrix_blocks
from feast_embeddings.codec.columns import encode_table
from feast_embeddings.engines.engine import DEFAULT_EF, TIMESTAMP_KEY, Distance, Engine, PointId
from feast_embeddings.errors import ArtifactError, EngineError
from feast_embeddings.publish.target import Target

__all__ = ["Check", "check_vectors", "rank_queries", "verify_loaded"]

_SAMPLE = 1000
_QUERIES = 128
_K = 10
MIN_RECALL = 0.99
# Fewer candidates than by default are enough where they are nowhere near that bound: of 1,280 neighbours, 3 are missing
# by chance in one of 500 samples of a recall of 0.99.
_SURE_RECALL = 0.997
_FEW = (64, 128, 256)
# Of smaller ones searches are quick anyway, and may be scans now, and of a graph once they have grown.
_LARGE_BYTES = 20 * 2**20
# A search that keeps more candidates than this takes so long that a better graph is the better answer.
_MAX_EF = 4096
# Far beyond the spread that popularity gives to norms; one vector of such a length would lead every ranking.
_MAX_NORM_RATIO = 1000.0


@dataclass(frozen=True)
class Check:
    """What a verification found.

    Attributes:
        recall: per searched vector, the share of the 10 nearest (exact) that a search finds, over the sample.
        search_ef: fewest candidates that searches must keep for it; 0: the settings' are enough.
        enough_ef: candidates that are more than enough for it where the settings say nothing; 0: as by default.
    """

    recall: dict[str, float]
    search_ef: int
    enough_ef: int


def check_vectors(artifact: Artifact, entity: Entity, table: pa.Table) -> None:
    """Check that the vectors can be served: finite, most of them not zero, none out of all proportion.

    Raises:
        ArtifactError: they cannot.
    """
    bias = table["bias"].to_numpy() if "bias" in table.column_names else np.zeros(1, np.float32)
    where = f"{artifact.path}: the {entity} vectors"
    if missing := table["embedding"].null_count:
        raise ArtifactError(f"{where} are missing in {missing} rows; train again")
    norms = []
    for block in matrix_blocks(table):
        with np.errstate(over="ignore", invalid="ignore"):
            norms.append(np.sqrt(np.einsum("ij,ij->i", block, block)))
    lengths = np.concatenate(norms) if norms else np.empty(0, np.float32)
    if bad := int((~np.isfinite(lengths)).sum() + (~np.isfinite(bias)).sum()):
        raise ArtifactError(f"{where} or biases hold NaN, infinity or too large numbers in {bad} rows; train again")
    if not len(lengths):
        raise ArtifactError(f"{where} are none; train again")
    median, longest = float(np.median(lengths)), float(lengths.max())
    if median == 0 or longest > _MAX_NORM_RATIO * median:
        raise ArtifactError(
            f"{where} have the median length {median:.3g} and the greatest {longest:.3g}; expected are a median above "
            f"0 and at most {_MAX_NORM_RATIO:g} times that: training has not converged; train again"
        )


def rank_queries(users: pa.Table) -> Matrix:
    """Some users' vectors as they ask for items: with a one against the bias, shape (n, dim + 1)."""
    rows = np.random.default_rng(0).permutation(users.num_rows)[:_QUERIES]
    vectors = np.concatenate(list(matrix_blocks(users.take(rows))))
    return np.column_stack([vectors, np.ones(len(vectors), dtype=np.float32)])


def verify_loaded(engine: Engine, target: Target, queries: Mapping[str, Matrix], first_ef: int | None) -> Check:
    """Compare a new collection, which nobody writes to yet, with the table that was sent.

    Args:
        queries: per searched vector that is not asked with the rows' own vectors, vectors to ask with, shape (n, dim).
        first_ef: what the settings say, if they do.

    Raises:
        EngineError: it does not hold, or does not find, what was sent.
    """
    count, expected = engine.count(target.collection), target.table.num_rows
    if count != expected:
        raise EngineError(f"{target.collection} holds {count} points after loading {expected}; the live version stays")
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(expected)[:_SAMPLE])
    _compare(engine, target, rows)
    vectors = engine.describe(target.collection).vectors
    searches = []
    for field in target.side.codec.fields.values():
        for name in dict.fromkeys([field.name, field.search_name]):
            if vectors[name].indexed and vectors[name].distance in ("Dot", "Cosine"):
                biased = field.bias is not None and name == field.name
                bias = target.table[field.bias].to_numpy() if biased else None
                asked = rng.permutation(rows)[:_QUERIES]
                searches.append(_search(target, name, vectors[name].distance, bias, asked, queries.get(name)))
    large = all(4 * vector.size * expected >= _LARGE_BYTES for vector in vectors.values())
    few = _FEW if large and first_ef is None else ()
    enough = next((ef for ef in few if _is_enough(engine, target, searches, ef)), 0)
    first_ef = first_ef or DEFAULT_EF
    ef, recall = 0, {}
    for search in searches:
        while True:
            recall[search.name] = _recall(engine, target.collection, search, ef, enough)
            if recall[search.name] >= MIN_RECALL:
                break
            ef = 2 * max(ef, first_ef)
            if ef > max(_MAX_EF, first_ef):
                raise EngineError(
                    f"{target.collection}: searches find {recall[search.name]:.3f} of the {_K} nearest by "
                    f"{search.name!r}, also with {ef // 2} candidates; expected at least {MIN_RECALL}. Raise hnsw_m "
                    "or hnsw_ef_construct in feature_store.yaml and publish again; the live version stays"
                )
    return Check(recall, ef, enough)


def _is_enough(engine: Engine, target: Target, searches: list[_Search], ef: int) -> bool:
    return all(_recall(engine, target.collection, search, 0, ef) >= _SURE_RECALL for search in searches)


def _compare(engine: Engine, target: Target, rows: npt.NDArray[np.intp]) -> None:
    """Read rows back, and compare their vectors bit for bit."""
    names = list(target.side.codec.fields)
    for sample in encode_table(target.side.codec, target.table.take(rows)):
        stored = engine.retrieve(target.collection, sample.ids, vectors=names)
        for number, point in enumerate(stored):
            if (
                point is None
                or point.payload[TIMESTAMP_KEY] != sample.timestamps[number]
                or any(point.vectors[name].tobytes() != sample.vectors[name][0][number].tobytes() for name in names)
            ):
                raise EngineError(
                    f"{target.collection} does not give back point {sample.ids[number]} as written; "
                    "the live version stays"
                )


@dataclass(frozen=True)
class _Search:
    """Questions to one named vector, and the score that an answer needs to be one of the k nearest."""

    name: str
    queries: Matrix
    skip: list[PointId | None]
    """Per question the point that is not an answer to it."""
    k: int
    least: Matrix


def _search(
    target: Target,
    name: str,
    distance: Distance,
    bias: npt.NDArray[np.float32] | None,
    rows: npt.NDArray[np.intp],
    queries: Matrix | None,
) -> _Search:
    cosine, skip = distance == "Cosine", None
    ids: list[PointId | None]
    if queries is not None:
        ids = [None] * len(queries)
    else:
        # As similar-items and similar-users do: near the vector of a row, but not that row.
        asked, skip = target.table.take(rows), rows
        queries = np.concatenate(list(matrix_blocks(asked)))
        if bias is not None:
            queries = np.column_stack([queries, bias[rows]])
        ids = [id for batch in encode_table(target.side.codec, asked) for id in batch.ids]
    k = min(_K, target.table.num_rows - (skip is not None))
    least = kth_best_scores(target.table, queries, k, bias, cosine=cosine, skip=skip)
    return _Search(name, queries, ids, k, least)


def _recall(engine: Engine, collection: str, search: _Search, ef: int, enough: int) -> float:
    if not search.k:
        return 1.0
    found = 0
    for query, skipped, least in zip(search.queries, search.skip, search.least, strict=True):
        limit = search.k + (skipped is not None)
        hits = engine.query(collection, search.name, query, limit=limit, search_ef=ef, enough_ef=enough)
        scores = [hit.score for hit in hits if hit.id != skipped][: search.k]
        # Two that are as near are as good; Qdrant adds up in another order than numpy.
        found += sum(score >= least - 1e-5 * abs(least) for score in scores)
    return float(found / (search.k * len(search.queries)))
