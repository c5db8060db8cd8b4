"""What a trainer is, and how to find one by name.

A trainer is a config (its hyper-parameters), one function from a matrix of interactions to factors, and one that
folds in: a vector for a new user or item, with the other side as it is. Other packages add theirs under the entry-point
group ``embedding_trainers``::

    [project.entry-points.embedding_trainers]
    mine = "my_package:MINE"          # MINE = Trainer(MyConfig, train_mine, fold_in_mine)
"""

from __future__ import annotations

from embedding_trainers.trainer.contract import (
    IMPORTED,
    Device,
    Factors,
    Folded,
    KnownSide,
    RaceEntry,
    RunOptions,
    Trainer,
    TrainerConfig,
)
from embedding_trainers.trainer.finding import find_trainer, known_trainers
from embedding_trainers.trainer.log import LogShape, TrainingLog

__all__ = [
    "IMPORTED",
    "Device",
    "Factors",
    "Folded",
    "KnownSide",
    "LogShape",
    "RaceEntry",
    "RunOptions",
    "Trainer",
    "TrainerConfig",
    "TrainingLog",
    "find_trainer",
    "known_trainers",
]
