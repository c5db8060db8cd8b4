"""What is odd about a log, or about how it is to be used, said before the fit."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedding_trainers.interactions import Columns, Interactions
from embedding_trainers.preparation import Preparation
from embedding_trainers.trainer import Trainer
from feast_embeddings.errors import InputError
from feast_embeddings.times import is_future

__all__ = ["log_warnings", "refuse_weights_without_effect"]

# A user with more rows is worth a look.
_MANY_ROWS = 5_000


def refuse_weights_without_effect(trainer: str, method: Trainer[Any], preparation: Preparation) -> None:
    """Refuse weights that the trainer would ignore.

    Raises:
        InputError: there are some.
    """
    if method.uses_weights:
        return
    different = len({weight for weight in preparation.event_weights.values() if weight}) > 1
    if preparation.half_life is not None or different:
        what, instead = (
            ("a half-life", "leave out what is old with --since")
            if preparation.half_life is not None
            else ("weights of event types that differ", "give each type 1, or 0 to leave it out")
        )
        raise InputError(
            f"{trainer} asks only whether a pair occurs, not how much, so {what} would change nothing; {instead}, or "
            "take a trainer that weighs"
        )


def log_warnings(log: Interactions, columns: Columns, trainer: str, method: Trainer[Any]) -> list[str]:
    """What the user should know before the log is trained on, a sentence each."""
    warnings = []
    if columns.weight is not None and not method.uses_weights:
        warnings.append(f"{trainer} ignores how large the weights of {columns.weight!r} are; only 0 counts")
    counts = np.bincount(log.user_numbers)
    if (most := int(counts.max())) >= _MANY_ROWS:
        user = log.users[int(counts.argmax())].as_py()
        warnings.append(
            f"user {user!r} has {most:,} rows, {most / len(log):.0%} of all; "
            "leave bots out with --max-user-interactions"
        )
    if log.as_of is not None and is_future(log.as_of):
        warnings.append(
            f"the newest row is of {log.as_of:%Y-%m-%d}, in the future: rows of training frames before that get no "
            "vector of this version"
        )
    return warnings
