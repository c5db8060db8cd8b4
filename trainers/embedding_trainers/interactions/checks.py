"""What is odd about a log or about how it is used, found before the fit."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from embedding_trainers.interactions.log import Interactions
from embedding_trainers.interactions.preparation import Preparation
from embedding_trainers.interactions.reading import Columns
from embedding_trainers.interactions.vocabulary import count_numbers
from embedding_trainers.trainer import Trainer
from feast_embeddings.errors import InputError
from feast_embeddings.times import is_future

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = [
    "check_weights",
    "judge_weights",
    "log_warnings",
    "refuse_weights_without_effect",
    "rows_warnings",
    "weighs",
]

# The trainers count in float32. At 10¹² (svd) and 10²⁰ (als) their vectors became zeros or their equations
# could not be solved; `python -m tests.benchmarks.weights` prints where. The limits stay well within.
_LARGEST = 1e6
_SMALLEST = 1e-6
# A pair that weighs 100 is a hundred of the ordinary ones, all of the same opinion; als and svd then learn little else.
_MUCH = 50
# A user with more rows is worth a look.
_MANY_ROWS = 5_000


def refuse_weights_without_effect(trainer: str, method: Trainer[Any], preparation: Preparation) -> None:
    """Refuse weights that the trainer would ignore.

    Raises:
        InputError: there are some.
    """
    if not method.uses_weights and weighs(preparation):
        what, instead = (
            ("a half-life", "leave out old interactions with --since")
            if preparation.half_life is not None
            else ("weights of event types that differ", "give each type 1, or 0 to leave it out")
        )
        raise InputError(
            f"{trainer} asks only whether a pair occurs, not how much, so {what} would change nothing; {instead}, or "
            "take a trainer that weighs"
        )


def weighs(preparation: Preparation) -> bool:
    """Return whether interactions that count may count differently."""
    return preparation.half_life is not None or len({w for w in preparation.event_weights.values() if w}) > 1


def log_warnings(log: Interactions, columns: Columns, trainer: str, method: Trainer[Any]) -> list[str]:
    """What the user should know before the log is trained on, a sentence each."""
    warnings = []
    if columns.weight is not None and not method.uses_weights:
        warnings.append(f"{trainer} ignores how large the weights of {columns.weight!r} are; only 0 counts")
    counts = count_numbers(log.user_numbers, len(log.users))
    user = log.users[int(counts.argmax())].as_py()
    return warnings + rows_warnings(user, int(counts.max()), len(log), log.as_of)


def rows_warnings(user: str | int, most: int, rows: int, as_of: datetime | None) -> list[str]:
    """What the user should know about the rows, a sentence each.

    Args:
        user: the one with the most rows.
        most: how many it has.
        rows: how many there are.
        as_of: time of the newest one.
    """
    warnings = []
    if most >= _MANY_ROWS:
        warnings.append(
            f"user {user!r} has {most:,} rows, {most / rows:.0%} of all; leave bots out with --max-user-interactions"
        )
    if as_of is not None and is_future(as_of):
        warnings.append(
            f"the newest row is of {as_of:%Y-%m-%d}, in the future: rows of training frames before that get no "
            "vector of this version"
        )
    return warnings


def check_weights(user_items: csr_matrix, users: pa.Array, items: pa.Array) -> list[str]:
    """Look at the summed weights of the pairs.

    Args:
        user_items: see `Trainer`.
        users, items: ids of its rows and columns, for an error.

    Returns:
        Warnings, a sentence each.

    Raises:
        InputError: the largest is too large, or too small.
    """
    data: Any = user_items.data
    place = int(np.argmax(data))
    user = int(np.searchsorted(user_items.indptr, place, side="right")) - 1
    pair = users[user].as_py(), items[int(user_items.indices[place])].as_py()
    return judge_weights(float(data[place]), pair, float(np.median(data)))


def judge_weights(largest: float, pair: tuple[str | int, str | int], median: float) -> list[str]:
    """Look at the largest summed weight of a pair of user and item, and at the median of all; see `check_weights`."""
    advice = "scale them so that an ordinary interaction weighs about 1, e.g. by their logarithm or their median"
    if not largest <= _LARGEST:
        raise InputError(
            f"the weights of user {pair[0]!r} and item {pair[1]!r} sum up to {largest:g}, and trainers compute with at "
            f"most {_LARGEST:,.0f}; {advice}"
        )
    if largest < _SMALLEST:
        raise InputError(
            f"no pair of user and item has a weight of more than {largest:g}, and trainers compute with "
            f"{_SMALLEST:g} or more; {advice}"
        )
    return [f"half of all pairs weigh {median:,.0f} or more; {advice}"] if median > _MUCH else []
