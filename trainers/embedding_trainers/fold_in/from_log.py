"""Vectors for new users or items from their interactions."""

from __future__ import annotations

import copy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.content.prior import blend
from embedding_trainers.extra import import_extra
from embedding_trainers.fold_in.histories import union
from embedding_trainers.interactions import Interactions, read_interactions
from embedding_trainers.interactions.seen import SeenItems, latest_times
from embedding_trainers.interactions.vocabulary import exact_cast
from embedding_trainers.trainer import IMPORTED, Folded, KnownSide, RunOptions, find_trainer
from feast_embeddings.artifact import (
    Artifact,
    EmbeddingTable,
    Entity,
    FoldedIn,
    check_table,
    embedding_matrix,
    to_arrow,
)
from feast_embeddings.artifact.seen import NEXT_TO_SEEN, SEEN, SEEN_TIMES, SEEN_WEIGHTS
from feast_embeddings.artifact.table_files import TableFiles
from feast_embeddings.errors import InputError
from feast_embeddings.reading import Source

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["FoldIn", "fold_in", "known_ids", "typed_ids"]

_OTHER: dict[Entity, Entity] = {"user": "item", "item": "user"}


class FoldIn:
    """A version as far as it takes to fold in: its trainer and its other side, loaded once for any number of calls.

    Args:
        artifact: the version.
        entity: whether users or items are folded in.

    Raises:
        InputError: its trainer is not installed or cannot fold in.
        ArtifactError: its table of the other side is damaged.
        MissingExtraError: the extra ``trainers`` is not installed.
    """

    def __init__(self, artifact: Artifact, entity: Entity) -> None:
        trainer = artifact.manifest.trainer
        if trainer.name == IMPORTED:
            raise InputError(
                f"version {artifact.manifest.version} was imported, and only what made its vectors can make more; "
                "import a version that has them"
            )
        found = find_trainer(trainer.name)
        if found.fold_in is None:
            raise InputError(f"the trainer {trainer.name!r} cannot fold in; train a new version")
        self._fold_in, self._parts = found.fold_in, found.parts
        self._config = found.configure(trainer.config)
        self._csr_matrix: Any = import_extra("scipy.sparse").csr_matrix
        # To look for the libraries that have threads takes longer than to fold in a user.
        self._threads: Any = import_extra("threadpoolctl").ThreadpoolController()
        self.other = _OTHER[entity]
        self.history = artifact.manifest.history
        self._strength = float((artifact.manifest.content_of(entity) or {}).get("strength", 0))
        table = artifact.table(self.other)
        self._set_ids(table[f"{self.other}_id"].combine_chunks())
        self._known = _known_side(self.other, table, artifact)

    def numbers(self, ids: pa.Array) -> npt.NDArray[np.int64]:
        """The row of the other side that each id has, -1 where it is not known; shape (len(ids),)."""
        return np.asarray(self._rows.get_indexer(_index(ids)), np.int64)

    def _set_ids(self, ids: pa.Array) -> None:
        self.ids = ids
        # Hashed once, for the many calls that ask for the few items of a visitor.
        self._rows = _index(ids)

    def with_content(
        self, vector: npt.NDArray[np.float32], content: npt.NDArray[np.float32], n: int
    ) -> npt.NDArray[np.float32]:
        """What a vector from n interactions and one from content say together, see `content.prior`; shape (dim,)."""
        mixed: npt.NDArray[np.float32] = blend(vector[None], content[None], np.array([n]), self._strength)[0]
        return mixed

    def matrix(
        self, rows: npt.NDArray[np.integer], columns: npt.NDArray[np.int64], weights: npt.NDArray[np.float32]
    ) -> csr_matrix:
        """Interactions of new rows, numbered without a gap from 0, with rows of the other side; pairs are summed."""
        # For one visitor half the time that scipy takes to do it.
        order = np.argsort(rows, kind="stable")
        ends = np.cumsum(np.bincount(rows))
        matrix = self._csr_matrix(
            (weights[order], columns[order], np.concatenate([[0], ends])), shape=(len(ends), len(self.ids))
        )
        matrix.sum_duplicates()
        return matrix

    def fold(self, matrix: csr_matrix, *, seed: int = 0) -> Folded:
        """A vector for each row of `matrix`."""
        # Many small problems: BLAS threads would wait for each other longer than they work.
        with self._threads.limit(limits=1, user_api="blas"):
            return self._fold_in(matrix, self._known, self._config, RunOptions(seed=seed))

    def folded(
        self,
        rows: npt.NDArray[np.int64],
        ids: pa.Array,
        weights: npt.NDArray[np.float32],
        *,
        seed: int = 0,
    ) -> tuple[npt.NDArray[np.int64], Folded, npt.NDArray[np.bool_]]:
        """Vectors for rows that have no ids, from n interactions.

        Args:
            rows: whose interaction it is, shape (n,), from 0.
            ids: with what, of the type of the version's ids, shape (n,).
            weights: positive, shape (n,).
            seed: of what randomness there is.

        Returns:
            The m rows that get a vector, ascending, as they have an interaction with what the version knows; the
            vectors and biases of these m; and which interactions are of that kind, shape (n,).
        """
        columns = self.numbers(ids)
        is_known = columns >= 0
        with_vector, places = np.unique(rows[is_known], return_inverse=True)
        if not len(with_vector):
            none = Folded(np.empty((0, self._known.factors.shape[1]), np.float32), np.empty(0, np.float32))
            return with_vector, none, is_known
        return with_vector, self.fold(self.matrix(places, columns[is_known], weights[is_known]), seed=seed), is_known

    @property
    def has_parts(self) -> bool:
        """Whether the trainer's vectors of users are sums over their interactions, see `parts`."""
        return self._parts is not None

    def parts(self, ids: pa.Array, weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """What each interaction of a new user adds to the vector that `folded` gives, exactly.

        Args:
            ids: distinct known items, of the type of the version's ids, shape (n,), n > 0.
            weights: positive, shape (n,).

        Returns:
            float32, shape (n, dim), whose sum is the vector.

        Raises:
            InputError: the trainer's vectors are no such sum.
        """
        if self._parts is None:
            raise InputError("the trainer of this version cannot say what an interaction adds; one with parts can")
        columns = self.numbers(ids)
        with self._threads.limit(limits=1, user_api="blas"):
            of_columns = self._parts(self.matrix(np.zeros_like(columns), columns, weights), self._known, self._config)
        parts = np.empty_like(of_columns)
        parts[np.argsort(columns)] = of_columns
        return parts

    def knowing(self, ids: pa.Array, factors: npt.NDArray[np.float32]) -> FoldIn:
        """The same version with other vectors of some of the other side, and with more of these.

        Args:
            ids: distinct, of the type of the version's ids, shape (n,). Training never saw the new ones, so they
                did not pass anything over.
            factors: float32, shape (n, dim).
        """
        places, known, other = self.numbers(ids), self._known, copy.copy(self)
        new = np.flatnonzero(places < 0)
        grown = np.concatenate([known.factors, factors[new]])
        grown[places[places >= 0]] = factors[places >= 0]
        other._set_ids(pa.concat_arrays([self.ids, ids.take(pa.array(new))]))
        other._known = KnownSide(
            entity=known.entity,
            factors=grown,
            bias=np.concatenate([known.bias, np.zeros(len(new), np.float32)]),
            degrees=np.concatenate([known.degrees, np.zeros(len(new), np.int64)]),
        )
        return other


def _index(ids: pa.Array) -> pd.Index:
    values = ids.to_numpy(zero_copy_only=False)
    # Else pandas would look at each text to find a type for them all.
    index: pd.Index = pd.Index(values, dtype=values.dtype)
    return index


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
    folded = version.fold(matrix, seed=seed)
    times = None if log.timestamps is None else log.timestamps[is_known]
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


def _known_side(entity: Entity, table: pa.Table, artifact: Artifact) -> KnownSide:
    has_bias = "bias" in table.column_names
    return KnownSide(
        entity=entity,
        factors=embedding_matrix(table),
        bias=table["bias"].to_numpy() if has_bias else np.zeros(table.num_rows, np.float32),
        degrees=_degrees(entity, table, artifact),
    )


def _degrees(entity: Entity, table: pa.Table, artifact: Artifact) -> npt.NDArray[np.int64]:
    """Distinct items of each user, or users of each item: a log may have a pair in many rows."""
    users = artifact.verified("user")
    if SEEN not in users.schema.names or artifact.manifest.history is not None:
        return np.asarray(table["n_interactions"].to_numpy())
    # Without the vectors, which are most of the files.
    seen = (batch[SEEN] for batch in users.batches([SEEN]))
    if entity == "user":
        return np.concatenate([pc.list_value_length(lists).to_numpy() for lists in seen]).astype(np.int64)
    degrees = np.zeros(len(table), dtype=np.int64)
    items = table["item_id"].combine_chunks()
    for lists in seen:
        degrees += np.bincount(pc.index_in(lists.flatten(), value_set=items), minlength=len(table))
    return degrees


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
