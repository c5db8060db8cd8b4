"""Segments: k-means of the live users or items by direction, with names, and the numbers of an earlier result."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, combinations
from typing import Any

import numpy as np
import numpy.typing as npt

from feast_embeddings.analysis.members import Members
from feast_embeddings.analysis.traits import Trait, Values, attribute_values, traits_of
from feast_embeddings.errors import InputError, import_extra

__all__ = ["Choice", "Segment", "Segments", "segment"]

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

_PURPOSE, _EXTRA = "finding segments", "analysis"
_MOST_SEGMENTS = 20
_SAMPLE = 5000
# Silhouettes compare each with each.
_SILHOUETTE_SAMPLE = 2000
_SEEDS = 5
_STARTS = 4
_IN_NAME = 2


@dataclass(frozen=True)
class Choice:
    """How good k segments are on a sample.

    Attributes:
        stability: mean adjusted Rand index of pairs of runs that differ in their seed; 1 if all find the same.
        silhouette: by cosine, in [-1, 1].
    """

    k: int
    stability: float
    silhouette: float

    @property
    def score(self) -> float:
        """What the k with the highest is chosen by."""
        return self.stability * self.silhouette


@dataclass(frozen=True)
class Segment:
    """One segment; its traits set it apart, the most telling first; cohesion is the mean cosine to its centre."""

    number: int
    name: str
    size: int
    share: float
    cohesion: float
    median_interactions: float
    traits: list[Trait]


@dataclass(frozen=True)
class Segments:
    """The answer of `segment`.

    Attributes:
        numbers: the segment of each member, shape (n,), from 1.
        segments: by number.
        tried: the numbers of segments that were compared; empty if k was given.
        moved: of the members that the earlier result has, how many are in another segment; None without one.
        kept: of them, how many are in the same.
    """

    numbers: Ints
    segments: list[Segment]
    tried: list[Choice]
    moved: int | None
    kept: int | None


def segment(
    members: Members,
    k: int | None = None,
    *,
    seed: int = 0,
    previous: Mapping[Any, int] | None = None,
    seen: Iterator[Values] | None = None,
) -> Segments:
    """Divide users or items into k segments, or into as many as are stable and apart.

    Args:
        previous: segments of an earlier result by id; a segment that shares the most members with one keeps its number.
        seen: what users have seen, to name them by.

    Raises:
        InputError: there are fewer distinct vectors than segments.
        MissingExtraError: the extra ``analysis`` is not installed.
    """
    distinct = len(np.unique(members.unit, axis=0))
    if distinct < (k or 3):
        raise InputError(f"{k or 3} distinct vectors are needed, there are {distinct}; name a smaller number with -k")
    tried = [] if k is not None else _tried(members.unit, min(_MOST_SEGMENTS, distinct - 1), seed)
    k = k or max(tried, key=lambda choice: (choice.score, -choice.k)).k
    labels = _by_size(_k_means(members.unit, k, seed))
    numbers = labels + 1
    moved = kept = None
    if previous is not None:
        earlier = np.array([previous.get(id, 0) for id in members.ids.to_pylist()], np.int64)
        numbers = _renumbered(labels, k, earlier)[labels]
        shared = earlier > 0
        moved, kept = int((numbers != earlier)[shared].sum()), int((numbers == earlier)[shared].sum())
    traits = traits_of(labels, k, chain(attribute_values(members), seen or ()))
    found = [_segment(members, labels == label, int(numbers[labels == label][0]), traits[label]) for label in range(k)]
    return Segments(numbers, sorted(found, key=lambda each: each.number), tried, moved, kept)


def _segment(members: Members, mask: npt.NDArray[np.bool_], number: int, traits: list[Trait]) -> Segment:
    own = members.unit[mask]
    centre = own.mean(axis=0)
    return Segment(
        number=number,
        name=", ".join(map(str, traits[:_IN_NAME])) or f"segment {number}",
        size=int(mask.sum()),
        share=float(mask.mean()),
        cohesion=float((own @ (centre / max(float(np.linalg.norm(centre)), 1e-12))).mean()),
        median_interactions=float(np.median(members.interactions[mask])),
        traits=traits,
    )


def _k_means(x: Floats, k: int, seed: int) -> Ints:
    cluster = import_extra("sklearn.cluster", _PURPOSE, _EXTRA)
    threads = import_extra("threadpoolctl", _PURPOSE, _EXTRA)
    with threads.threadpool_limits(1):  # sums in one order; and many small runs, where threads would wait
        return np.asarray(cluster.KMeans(k, n_init=_STARTS, random_state=seed).fit_predict(x), np.int64)


def _tried(x: Floats, most: int, seed: int) -> list[Choice]:
    metrics = import_extra("sklearn.metrics", _PURPOSE, _EXTRA)
    rng = np.random.default_rng(seed)
    sample = x[np.sort(rng.choice(len(x), _SAMPLE, replace=False))] if len(x) > _SAMPLE else x
    judged = np.sort(rng.permutation(len(sample))[:_SILHOUETTE_SAMPLE])
    found = []
    for k in range(2, most + 1):
        with warnings.catch_warnings():  # a sample may have fewer distinct vectors than k
            warnings.filterwarnings("ignore", message="Number of distinct clusters")
            runs = [_k_means(sample, k, seed + i) for i in range(_SEEDS)]
        if not 1 < len(np.unique(runs[0][judged])) < len(judged):
            continue
        stability = np.mean([metrics.adjusted_rand_score(a, b) for a, b in combinations(runs, 2)])
        silhouette = metrics.silhouette_score(sample[judged], runs[0][judged], metric="cosine")
        found.append(Choice(k, float(stability), float(silhouette)))
    return found


def _by_size(labels: Ints) -> Ints:
    """Number from 0 by size, the largest first; of equals, the one with the first member."""
    _, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return rank[labels]


def _renumbered(labels: Ints, k: int, earlier: Ints) -> Ints:
    """Return the number of each label, so that as many members as possible keep theirs; others get new numbers."""
    assign = import_extra("scipy.optimize", _PURPOSE, _EXTRA).linear_sum_assignment
    last = int(earlier.max(initial=0))
    shared = np.zeros((k, last), np.int64)
    np.add.at(shared, (labels[earlier > 0], earlier[earlier > 0] - 1), 1)
    numbers = np.zeros(k, np.int64)
    for label, column in zip(*assign(shared, maximize=True), strict=True):
        if shared[label, column]:
            numbers[label] = column + 1
    new = numbers == 0
    numbers[new] = last + 1 + np.arange(new.sum())
    return numbers
