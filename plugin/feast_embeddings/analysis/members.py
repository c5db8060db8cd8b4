"""All live users or items of a model, in memory, in the order of their ids."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.artifact import RESERVED_COLUMNS, Entity, embedding_matrix
from feast_embeddings.errors import InputError, UnknownIdError

if TYPE_CHECKING:
    from feast_embeddings.model.sides import Filter
    from feast_embeddings.query.store import EmbeddingStore

__all__ = ["Members", "attribute_names", "read_members"]


@dataclass(frozen=True)
class Members:
    """Users or items of one version, n of them.

    Attributes:
        ids: ascending, so that nothing depends on the order in which the store returns them.
        norms: lengths of the vectors, shape (n,).
        unit: the vectors at length 1, float32, shape (n, dim); a vector of length 0 stays.
        table: the other columns, n rows.
    """

    entity: Entity
    id_name: str
    ids: pa.Array
    norms: npt.NDArray[np.float32]
    unit: npt.NDArray[np.float32]
    table: pa.Table
    version: str
    as_of: str

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def interactions(self) -> npt.NDArray[np.int64]:
        """How many interactions training knew of each; 0 where it does not say."""
        if "n_interactions" not in self.table.column_names:
            return np.zeros(len(self), np.int64)
        counts: npt.NDArray[np.int64] = pc.fill_null(self.table["n_interactions"], 0).to_numpy()
        return counts

    def row_of(self, id: str | int) -> int:
        """Return the row of an id.

        Raises:
            UnknownIdError: there is none.
        """
        row = int(pc.index(self.ids, id).as_py())
        if row < 0:
            raise UnknownIdError(f"{self.entity} {id!r} has no embedding in version {self.version}")
        return row


def attribute_names(members: Members) -> list[str]:
    """Return the columns that came from the table of users or items."""
    return [name for name in members.table.column_names if name not in RESERVED_COLUMNS | {members.id_name}]


def read_members(store: EmbeddingStore, entity: Entity, filter: Filter | None = None) -> Members:
    """Read the live users or items that have a vector and pass a filter.

    Raises:
        InputError: there are none.
        FilterError, NotPublishedError, MissingSideError: as in `EmbeddingStore.export`.
    """
    reader = store.export(entity, filter=filter)
    table = reader.read_all()
    if not table.num_rows:
        raise InputError(f"no {entity} of model {store.model!r} has a vector and passes the filter")
    id_name = table.column_names[0]
    table = table.take(pc.sort_indices(table, sort_keys=[(id_name, "ascending")])).combine_chunks()
    vectors = embedding_matrix(table)
    norms = np.linalg.norm(vectors, axis=1).astype(np.float32)
    return Members(
        entity=entity,
        id_name=id_name,
        ids=table[id_name].combine_chunks(),
        norms=norms,
        unit=(vectors / np.where(norms > 0, norms, 1)[:, None]).astype(np.float32),
        table=table.drop_columns(["embedding"]),
        version=reader.schema.metadata[b"version"].decode(),
        as_of=reader.schema.metadata[b"as_of"].decode(),
    )
