"""Vectors of users or of items with their attributes: as training returns them, and as rows of an artifact.

Trainers import these classes from `feast_embeddings.artifact`, which is the contract.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.artifact.attributes import CONTENT_EMBEDDING, TIMESTAMP, normalise_attributes
from feast_embeddings.artifact.seen import NEXT_TO_SEEN, SEEN, misfit
from feast_embeddings.errors import ArtifactError, InputError

__all__ = [
    "ENTITIES",
    "WHOLE_NUMBER",
    "EmbeddingTable",
    "Entity",
    "FoldedIn",
    "Lists",
    "check_table",
    "embedding_matrix",
    "to_arrow",
]

Entity = Literal["user", "item"]
Lists: TypeAlias = "pa.Array | pa.ChunkedArray | Callable[[slice], pa.ChunkedArray]"
"""A list for each row; or a function that makes the lists of some rows, so that they need not all be in memory."""
ENTITIES: tuple[Entity, Entity] = ("user", "item")
# The canonical spelling of a whole number, as a pattern: 007, +7 and 1_0 are text, or different ids.
WHOLE_NUMBER = r"-?(0|[1-9][0-9]*)"
_CHECKED_ROWS = 1 << 16


@dataclass(frozen=True)
class EmbeddingTable:
    """The learned vectors of all users or of all items.

    Attributes:
        ids: distinct, without nulls, string or int64, shape (n,).
        embedding: float32, shape (n, dim), finite; row i belongs to ids[i]. The bias is not part of it.
        n_interactions: int64, shape (n,); interactions of each in the training data.
        bias: float32, shape (n,), or None. A user's score for an item is ``user · item + item bias``.
        seen_items: the item ids of each row, the newest last where there are times; or None.
        seen_weights: the weight of each seen item, above 0, in their order; None where all are 1.
        seen_times: the time of the newest interaction with each seen item, in their order; or None.
        content: float32, shape (n, dim), or None: the direction that content alone gives, of length 1; zeros where it
            says nothing.
        attributes: one row per id, or None; see `feast_embeddings.artifact.attributes` for the types.
    """

    ids: pa.Array
    embedding: npt.NDArray[np.float32]
    n_interactions: npt.NDArray[np.int64]
    bias: npt.NDArray[np.float32] | None = None
    seen_items: Lists | None = None
    attributes: pa.Table | None = None
    seen_weights: Lists | None = None
    seen_times: Lists | None = None
    content: npt.NDArray[np.float32] | None = None

    def part(self, rows: slice) -> EmbeddingTable:
        """Return these rows, without a copy, but with what they have seen made.

        Raises:
            InputError: weights or times do not fit the items seen.
        """
        start, n = rows.start, rows.stop - rows.start
        lists = {name: _made(given, rows) for name, given in self.lists().items()}
        for name in NEXT_TO_SEEN.keys() & lists.keys():
            if SEEN not in lists:
                raise InputError(f"users: the column {name!r} needs a column {SEEN!r}")
            if found := misfit(name, lists[name], lists[SEEN]):
                raise InputError(f"users: row {start + found[0] + 1}, column {name!r}: {found[1]}; correct it")
        return EmbeddingTable(
            ids=self.ids.slice(start, n),
            embedding=self.embedding[rows],
            n_interactions=self.n_interactions[rows],
            bias=None if self.bias is None else self.bias[rows],
            attributes=None if self.attributes is None else self.attributes.slice(start, n),
            content=None if self.content is None else self.content[rows],
            **lists,
        )

    def lists(self) -> dict[str, Lists]:
        """Return the columns of what users have seen that there are."""
        named = {name: getattr(self, name) for name in (SEEN, *NEXT_TO_SEEN)}
        return {name: given for name, given in named.items() if given is not None}


@dataclass(frozen=True)
class FoldedIn:
    """Vectors folded into a version for users or items, with its other side unchanged.

    Attributes:
        entity: user or item.
        table: a row for each, with the columns of the artifact's table. Attributes are null, except for `known` ids.
        known: the ids of the table that the version was trained on.
        missing: ids without a vector: everything that they interacted with is unknown to the version.
        n_interactions: rows of the log.
        n_unknown: rows whose other side is unknown to the version.
    """

    entity: Entity
    table: pa.Table
    known: pa.Array
    missing: pa.Array
    n_interactions: int
    n_unknown: int

    @property
    def ids(self) -> list[str | int]:
        """The ids of the table's rows."""
        ids: list[str | int] = self.table[f"{self.entity}_id"].to_pylist()
        return ids

    @property
    def vectors(self) -> npt.NDArray[np.float32]:
        """The vectors, shape (n, dim), in the order of `ids`; without the bias."""
        return embedding_matrix(self.table)


def embedding_matrix(table: pa.Table) -> npt.NDArray[np.float32]:
    """Return the column ``embedding`` of an artifact's table as float32, shape (n, dim); often a view of its memory.

    Raises:
        ArtifactError: a vector is missing, or they have different lengths.
    """
    column = table["embedding"].combine_chunks()
    if column.null_count:
        raise ArtifactError(f"{column.null_count} of {len(column)} embeddings are missing; restore the version")
    if not len(column):
        return np.empty((0, getattr(column.type, "list_size", 0)), dtype=np.float32)
    values: npt.NDArray[np.float32] = column.flatten().to_numpy()
    if not pa.types.is_fixed_size_list(column.type) and pc.count_distinct(pc.list_value_length(column)).as_py() != 1:
        raise ArtifactError("the embeddings of one version have different lengths; restore the version")
    return values.reshape(len(column), -1)


def check_table(entity: Entity, table: EmbeddingTable) -> EmbeddingTable:
    """Check what training found before anything is written, and return it with attributes in the types served.

    Raises:
        InputError: a vector or an attribute cannot be served.
    """
    if table.bias is not None and not np.isfinite(table.bias).all():
        raise InputError(f"training produced NaN or infinity in the bias of the {entity}s; lower the learning rate")
    bad = 0
    for start in range(0, len(table.embedding), _CHECKED_ROWS):
        bad += int((~np.isfinite(table.embedding[start : start + _CHECKED_ROWS]).all(axis=1)).sum())
    if bad:
        raise InputError(
            f"training produced NaN or infinity in {bad} of {len(table.embedding)} {entity} vectors; lower the "
            "learning rate or raise the regularization"
        )
    if table.attributes is None:
        return table
    return replace(table, attributes=normalise_attributes(table.attributes, source=f"{entity} attributes"))


def to_arrow(
    entity: Entity, table: EmbeddingTable, as_of: datetime, created_at: datetime, version: str, space: str
) -> pa.Table:
    """Build the rows of an artifact's table from vectors that `check_table` returned."""
    n = len(table.ids)
    columns: dict[str, Any] = {f"{entity}_id": table.ids, "embedding": _vectors(table.embedding)}
    if table.content is not None:
        columns[CONTENT_EMBEDDING] = _vectors(table.content, missing=np.logical_not(table.content.any(axis=1)))
    if table.bias is not None:
        columns["bias"] = pa.array(table.bias, pa.float32())
    columns["n_interactions"] = pa.array(table.n_interactions, pa.int64())
    columns |= {name: _made(given, slice(0, n)) for name, given in table.lists().items()}
    # Microseconds: nanoseconds break Feast's DuckDB path.
    columns["event_timestamp"] = pa.repeat(pa.scalar(as_of, TIMESTAMP), n)
    columns["created_timestamp"] = pa.repeat(pa.scalar(created_at, TIMESTAMP), n)
    columns["version"] = pa.repeat(version, n)
    columns["space"] = pa.repeat(space, n)
    if table.attributes is not None:
        columns |= dict(zip(table.attributes.column_names, table.attributes.columns, strict=True))
    return pa.table(columns)


def _vectors(matrix: npt.NDArray[np.float32], missing: npt.NDArray[np.bool_] | None = None) -> pa.FixedSizeListArray:
    values = pa.array(np.ascontiguousarray(matrix, dtype=np.float32).reshape(-1))
    mask = None if missing is None else pa.array(missing)
    return pa.FixedSizeListArray.from_arrays(values, matrix.shape[1], mask=mask)


def _made(lists: Lists, rows: slice) -> pa.Array | pa.ChunkedArray:
    return lists(rows) if callable(lists) else lists.slice(rows.start, rows.stop - rows.start)
