"""A log in which content decides what an item is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.content.prior import Trained
from embedding_trainers.trainer import KnownSide

GROUPS = 8
USERS = 160
ITEMS = 200


@dataclass(frozen=True)
class Decided:
    """Users like the items of one group, which its title names; the last tenth of the items is not trained."""

    matrix: csr_matrix  # shape (USERS, ITEMS)
    table: pa.Table
    groups: npt.NDArray[np.int64]

    def trained(self, vectors: npt.NDArray[np.float32], users: npt.NDArray[np.float32], n: int) -> Trained:
        """The first n items, with vectors of some trainer."""
        matrix = self.matrix[:, :n].T.tocsr()
        matrix.sort_indices()
        known = KnownSide("user", users, np.zeros(USERS, np.float32), matrix.getnnz(axis=0).astype(np.int64))
        return Trained(vectors, np.zeros(n, np.float32), matrix, known)


@pytest.fixture
def decided() -> Decided:
    """See `Decided`."""
    rng = np.random.default_rng(3)
    groups = np.arange(ITEMS) % GROUPS
    likes = groups == (np.arange(USERS) % GROUPS)[:, None]
    met = (rng.random(likes.shape) < 0.5) & likes
    titles = [f"A {('red', 'blue')[n % 2]} thing of kind{group}" for n, group in enumerate(groups)]
    return Decided(csr_matrix(met.astype(np.float32)), pa.table({"title": titles}), groups)
