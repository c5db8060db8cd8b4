"""Look for a trainer and for hyper-parameters on interactions that are held back."""

from __future__ import annotations

from embedding_trainers.search.early_stop import EarlyStop, find_iterations
from embedding_trainers.search.racing import Race, Racer, divide_users, find_racers, race
from embedding_trainers.search.tuning import OBJECTIVE, Search, Trial, Tuning, search_space, tune

__all__ = [
    "OBJECTIVE",
    "EarlyStop",
    "Race",
    "Racer",
    "Search",
    "Trial",
    "Tuning",
    "divide_users",
    "find_iterations",
    "find_racers",
    "race",
    "search_space",
    "tune",
]
