"""What a training found, as the tables of an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_trainers.interactions.log import LogSummary
from embedding_trainers.interactions.seen import SeenItems
from embedding_trainers.trainer import Factors
from feast_embeddings.artifact import EmbeddingTable, Entity
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["factor_tables", "refuse_zeros"]


def factor_tables(
    log: LogSummary,
    user_items: csr_matrix,
    factors: Factors,
    of_users: pa.Table | None = None,
    of_items: pa.Table | None = None,
    *,
    latest: npt.NDArray[np.int64] | None = None,
    newest: int | None = None,
) -> dict[Entity, EmbeddingTable]:
    """The tables of an artifact: ids, factors, counts, what users have seen, and attributes.

    Args:
        latest: times of the pairs, see `latest_times`.
        newest: how many seen items of a user to keep; None keeps all. It needs times.
    """
    seen = SeenItems(user_items, log.items, latest, newest)
    users = EmbeddingTable(
        ids=log.users,
        embedding=factors.user_factors,
        n_interactions=log.of_users,
        seen_items=seen.items,
        seen_weights=seen.weights if (user_items.data != 1).any() else None,
        seen_times=None if latest is None else seen.times,
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
