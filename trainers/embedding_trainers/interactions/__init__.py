"""An interaction log: read, prepared, split, and looked at."""

from __future__ import annotations

from embedding_trainers.interactions.log import Interactions, LogReport
from embedding_trainers.interactions.preparation import Preparation
from embedding_trainers.interactions.reading import Columns, Reading, read_interactions, read_log
from embedding_trainers.interactions.split import (
    split_against,
    split_by_time,
    split_by_user,
    split_interactions,
    split_leave_last_out,
)
from embedding_trainers.interactions.split_parts import LeftOut, Split

__all__ = [
    "Columns",
    "Interactions",
    "LeftOut",
    "LogReport",
    "Preparation",
    "Reading",
    "Split",
    "read_interactions",
    "read_log",
    "split_against",
    "split_by_time",
    "split_by_user",
    "split_interactions",
    "split_leave_last_out",
]
