"""How far the vectors that two versions share moved: by cosine, and by their nearest neighbours."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from feast_embeddings.artifact.brute_force import highest
from feast_embeddings.offline.version_pair import Pair

__all__ = ["blocks", "cosines_of", "n_shared", "neighbour_overlaps", "sample_rows"]

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int64]

# Scores per block: 64 MiB.
_BLOCK = 16 * 2**20


def sample_rows(rng: np.random.Generator, n: int, size: int) -> _Ints:
    """Return at most `size` of n rows, ascending."""
    return np.sort(rng.choice(n, min(n, size), replace=False)) if n else np.empty(0, dtype=np.int64)


def neighbour_overlaps(pair: Pair, chosen: _Ints, k: int) -> npt.NDArray[np.float64]:
    """Return, per chosen row, the share of its k nearest that both versions have; empty if it has no neighbour."""
    n = pair.n_kept
    k = min(k, n - 1)
    if k < 1:
        return np.empty(0)
    shares = np.empty(len(chosen))
    for block in blocks(len(chosen), n):
        rows = chosen[block]
        tops = []
        for side in (pair.old, pair.new):
            # Cosines, each row less a factor, which changes no order within it.
            scores = side.vectors[rows] @ side.vectors.T
            scores /= np.where(side.norms > 0, side.norms, 1)
            scores[np.arange(len(rows)), rows] = -np.inf
            tops.append(highest(scores, k))
        shares[block] = n_shared(*tops) / k
    return shares


def blocks(n_rows: int, n_columns: int) -> Iterator[slice]:
    """Yield parts of the rows of a matrix of scores, each small enough for memory."""
    step = max(1, _BLOCK // max(1, n_columns))
    return (slice(start, start + step) for start in range(0, n_rows, step))


def cosines_of(pair: Pair) -> _Floats:
    """Return the cosine of the old and the new vector of each kept id, float32; 0 for a vector of length 0."""
    lengths = pair.old.norms * pair.new.norms
    products: _Floats = np.einsum("ij,ij->i", pair.old.vectors, pair.new.vectors)
    cosines: _Floats = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)
    return cosines


def n_shared(old: _Ints, new: _Ints) -> _Ints:
    """Count, per row, the numbers in both; no row has a number twice."""
    both = np.sort(np.concatenate([old, new], axis=1), axis=1)
    shared: _Ints = (both[:, 1:] == both[:, :-1]).sum(axis=1)
    return shared
