"""Check a version: its tables before loading, and the loaded collections before they go live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feast_embeddings.artifact import Artifact, Entity, embedding_matrix
from feast_embeddings.artifact.attributes import CONTENT_EMBEDDING
from feast_embeddings.artifact.brute_force import VECTOR_ROWS, Matrix, as_stored, kth_best_scores, matrix_of, unit
from feast_embeddings.artifact.table_files import TableFiles
from feast_embeddings.codec.columns import encode_table
from feast_embeddings.engines.engine import (
    DEFAULT_EF,
    TIMESTAMP_KEY,
    Distance,
    Engine,
    PointId,
    ScoredPoint,
    StoredPoint,
)
from feast_embeddings.errors import ArtifactError, EngineError, InputError
from feast_embeddings.publish.target import Target

__all__ = ["Check", "check_vectors", "rank_queries", "verify_loaded"]

_SAMPLE = 1000
_QUERIES = 128
_K = 10
MIN_RECALL = 0.99
# Fewer candidates than the default are enough if recall is well above the bound: at a recall of 0.99, a sample of
# 1,280 neighbours misses only 3 by chance once in 500 samples.
_SURE_RECALL = 0.997
_FEW = (64, 128, 256)
# Searches of smaller collections are fast anyway, and may be scans now but use a graph once the collection grows.
_LARGE_BYTES = 20 * 2**20
# A search with more candidates than this is so slow that a better graph is the right fix.
_MAX_EF = 4096
# Qdrant multiplies float16 in float32, except the rest after the last whole lane: there products are rounded, by
# up to this share each.
_LANES, _HALF_ROUNDING = 32, 2.0**-11
_UNIT = 1e-3
# Far beyond the spread of norms that popularity causes; one vector of such a norm would lead every ranking.
_MAX_NORM_RATIO = 1000.0


@dataclass(frozen=True)
class Check:
    """What a verification found.

    Attributes:
        recall: per searched vector, the share of the 10 nearest (exact) that a search finds, over the sample.
        search_ef: fewest candidates that reach the recall; 0: the settings' are enough.
        enough_ef: candidates that are more than enough if the settings give no number; 0: the default.
    """

    recall: dict[str, float]
    search_ef: int
    enough_ef: int


def check_vectors(artifact: Artifact, entity: Entity, rows: TableFiles, datatype: str = "float32") -> None:
    """Check that the vectors can be served: finite, most of them not zero, none far longer than the others.

    Raises:
        ArtifactError: they cannot be served.
        InputError: the datatype of the settings cannot hold them.
    """
    where = f"{artifact.path}: the {entity} vectors"
    columns = [name for name in ("embedding", "bias") if name in rows.schema.names]
    norms, bad, largest = [], 0, 0.0
    for batch in rows.batches(columns, VECTOR_ROWS):
        if missing := batch["embedding"].null_count:
            raise ArtifactError(f"{where} are missing in {missing} rows; train again")
        if "bias" in columns:
            bias = batch["bias"].to_numpy(zero_copy_only=False)
            bad += int((~np.isfinite(bias)).sum())
            largest = max(largest, float(np.nanmax(np.abs(bias), initial=0)))
        block = matrix_of(batch["embedding"])
        largest = max(largest, float(np.nanmax(np.abs(block), initial=0)))
        with np.errstate(over="ignore", invalid="ignore"):
            norms.append(np.sqrt(np.einsum("ij,ij->i", block, block)))
    lengths = np.concatenate(norms) if norms else np.empty(0, np.float32)
    if bad := bad + int((~np.isfinite(lengths)).sum()):
        raise ArtifactError(f"{where} or biases have NaN, infinity or numbers out of range in {bad} rows; train again")
    if CONTENT_EMBEDDING in rows.schema.names:
        _check_content(artifact, entity, rows)
    if datatype == "float16" and largest > np.finfo(np.float16).max:
        raise InputError(
            f"{where} or biases have the number {largest:.3g}; online_store.datatype float16 holds up to "
            f"{np.finfo(np.float16).max:g}; set datatype: float32"
        )
    if not len(lengths):
        raise ArtifactError(f"{where} are empty; train again")
    median, longest = float(np.median(lengths)), float(lengths.max())
    if median == 0 or longest > _MAX_NORM_RATIO * median:
        raise ArtifactError(
            f"{where} have the median norm {median:.3g} and the largest norm {longest:.3g}; expected a median above 0 "
            f"and at most {_MAX_NORM_RATIO:g} times the median: training did not converge; train again"
        )


def _check_content(artifact: Artifact, entity: Entity, rows: TableFiles) -> None:
    """Check that content vectors have the length 1, by which a dot product is a cosine."""
    bad = 0
    for batch in rows.batches([CONTENT_EMBEDDING], VECTOR_ROWS):
        block = embedding_matrix(pa.table({"embedding": batch[CONTENT_EMBEDDING].drop_null()}))
        if len(block) and block.shape[1] != artifact.manifest.dim:
            raise ArtifactError(
                f"{artifact.path}: the {entity} content vectors have {block.shape[1]} numbers, expected "
                f"{artifact.manifest.dim} as the embeddings; train again"
            )
        bad += int((~(np.abs(np.linalg.norm(block, axis=1) - 1) < _UNIT)).sum())
    if bad:
        raise ArtifactError(
            f"{artifact.path}: the {entity} content vectors do not have the length 1 in {bad} rows; divide each by its "
            "length, or make it null; or train again"
        )


def rank_queries(users: TableFiles) -> Matrix:
    """Return a sample of users' vectors as queries for items: with a 1 for the bias, shape (n, dim + 1)."""
    rows = np.random.default_rng(0).permutation(users.num_rows)[:_QUERIES]
    vectors = embedding_matrix(users.take(rows, ["embedding"]))
    return np.column_stack([vectors, np.ones(len(vectors), dtype=np.float32)])


def verify_loaded(
    engine: Engine,
    target: Target,
    queries: Mapping[str, Matrix],
    first_ef: int | None,
    *,
    min_recall: float = MIN_RECALL,
    rescored: bool = True,
) -> Check:
    """Compare a new collection, before anything else writes to it, with the table that was sent.

    Args:
        queries: query vectors, shape (n, dim), per searched vector that is not queried with the rows' own vectors.
        first_ef: the candidates in the settings, if given.
        min_recall: least share of the 10 nearest that searches must find.
        rescored: whether searches return the scores of the stored vectors, not of quantized ones.

    Raises:
        EngineError: it does not hold the rows that were sent, or searches do not find them.
    """
    count, expected = engine.count(target.collection), target.rows.num_rows
    if count != expected:
        raise EngineError(f"{target.collection} holds {count} points after loading {expected}; the live version stays")
    rng = np.random.default_rng(0)
    rows = np.sort(rng.permutation(expected)[:_SAMPLE])
    spec = engine.describe(target.collection)
    _compare(engine, target, rows, spec.datatype)
    vectors = spec.vectors
    searches = []
    for field in target.side.codec.fields.values():
        for name in dict.fromkeys([field.name, field.search_name]):
            if vectors[name].indexed and vectors[name].distance in ("Dot", "Cosine"):
                biased = field.bias is not None and name == field.name
                asked = rng.permutation(rows)[:_QUERIES]
                bias = field.bias if biased else None
                searches.append(
                    _search(target, name, vectors[name].distance, bias, asked, queries.get(name), spec.datatype)
                )

    def find(search: _Search, ef: int, enough: int) -> float:
        return _recall(engine, target.collection, search, ef, enough, rescored=rescored)

    large = all(4 * vector.size * expected >= _LARGE_BYTES for vector in vectors.values())
    few = _FEW if large and first_ef is None else ()
    sure = max(_SURE_RECALL, min_recall)
    enough = next((ef for ef in few if all(find(search, 0, ef) >= sure for search in searches)), 0)
    first_ef = first_ef or DEFAULT_EF
    ef, recall = 0, {}
    for search in searches:
        while True:
            recall[search.name] = find(search, ef, enough)
            if recall[search.name] >= min_recall:
                break
            ef = 2 * max(ef, first_ef)
            if ef > max(_MAX_EF, first_ef):
                raise EngineError(
                    f"{target.collection}: searches find {recall[search.name]:.3f} of the {_K} nearest by "
                    f"{search.name!r} even with {ef // 2} candidates; expected at least {min_recall}. Raise hnsw_m "
                    "or hnsw_ef_construct, of a quantized store also oversampling, or lower min_recall, in "
                    "feature_store.yaml and publish again; the live version stays"
                )
    return Check(recall, ef, enough)


def _compare(engine: Engine, target: Target, rows: npt.NDArray[np.intp], datatype: str) -> None:
    """Read rows back, and compare their vectors bit for bit, rounded if they are stored so."""
    names = list(target.side.codec.fields)
    for sample in encode_table(target.side.codec, target.side.renamed(target.rows.take(rows))):
        stored = engine.retrieve(target.collection, sample.ids, vectors=names)
        for number, point in enumerate(stored):
            if (
                point is None
                or point.payload[TIMESTAMP_KEY] != sample.timestamps[number]
                or any(not _is_as_sent(point, name, *sample.vectors[name], number, datatype) for name in names)
            ):
                raise EngineError(
                    f"{target.collection} does not return point {sample.ids[number]} as written; the live version stays"
                )


def _is_as_sent(
    point: StoredPoint, name: str, sent: Matrix, present: npt.NDArray[np.bool_], number: int, datatype: str
) -> bool:
    if not present[number]:
        return name not in point.vectors
    return name in point.vectors and point.vectors[name].tobytes() == as_stored(sent[number], datatype).tobytes()


@dataclass(frozen=True)
class _Search:
    """Queries of one named vector, and the lowest score of the k nearest for each."""

    name: str
    queries: Matrix
    skip: list[PointId | None]
    """Per query, the point to leave out of its results."""
    k: int
    least: Matrix
    cosine: bool
    slack: float
    """How much lower a score may be, relative to the norm of the query."""


def _search(
    target: Target,
    name: str,
    distance: Distance,
    bias: str | None,
    rows: npt.NDArray[np.intp],
    queries: Matrix | None,
    datatype: str,
) -> _Search:
    cosine, skip = distance == "Cosine", None
    ids: list[PointId | None]
    if queries is not None:
        ids = [None] * len(queries)
    else:
        # As similar-items and similar-users do: nearest to a row's vector, without that row.
        asked, skip = target.rows.take(rows), rows
        queries = embedding_matrix(asked)
        if bias is not None:
            queries = np.column_stack([queries, asked[bias].to_numpy()])
        ids = [id for batch in encode_table(target.side.codec, target.side.renamed(asked)) for id in batch.ids]
    k = min(_K, target.rows.num_rows - (skip is not None))
    least = kth_best_scores(target.rows, queries, k, bias, cosine=cosine, datatype=datatype, skip=skip)
    dim = queries.shape[1]
    # Qdrant and numpy sum in different orders, which matters most where the products cancel out.
    rounding = dim * float(np.finfo(np.float32).eps)
    if datatype == "float16" and dim < _LANES:
        rounding += _HALF_ROUNDING
    slack = rounding * (1.0 if cosine else _largest_norm(target.rows, bias))
    return _Search(name, queries, ids, k, least, cosine, slack)


def _largest_norm(rows: TableFiles, bias: str | None) -> float:
    """Return the largest norm of the rows' vectors, each with its bias."""
    largest = 0.0
    for batch in rows.batches(["embedding", *([bias] if bias else [])], VECTOR_ROWS):
        block = matrix_of(batch["embedding"])
        if bias is not None:
            block = np.column_stack([block, batch[bias].to_numpy()])
        largest = max(largest, float(np.linalg.norm(block, axis=1).max(initial=0)))
    return largest


def _recall(engine: Engine, collection: str, search: _Search, ef: int, enough: int, *, rescored: bool) -> float:
    if not search.k:
        return 1.0
    found = 0
    for query, skipped, least in zip(search.queries, search.skip, search.least, strict=True):
        limit = search.k + (skipped is not None)
        hits = engine.query(collection, search.name, query, limit=limit, search_ef=ef, enough_ef=enough)
        hits = [hit for hit in hits if hit.id != skipped][: search.k]
        scores = [hit.score for hit in hits] if rescored else _score(engine, collection, search, query, hits)
        # Ties count as found.
        slack = search.slack * (1.0 if search.cosine else float(np.linalg.norm(query)))
        found += sum(score >= least - 1e-5 * abs(least) - slack for score in scores)
    return float(found / (search.k * len(search.queries)))


def _score(engine: Engine, collection: str, search: _Search, query: Matrix, hits: list[ScoredPoint]) -> list[float]:
    """Compute the scores of hits from their stored vectors."""
    stored = engine.retrieve(collection, [hit.id for hit in hits], vectors=[search.name], payload=())
    asked = unit(query[None])[0] if search.cosine else query
    return [float(point.vectors[search.name] @ asked) for point in stored if point is not None]
