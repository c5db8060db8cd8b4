"""Live rows next to the version's files: which rows came later, and whose vector has changed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from feast_embeddings.artifact import Artifact, Entity, embedding_matrix
from feast_embeddings.artifact.brute_force import as_stored
from feast_embeddings.artifact.table_files import TableFiles

if TYPE_CHECKING:
    from feast_embeddings.query.live import LiveModel

__all__ = ["LiveRows", "TrainedRows", "compare_rows", "trained_rows"]

# Rows of an export that are compared at a time.
_ROWS = 1 << 16


@dataclass(frozen=True)
class TrainedRows:
    """The users or items of a version's files, n of them.

    Attributes:
        files: the files themselves.
        places: the ids, in the order of the rows.
        vectors: float32, shape (n, dim).
        times: microseconds since 1970 of the data behind each, shape (n,).
        counts: interactions in training, shape (n,).
    """

    files: TableFiles
    places: pd.Index
    vectors: npt.NDArray[np.float32]
    times: npt.NDArray[np.int64]
    counts: npt.NDArray[np.int64]


@dataclass(frozen=True)
class LiveRows:
    """How the live users or items differ from the files of their version.

    Attributes:
        ids: the live ids that have a vector.
        later: share of the live rows that the files do not have, or have with an earlier time.
        changed: of the rows in both, the share whose live vector differs from the file's, bit for bit as stored.
        norm_ratio: mean over the rows in both of the live length ÷ that in the file; None if there is none.
    """

    ids: pd.Index
    later: float
    changed: float
    norm_ratio: float | None


def trained_rows(artifact: Artifact, entity: Entity) -> TrainedRows:
    """Read a version's users or items, verified.

    Raises:
        ArtifactError: a file is missing, or was changed.
    """
    files = artifact.verified(entity)
    table = files.read([f"{entity}_id", "embedding", "event_timestamp", "n_interactions"])
    return TrainedRows(
        files=files,
        places=pd.Index(table[f"{entity}_id"].to_numpy()),
        vectors=embedding_matrix(table),
        times=_microseconds(table["event_timestamp"]),
        counts=table["n_interactions"].fill_null(0).to_numpy(),
    )


def compare_rows(live: LiveModel, entity: Entity, trained: TrainedRows) -> LiveRows:
    """Compare all live rows that have a vector with the files; the vectors of 65,536 rows are in memory at a time.

    Raises:
        EngineError: the version was dropped meanwhile.
    """
    reader, datatype = live.export(entity, None), live.side(entity).spec.datatype
    waiting: list[pa.RecordBatch] = []
    ids: list[npt.NDArray[np.generic]] = []
    later = shared = changed = 0
    ratios: list[npt.NDArray[np.float32]] = []

    def compare() -> None:
        nonlocal later, shared, changed
        table = pa.Table.from_batches(waiting, reader.schema)
        waiting.clear()
        ids.append(table[reader.schema.names[0]].to_numpy())
        rows = trained.places.get_indexer(pd.Index(ids[-1]))
        there = rows >= 0
        later += int(
            (~there).sum() + (_microseconds(table["event_timestamp"])[there] > trained.times[rows[there]]).sum()
        )
        now = embedding_matrix(table)[there]
        before = as_stored(trained.vectors[rows[there]], datatype)
        shared += len(now)
        changed += int((now != before).any(axis=1).sum())
        lengths = np.linalg.norm(before, axis=1)
        ratios.append(np.linalg.norm(now, axis=1)[lengths > 0] / lengths[lengths > 0])

    for batch in reader:
        waiting.append(batch)
        if sum(map(len, waiting)) >= _ROWS:
            compare()
    compare()
    live_ids, ratio = pd.Index(np.concatenate(ids)), np.concatenate(ratios)
    return LiveRows(
        ids=live_ids,
        later=later / max(1, len(live_ids)),
        changed=changed / max(1, shared),
        norm_ratio=float(ratio.mean()) if len(ratio) else None,
    )


def _microseconds(times: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    microseconds: npt.NDArray[np.int64] = times.cast(pa.timestamp("us", "UTC")).cast(pa.int64()).to_numpy()
    return microseconds
