"""What a training found, as the tables of an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.interactions.log import LogSummary
from embedding_trainers.trainer import Factors
from feast_embeddings.artifact import EmbeddingTable, Entity
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["factor_tables", "refuse_zeros"]

_CHUNK_BYTES = 1 << 30


def factor_tables(
    log: LogSummary,
    user_items: csr_matrix,
    factors: Factors,
    of_users: pa.Table | None = None,
    of_items: pa.Table | None = None,
) -> dict[Entity, EmbeddingTable]:
    """The tables of an artifact: ids, factors, counts, what users have seen, and attributes."""
    users = EmbeddingTable(
        ids=log.users,
        embedding=factors.user_factors,
        n_interactions=log.of_users,
        seen_items=lambda rows: _seen(user_items, log.items, rows),
        attributes=of_users,
    )
    items = EmbeddingTable(
        ids=log.items,
        embedding=factors.item_factors,
        n_interactions=log.of_items,
        bias=factors.item_bias,
        attributes=of_items,
    )
    return {"user": users, "item": items}


def refuse_zeros(tables: Mapping[Entity, EmbeddingTable]) -> None:
    """Refuse vectors of zeros, which are similar to nothing.

    Raises:
        InputError: there are some; it names the first.
    """
    for entity, table in tables.items():
        zeros = np.flatnonzero(~table.embedding.any(axis=1))
        if len(zeros):
            named = ", ".join(repr(table.ids[number].as_py()) for number in zeros[:3].tolist())
            raise InputError(
                f"training gave {len(zeros):,} of {len(table.ids):,} {entity}s a vector of zeros, which is similar to "
                f"nothing: {named}{', …' if len(zeros) > 3 else ''}; look at their weights, or leave them out"
            )


def _seen(user_items: csr_matrix, items: pa.Array, users: slice) -> pa.ChunkedArray:
    """The items of these users, in as many chunks as it takes for Arrow's 32-bit offsets not to overflow."""
    longest = 8 if items.type == pa.int64() else max(1, pc.max(pc.binary_length(items)).as_py())
    pairs, ends = max(1, _CHUNK_BYTES // longest), user_items.indptr
    chunks, start = [], users.start
    while start < users.stop:
        end = max(start + 1, int(np.searchsorted(ends, int(ends[start]) + pairs, side="right")) - 1)
        end = min(end, users.stop)
        rows = slice(int(ends[start]), int(ends[end]))
        offsets = pa.array((ends[start : end + 1] - ends[start]).astype(np.int32))
        chunks.append(pa.ListArray.from_arrays(offsets, items.take(pa.array(user_items.indices[rows]))))
        start = end
    return pa.chunked_array(chunks, pa.list_(items.type))
