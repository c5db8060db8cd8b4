"""Weights that trainers cannot compute with, found before the fit; and vectors of zeros, found after it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from feast_embeddings.artifact import EmbeddingTable, Entity
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from embedding_trainers.interactions import Interactions

__all__ = ["check_weights", "refuse_zeros"]

# The trainers count in float32. From about 10⁶ (svd) and 10²⁰ (als), and below 10⁻¹², their vectors became zeros or
# their equations could not be solved; `python -m tests.benchmarks.weights` prints where.
_LARGEST = 1e6
_SMALLEST = 1e-6
# A pair that weighs 100 is a hundred of the ordinary ones, all of the same opinion; als and svd then learn little else.
_MUCH = 50


def check_weights(user_items: csr_matrix, log: Interactions) -> list[str]:
    """Look at the summed weights of the pairs.

    Args:
        user_items: see `Trainer`.
        log: whose matrix it is, for the ids in an error.

    Returns:
        Warnings, a sentence each.

    Raises:
        InputError: the largest is too large, or too small.
    """
    data: Any = user_items.data
    largest = float(data.max())
    advice = "scale them so that an ordinary interaction weighs about 1, e.g. by their logarithm or their median"
    if not largest <= _LARGEST:
        place = int(np.argmax(data))
        user = int(np.searchsorted(user_items.indptr, place, side="right")) - 1
        pair = f"user {log.users[user].as_py()!r} and item {log.items[int(user_items.indices[place])].as_py()!r}"
        raise InputError(
            f"the weights of {pair} sum up to {largest:g}, and trainers compute with at most {_LARGEST:,.0f}; {advice}"
        )
    if largest < _SMALLEST:
        raise InputError(
            f"no pair of user and item has a weight of more than {largest:g}, and trainers compute with "
            f"{_SMALLEST:g} or more; {advice}"
        )
    median = float(np.median(data))
    return [f"half of all pairs weigh {median:,.0f} or more; {advice}"] if median > _MUCH else []


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
