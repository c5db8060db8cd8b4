"""Clusters of unit vectors, by k-means or HDBSCAN, and how stable and how well apart they are.

HDBSCAN (Campello, Moulavi and Sander, PAKDD 2013) finds regions that are denser than their surroundings; what is in
none is noise, label -1.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt

from feast_embeddings.errors import InputError, import_extra

__all__ = ["Choice", "Floats", "Ints", "Method", "hdbscan", "k_means", "too_many_for_hdbscan", "tried"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
Method = Literal["k-means", "hdbscan"]

_MOST_DENSE = 20_000
_PURPOSE, _EXTRA = "finding segments", "analysis"
_MOST_SEGMENTS = 20
_SAMPLE = 5000
# Silhouettes, and HDBSCAN, compare each with each.
_SMALL_SAMPLE = 2000
_SEEDS = 5
_STARTS = 4
_LEAST_SHARES = (0.005, 0.01, 0.02, 0.05)
_FEWEST = 5
_DRAWN = 0.9


@dataclass(frozen=True)
class Choice:
    """How good the k segments are that a method finds on a sample.

    Attributes:
        stability: mean adjusted Rand index of pairs of runs; 1 if all find the same. Runs of k-means differ in their
            seed; runs of HDBSCAN, which has none, each leave out another tenth of the sample.
        silhouette: mean by cosine, in [-1, 1]; noise counts 0.
        least: of HDBSCAN, the share of all that the smallest segment has; None for k-means.
    """

    k: int
    stability: float
    silhouette: float
    method: Method = "k-means"
    least: float | None = None

    @property
    def score(self) -> float:
        """What the one with the highest is chosen by."""
        return self.stability * self.silhouette


def k_means(x: Floats, k: int, seed: int) -> Ints:
    """Return the cluster of each row of x, from 0."""
    cluster = import_extra("sklearn.cluster", _PURPOSE, _EXTRA)
    threads = import_extra("threadpoolctl", _PURPOSE, _EXTRA)
    with threads.threadpool_limits(1):  # sums in one order; and many small runs, where threads would wait
        return np.asarray(cluster.KMeans(k, n_init=_STARTS, random_state=seed).fit_predict(x), np.int64)


def too_many_for_hdbscan(n: int) -> str | None:
    """Return why HDBSCAN does not take n rows; None if it does."""
    return f"it compares each with each, and {n:,} are more than {_MOST_DENSE:,}" if n > _MOST_DENSE else None


def hdbscan(x: Floats, least: float) -> Ints:
    """Return the cluster of each row of x, from 0, and -1 for noise.

    Args:
        least: share of the rows that the smallest cluster has; it has at least 5.

    Raises:
        InputError: there are more than 20,000 rows: time grows with their square.
    """
    if reason := too_many_for_hdbscan(len(x)):
        raise InputError(f"hdbscan: {reason}; choose some with --filter, or take k-means")
    cluster = import_extra("sklearn.cluster", _PURPOSE, _EXTRA)
    size = min(len(x), max(_FEWEST, round(least * len(x))))
    # By Euclidean distance, which orders unit vectors as the cosine does.
    return np.asarray(cluster.HDBSCAN(min_cluster_size=size, copy=True).fit_predict(x), np.int64)


def tried(x: Floats, method: Method, seed: int, distinct: int) -> list[Choice]:
    """Compare numbers of segments from 2 to 20, or smallest sizes of HDBSCAN, on a sample.

    Args:
        distinct: the number of distinct rows of x.
    """
    rng = np.random.default_rng(seed)
    largest = _SAMPLE if method == "k-means" else _SMALL_SAMPLE
    sample = x[np.sort(rng.choice(len(x), largest, replace=False))] if len(x) > largest else x
    judged = np.sort(rng.permutation(len(sample))[:_SMALL_SAMPLE])
    found = []
    if method == "k-means":
        for k in range(2, min(_MOST_SEGMENTS, distinct - 1) + 1):
            with warnings.catch_warnings():  # a sample may have fewer distinct vectors than k
                warnings.filterwarnings("ignore", message="Number of distinct clusters")
                runs = [k_means(sample, k, seed + i) for i in range(_SEEDS)]
            if 1 < len(np.unique(runs[0][judged])) < len(judged):
                stability = _agreement(list(combinations(runs, 2)))
                found.append(Choice(k, stability, _silhouette(sample[judged], runs[0][judged])))
        return found
    draws = [np.sort(rng.permutation(len(sample))[: round(_DRAWN * len(sample))]) for _ in range(_SEEDS)]
    for least in dict.fromkeys(max(share, _FEWEST / len(sample)) for share in _LEAST_SHARES):
        labels = hdbscan(sample, least)
        k = int(labels.max(initial=-1)) + 1
        if not 1 < k <= _MOST_SEGMENTS:
            continue
        pairs = []
        for one, other in combinations([(draw, hdbscan(sample[draw], least)) for draw in draws], 2):
            _, left, right = np.intersect1d(one[0], other[0], assume_unique=True, return_indices=True)
            pairs.append((one[1][left], other[1][right]))
        found.append(Choice(k, _agreement(pairs), _silhouette(sample, labels), method, least))
    return found


def _agreement(pairs: list[tuple[Ints, Ints]]) -> float:
    metrics = import_extra("sklearn.metrics", _PURPOSE, _EXTRA)
    return float(np.mean([metrics.adjusted_rand_score(*pair) for pair in pairs]))


def _silhouette(x: Floats, labels: Ints) -> float:
    metrics = import_extra("sklearn.metrics", _PURPOSE, _EXTRA)
    inside = labels >= 0
    return float(metrics.silhouette_score(x[inside], labels[inside], metric="cosine") * inside.mean())
