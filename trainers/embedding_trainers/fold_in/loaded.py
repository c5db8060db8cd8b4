"""A version as far as it takes to fold in, loaded once for any number of calls."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.content.prior import blend
from embedding_trainers.extra import import_extra
from embedding_trainers.trainer import IMPORTED, Folded, KnownSide, RunOptions, TrainingLog, find_trainer
from feast_embeddings.artifact import (
    Artifact,
    Entity,
    embedding_matrix,
)
from feast_embeddings.artifact.seen import SEEN
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["FoldIn", "log_of"]

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
        self._trainer = found
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

    def fold(self, matrix: csr_matrix, log: Callable[[], TrainingLog], *, seed: int = 0) -> Folded:
        """A vector for each row of `matrix`.

        Args:
            log: gives the interactions that it sums up, in order; called for a trainer that asks for them.
        """
        options = RunOptions(seed=seed, log=log() if self._trainer.fold_in_reads_log else None)
        # Many small problems: BLAS threads would wait for each other longer than they work.
        with self._threads.limit(limits=1, user_api="blas"):
            return self._trainer.fold(matrix, self._known, self._config, options)

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
            rows: whose interaction it is, shape (n,), from 0; those of one row in their order.
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
        of_known = (places, columns[is_known], weights[is_known])
        return with_vector, self.fold(self.matrix(*of_known), lambda: log_of(*of_known), seed=seed), is_known

    @property
    def has_parts(self) -> bool:
        """Whether the trainer's vectors of users are sums over their interactions, see `parts`."""
        return self._trainer.parts is not None

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
        if (parts_of := self._trainer.parts) is None:
            raise InputError("the trainer of this version cannot say what an interaction adds; one with parts can")
        columns = self.numbers(ids)
        with self._threads.limit(limits=1, user_api="blas"):
            of_columns = parts_of(self.matrix(np.zeros_like(columns), columns, weights), self._known, self._config)
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
            network=known.network,
        )
        return other


def _index(ids: pa.Array) -> pd.Index:
    values = ids.to_numpy(zero_copy_only=False)
    # Else pandas would look at each text to find a type for them all.
    index: pd.Index = pd.Index(values, dtype=values.dtype)
    return index


def log_of(
    rows: npt.NDArray[np.integer],
    columns: npt.NDArray[np.int64],
    weights: npt.NDArray[np.float32],
    times: npt.NDArray[np.int64] | None = None,
) -> TrainingLog:
    """Interactions as a trainer reads them, each shape (n,)."""
    return TrainingLog(rows.astype(np.int32), columns.astype(np.int32), weights, times)


def _known_side(entity: Entity, table: pa.Table, artifact: Artifact) -> KnownSide:
    has_bias = "bias" in table.column_names
    return KnownSide(
        entity=entity,
        factors=embedding_matrix(table),
        bias=table["bias"].to_numpy() if has_bias else np.zeros(table.num_rows, np.float32),
        degrees=_degrees(entity, table, artifact),
        network=artifact.network(),
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
