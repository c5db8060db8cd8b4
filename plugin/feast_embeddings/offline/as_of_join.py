"""The point-in-time join of vectors to labelled rows, column by column.

Feast's own join gives the same result (a test compares the two), but it pairs each labelled row with every older
version of its vector before it picks one, and returns one Python object per vector. Here only ids and times are
compared; each vector is then copied once, from its file into its row of the matrix.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feast_embeddings.artifact import Entity, embedding_matrix
from feast_embeddings.errors import ArtifactError, InputError

__all__ = ["JoinedEmbeddings", "Selection", "join_as_of"]

_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Selection:
    """Which vectors to join: of one version, of one space, or (None, None) all."""

    version: str | None = None
    space: str | None = None


@dataclass(frozen=True)
class JoinedEmbeddings:
    """One vector per labelled row, in the order of the rows.

    Attributes:
        vectors: float32, shape (n, dim); a row of NaN where no vector existed at the row's time.
        found: boolean, shape (n,); whether one did.
        versions, spaces: object, shape (n,); of the row's vector, None where not found.
    """

    vectors: npt.NDArray[np.float32]
    found: npt.NDArray[np.bool_]
    versions: npt.NDArray[np.object_]
    spaces: npt.NDArray[np.object_]


def join_as_of(
    history: Path,
    entity: Entity,
    ids: pa.Array,
    times: _Ints,
    *,
    ttl: timedelta | None,
    dim: int,
    selection: Selection,
) -> JoinedEmbeddings:
    """Join to each row the newest vector of its id that is not newer than the row's time.

    As in Feast, of two with the same event timestamp the one created later counts, and with a ttl a vector is valid
    from its event timestamp until ttl after it, both included. Uses memory for the result, for one row group of one
    file, and for the ids and times of the candidate vectors.

    Args:
        history: folder of Parquet files, one per version.
        ids: shape (n,), of the type that the history has; a null has no vector.
        times: microseconds since the epoch, shape (n,).
        ttl: None or 0 for none.
        dim: length of a vector, used if none is found.

    Raises:
        ArtifactError: there is no history.
        InputError: the vectors of the rows have different lengths.
    """
    files = sorted(history.glob("*.parquet"))
    if not files:
        raise ArtifactError(
            f"{history} holds no versions; train one, restore the folder, or run feast apply if the repo was moved"
        )
    candidates = _candidates(files, f"{entity}_id", ids, selection)
    chosen = candidates.newest(_codes(ids), times, int((ttl or timedelta()) / timedelta(microseconds=1)))
    return _take(files, candidates.files[chosen], candidates.rows[chosen], chosen > 0, dim)


@dataclass(frozen=True)
class _Candidates:
    """The vectors of the requested ids by id, then event timestamp, then created timestamp; the first is a dummy."""

    codes: _Ints
    events: _Ints
    files: _Ints
    rows: _Ints

    def newest(self, codes: _Ints, times: _Ints, ttl: int) -> _Ints:
        """Return the position of each label's candidate, 0 for none."""
        # One integer that sorts like (id, time): times are replaced by their rank among the event timestamps.
        distinct = np.unique(self.events)
        base = len(distinct) + 1
        keys = self.codes * base + np.searchsorted(distinct, self.events) + 1
        places = np.searchsorted(keys, codes * base + np.searchsorted(distinct, times, side="right"), side="right") - 1
        found = (codes >= 0) & (self.codes[places] == codes)
        if ttl:
            found &= self.events[places] >= times - ttl
        return np.where(found, places, 0)


def _codes(ids: pa.Array) -> _Ints:
    """Return the index of each id among the distinct ones; -1 for null."""
    return _int64(pc.fill_null(ids.dictionary_encode().indices.cast(pa.int64()), -1))


def _candidates(files: list[Path], id_name: str, ids: pa.Array, selection: Selection) -> _Candidates:
    distinct = ids.dictionary_encode().dictionary
    parts: list[tuple[_Ints, ...]] = []
    for number, file in enumerate(files):
        names = [id_name, "event_timestamp", "created_timestamp"]
        conditions = {name: value for name, value in vars(selection).items() if value is not None}
        table = pq.read_table(file, columns=[*names, *conditions], read_dictionary=list(conditions), partitioning=None)
        codes = pc.index_in(table[id_name].cast(ids.type), value_set=distinct)
        keep = pc.is_valid(codes)
        for name, value in conditions.items():
            keep = pc.and_(keep, pc.equal(table[name], value))
        rows = np.flatnonzero(pc.fill_null(keep, False).to_numpy())
        event, created = (_int64(table[name].take(rows)) for name in names[1:])
        parts.append((_int64(codes.take(rows)), event, created, np.full(len(rows), number), rows))
    codes, events, created, numbers, rows = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.lexsort((created, events, codes))
    return _Candidates(*(np.insert(column[order], 0, -1) for column in (codes, events, numbers, rows)))


def _take(files: list[Path], numbers: _Ints, rows: _Ints, found: npt.NDArray[np.bool_], dim: int) -> JoinedEmbeddings:
    n = len(found)
    vectors: npt.NDArray[np.float32] | None = None
    names: dict[str, npt.NDArray[np.object_]] = {name: np.full(n, None, dtype=object) for name in ("version", "space")}
    for number, file in enumerate(files):
        labels = np.flatnonzero(numbers == number)
        if not len(labels):
            continue
        parquet = pq.ParquetFile(file, read_dictionary=list(names))
        start = 0
        for group in range(parquet.num_row_groups):
            size = parquet.metadata.row_group(group).num_rows
            here = labels[(rows[labels] >= start) & (rows[labels] < start + size)]
            if len(here):
                table = parquet.read_row_group(group, columns=["embedding", *names])
                found_vectors = embedding_matrix(table)
                if vectors is None:
                    vectors = np.full((n, found_vectors.shape[1]), np.nan, dtype=np.float32)
                if vectors.shape[1] != found_vectors.shape[1]:
                    raise InputError(
                        f"these rows would get vectors of lengths {vectors.shape[1]} and {found_vectors.shape[1]}, "
                        "of versions trained with different factors; select one version or space"
                    )
                vectors[here] = found_vectors[rows[here] - start]
                for name, values in names.items():
                    values[here] = _texts(table[name], rows[here] - start)
            start += size
    if vectors is None:
        vectors = np.full((n, dim), np.nan, dtype=np.float32)
    return JoinedEmbeddings(vectors, found, names["version"], names["space"])


def _texts(column: pa.ChunkedArray, rows: _Ints) -> npt.NDArray[np.object_]:
    """Return the text at these rows; equal texts are one Python object."""
    encoded = column.unify_dictionaries().combine_chunks()
    distinct: npt.NDArray[np.object_] = np.array(encoded.dictionary.to_pylist(), dtype=object)
    taken: npt.NDArray[np.object_] = distinct[_int64(encoded.indices.cast(pa.int64()))[rows]]
    return taken


def _int64(column: Any) -> _Ints:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.timestamp("us", tz=column.type.tz))
    numbers: _Ints = column.cast(pa.int64()).to_numpy()
    return numbers
