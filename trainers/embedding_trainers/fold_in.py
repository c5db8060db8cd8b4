"""Fold-in: vectors for new users or items from their interactions, without training again.

The plugin finds `fold_in` by the entry-point group ``feast_embeddings.fold_in``.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.extra import import_extra
from embedding_trainers.interactions import Interactions, read_interactions
from embedding_trainers.source import Source
from embedding_trainers.trainer import Folded, KnownSide, RunOptions, find_trainer
from feast_embeddings.artifact import Artifact, EmbeddingTable, Entity, FoldedIn, embedding_matrix, to_arrow
from feast_embeddings.errors import InputError

__all__ = ["fold_in"]

_OTHER: dict[Entity, Entity] = {"user": "item", "item": "user"}


def fold_in(artifact: Artifact, entity: Entity, interactions: Interactions | Source, *, seed: int = 0) -> FoldedIn:
    """Fold users or items into a version, by the trainer and with the hyper-parameters that it was trained with.

    All that somebody did has to be in the log: nothing is added to what training knew of them.

    Args:
        artifact: the version.
        entity: whether the users or the items of the log are folded in.
        interactions: a log, or a file or table with the usual column names, see `read_interactions`.
        seed: of what randomness there is.

    Raises:
        InputError: the log's ids are of another type than the version's, it knows none of the other side, or its
            trainer is not installed or cannot fold in.
        ArtifactError: a table of the version is damaged.
        MissingExtraError: the extra ``trainers`` is not installed.
    """
    log = interactions if isinstance(interactions, Interactions) else read_interactions(interactions)
    manifest = artifact.manifest
    trainer = find_trainer(manifest.trainer.name)
    if trainer.fold_in is None:
        raise InputError(f"the trainer {manifest.trainer.name!r} cannot fold in; train a new version")
    same, other = artifact.table(entity), artifact.table(_OTHER[entity])
    ids, numbers = _side(log, entity)
    other_ids, other_numbers = _side(log, _OTHER[entity])
    for name, found, table in ((entity, ids, same), (_OTHER[entity], other_ids, other)):
        if found.type != (expected := table.schema.field(f"{name}_id").type):
            raise InputError(
                f"the {name} ids of version {manifest.version} are {expected}, those of the log {found.type}"
            )

    columns = pc.fill_null(pc.index_in(other_ids, value_set=other[f"{_OTHER[entity]}_id"]), -1).to_numpy()[
        other_numbers
    ]
    is_known = columns >= 0
    with_vector, rows = np.unique(numbers[is_known], return_inverse=True)
    if not len(with_vector):
        raise InputError(
            f"none of the {len(ids):,} {entity}s of the log has an interaction with {_an(_OTHER[entity])} that version "
            f"{manifest.version} knows"
        )
    weights = np.ones(len(log), np.float32) if log.weights is None else log.weights
    matrix = import_extra("scipy.sparse").csr_matrix(
        (weights[is_known], (rows, columns[is_known])), shape=(len(with_vector), other.num_rows)
    )
    matrix.sort_indices()
    config = trainer.configure(manifest.trainer.config)
    # Many small problems: BLAS threads would wait for each other longer than they work.
    with import_extra("threadpoolctl").threadpool_limits(1, "blas"):
        folded = trainer.fold_in(matrix, _known_side(_OTHER[entity], other), config, RunOptions(seed=seed))
    table = _table(
        artifact,
        entity,
        ids.take(pa.array(with_vector)),
        folded,
        np.bincount(rows).astype(np.int64),
        _lists(matrix.indptr, other[f"{_OTHER[entity]}_id"].take(pa.array(matrix.indices))),
        log.as_of or datetime.now(UTC),
    )
    completed, known = _completed(table, same, entity)
    return FoldedIn(
        entity=entity,
        table=completed,
        known=known,
        missing=ids.filter(pa.array(~np.isin(np.arange(len(ids)), with_vector))),
        n_interactions=len(log),
        n_unknown=int((~is_known).sum()),
    )


def _side(log: Interactions, entity: Entity) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    return (log.users, log.user_numbers) if entity == "user" else (log.items, log.item_numbers)


def _an(entity: Entity) -> str:
    return "an item" if entity == "item" else "a user"


def _known_side(entity: Entity, table: pa.Table) -> KnownSide:
    has_bias = "bias" in table.column_names
    return KnownSide(
        entity=entity,
        factors=embedding_matrix(table),
        bias=table["bias"].to_numpy() if has_bias else np.zeros(table.num_rows, np.float32),
        n_interactions=table["n_interactions"].to_numpy(),
    )


def _table(
    artifact: Artifact,
    entity: Entity,
    ids: pa.Array,
    folded: Folded,
    n_interactions: npt.NDArray[np.int64],
    seen: pa.Array,
    as_of: datetime,
) -> pa.Table:
    manifest = artifact.manifest
    learned = EmbeddingTable(
        ids=ids,
        embedding=folded.factors,
        n_interactions=n_interactions,
        bias=folded.bias if entity == "item" else None,
        seen_items=seen if entity == "user" else None,
    )
    # What a vector was learned from ends with the newer of the two; the newest row of an id is the one that is served.
    stamp = max(as_of, manifest.as_of)
    return to_arrow(entity, learned, stamp, datetime.now(UTC), manifest.version, manifest.space_id)


def _completed(table: pa.Table, trained: pa.Table, entity: Entity) -> tuple[pa.Table, pa.Array]:
    """The rows with the columns of the version's table in their order, and the ids that it was trained on.

    Those keep their attributes, and what they had seen stays seen.
    """
    ids = table[f"{entity}_id"].combine_chunks()
    places = pc.index_in(ids, value_set=trained[f"{entity}_id"])
    before = trained.take(places)
    columns = {name: table[name] if name in table.column_names else before[name] for name in trained.column_names}
    if "seen_items" in columns:
        columns["seen_items"] = _union(table["seen_items"], before["seen_items"])
    return pa.table(columns, schema=trained.schema), ids.filter(places.is_valid())


def _union(*columns: pa.ChunkedArray) -> pa.Array:
    """Row by row, the distinct values of lists; null is an empty list."""
    lists = [column.combine_chunks() for column in columns]
    pairs = pa.concat_tables(pa.table({"row": pc.list_parent_indices(each), "value": each.flatten()}) for each in lists)
    pairs = pairs.group_by(["row", "value"]).aggregate([]).sort_by([("row", "ascending"), ("value", "ascending")])
    counts = np.bincount(pairs["row"].to_numpy(), minlength=len(lists[0]))
    return _lists(np.concatenate([[0], np.cumsum(counts)]), pairs["value"])


def _lists(starts: npt.NDArray[np.integer], values: pa.ChunkedArray) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values.combine_chunks())
