"""Other libraries on a split of ours, each in its own process, measured as `embedding_trainers.comparison` does.

Left out where they are not installed: implicit, RecTools. Their vectors are scored by our metrics; EASE has none, so
its lists are.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import sparse

from embedding_trainers.comparison.paired import Scored
from embedding_trainers.comparison.process import cpu_seconds
from embedding_trainers.evaluation.metrics import per_user
from embedding_trainers.evaluation.ranking import factors_ranking
from embedding_trainers.interactions import Split
from embedding_trainers.interactions.memory import peak_memory
from embedding_trainers.trainer import Factors

_K = 20
_Ranker = Callable[[npt.NDArray[np.intp]], npt.NDArray[np.int32]]


class Peer(NamedTuple):
    """A library, and a function from the training part to one that ranks users."""

    package: str
    fit: Callable[[sparse.csr_matrix], _Ranker]
