"""Look for hyper-parameters on interactions that are held back."""

from __future__ import annotations

from embedding_trainers.search.early_stop import EarlyStop, find_iterations
from embedding_trainers.search.tuning import OBJECTIVE, Search, Trial, Tuning, search_space, tune

__all__ = ["OBJECTIVE", "EarlyStop", "Search", "Trial", "Tuning", "find_iterations", "search_space", "tune"]
