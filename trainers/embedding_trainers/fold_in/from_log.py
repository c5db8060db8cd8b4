"""Vectors for new users or items from their interactions."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.fold_in.histories import union
from embedding_trainers.fold_in.loaded import FoldIn, log_of
from embedding_trainers.interactions import Interactions, read_interactions
from embedding_trainers.interactions.seen import SeenItems, latest_times
from embedding_trainers.interactions.vocabulary import exact_cast
from feast_embeddings.artifact import (
    Artifact,
    EmbeddingTable,
    Entity,
    FoldedIn,
    check_table,
    to_arrow,
)
from feast_embeddings.artifact.seen import NEXT_TO_SEEN, SEEN, SEEN_TIMES, SEEN_WEIGHTS
from feast_embeddings.artifact.table_files import TableFiles
from feast_embeddings.errors import InputError
from feast_embeddings.reading import Source

__all__ = ["fold_in", "known_ids", "typed_ids"]


def fold_in(artifact: Artifact, entity: Entity, interactions: Interactions | Source, *, seed: int = 0) -> FoldedIn:
    """Fold users or items into a version, by the trainer and with the hyper-parameters that it was trained with.

    All that a user did has to be in the log: nothing is added to what training knew of them.

    Args:
        artifact: the version.
        entity: whether the users or the items of the log are folded in.
        interactions: a log, or a file or table with the usual column names, see `read_interactions`.
        seed: of what randomness there is.

    Raises:
        InputError: the version's ids are whole numbers and the log has others, it knows none of the other side, or its
            trainer is not installed or cannot fold in.
        ArtifactError: a table of the version is damaged.
        MissingExtraError: the extra ``trainers`` is not installed.
    """
    log = interactions if isinstance(interactions, Interactions) else read_interactions(interactions)
    manifest = artifact.manifest
    version, same = FoldIn(artifact, entity), artifact.verified(entity)
    ids, numbers = _side(log, entity)
    other_ids, other_numbers = _side(log, version.other)
    ids = typed_ids(ids, same.schema.field(f"{entity}_id").type, entity, manifest.version)
    other_ids = typed_ids(other_ids, version.ids.type, version.other, manifest.version)

    columns = version.numbers(other_ids)[other_numbers]
    is_known = columns >= 0
    with_vector, rows = np.unique(numbers[is_known], return_inverse=True)
    if not len(with_vector):
        raise InputError(
            f"none of the {len(ids):,} {entity}s of the log has an interaction with {_an(version.other)} that version "
            f"{manifest.version} knows"
        )
    weights = np.ones(len(log), np.float32) if log.weights is None else log.weights
    matrix = version.matrix(rows, columns[is_known], weights[is_known])
    times = None if log.timestamps is None else log.timestamps[is_known]
    folded = version.fold(
        matrix, lambda: log_of(rows, columns[is_known], weights[is_known], times).by_time(), seed=seed
    )
    seen = SeenItems(matrix, version.ids, latest_times(matrix, rows, columns[is_known], times))
    learned = EmbeddingTable(
        ids=ids.take(pa.array(with_vector)),
        embedding=folded.factors,
        n_interactions=np.bincount(rows).astype(np.int64),
        bias=folded.bias if entity == "item" else None,
        seen_items=seen.items if entity == "user" else None,
        seen_weights=seen.weights if entity == "user" else None,
        seen_times=seen.times if entity == "user" and times is not None else None,
    )
    # What a vector was learned from ends with the newer of the two; the newest row of an id is the one that is served.
    stamp = max(log.as_of or datetime.now(UTC), manifest.as_of)
    checked = check_table(entity, learned)
    table = to_arrow(entity, checked, stamp, datetime.now(UTC), manifest.version, manifest.space_id)
    completed = _completed(table, same, entity, manifest.history)
    return FoldedIn(
        entity=entity,
        table=completed,
        known=known_ids(artifact, same, entity, completed[f"{entity}_id"].combine_chunks()),
        missing=ids.filter(pa.array(~np.isin(np.arange(len(ids)), with_vector))),
        n_interactions=len(log),
        n_unknown=int((~is_known).sum()),
    )


def _side(log: Interactions, entity: Entity) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    return (log.users, log.user_numbers) if entity == "user" else (log.items, log.item_numbers)


def known_ids(artifact: Artifact, files: TableFiles, entity: Entity, ids: pa.Array) -> pa.Array:
    """Those of the ids that a version was trained on: rows of content alone were not."""
    trained = artifact.trained_on(entity, files.read([f"{entity}_id", "n_interactions"]))
    return ids.filter(pc.is_in(ids, value_set=trained[f"{entity}_id"]))


def typed_ids(ids: pa.Array, dtype: pa.DataType, entity: Entity, version: str) -> pa.Array:
    """The ids of a log in the type of the version's: a CSV file does not say whether 7 is a number or text."""
    if (typed := exact_cast(ids, dtype)) is not None:
        return typed
    example = next(id for id in ids.to_pylist() if not _is_whole(id))
    raise InputError(f"the {entity} ids of version {version} are 64-bit whole numbers, but the log has {example!r}")


def _is_whole(id: str) -> bool:
    try:
        return str(int(id)) == id and -(2**63) <= int(id) < 2**63
    except ValueError:
        return False


def _an(entity: Entity) -> str:
    return "an item" if entity == "item" else "a user"


def _completed(table: pa.Table, files: TableFiles, entity: Entity, history: int | None) -> pa.Table:
    """The rows with the columns of the version's table in their order.

    Those that it has keep their attributes, and what they had seen stays seen. Weights are a column more, where those
    of the version were all 1 and the log has others.
    """
    ids = table[f"{entity}_id"].combine_chunks()
    known = (batch.filter(pc.is_in(batch[f"{entity}_id"], value_set=ids)) for batch in files.batches())
    trained = pa.Table.from_batches(known, files.schema)
    places = pc.index_in(ids, value_set=trained[f"{entity}_id"])
    before = trained.take(places)
    columns = {name: table[name] if name in table.column_names else before[name] for name in trained.column_names}
    schema = trained.schema
    if SEEN in columns:
        if SEEN_TIMES in schema.names and SEEN_TIMES not in table.column_names:
            table = table.append_column(SEEN_TIMES, _alike(table["event_timestamp"], table[SEEN]))
        columns |= union(table, before, history)
        weighs = pc.any(pc.not_equal(columns[SEEN_WEIGHTS].flatten(), 1)).as_py()
        if weighs and SEEN_WEIGHTS not in schema.names:
            schema = schema.append(pa.field(SEEN_WEIGHTS, NEXT_TO_SEEN[SEEN_WEIGHTS]))
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _alike(values: pa.ChunkedArray, lists: pa.ChunkedArray) -> pa.Array:
    """Lists as long as these, each of its row's value only."""
    like = lists.combine_chunks()
    return pa.ListArray.from_arrays(like.offsets, values.combine_chunks().take(pc.list_parent_indices(like)))
