"""Segments: clusters of the live users or items by direction, with names, and the numbers of an earlier result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

from feast_embeddings.analysis.clustering import (
    Choice,
    Floats,
    Ints,
    Method,
    hdbscan,
    k_means,
    too_many_for_hdbscan,
    tried,
)
from feast_embeddings.analysis.members import Members
from feast_embeddings.analysis.traits import Trait, Values, attribute_values, traits_of
from feast_embeddings.errors import InputError, import_extra

__all__ = ["Choice", "Segment", "Segments", "segment"]

_IN_NAME = 2


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
        numbers: the segment of each member, shape (n,), from 1; 0 for a member of none, which k-means does not have.
        segments: by number.
        without: members of no segment.
        tried: what was compared; empty if k was given.
        chosen: the best of it; None if k was given.
        left_out: why HDBSCAN was not compared, though it was to be; None if it was, or was not to be.
        moved: of the members that the earlier result has, how many are in another segment; None without one.
        kept: of them, how many are in the same.
    """

    numbers: Ints
    segments: list[Segment]
    without: int
    tried: list[Choice]
    chosen: Choice | None
    left_out: str | None
    moved: int | None
    kept: int | None


def segment(
    members: Members,
    k: int | None = None,
    *,
    methods: Sequence[Method] = ("k-means", "hdbscan"),
    seed: int = 0,
    previous: Mapping[Any, int] | None = None,
    seen: Iterator[Values] | None = None,
) -> Segments:
    """Divide users or items into k segments, or into as many as are stable and apart.

    Args:
        k: for k-means alone; None for as many as are stable and apart.
        methods: those to choose from. HDBSCAN is left out if there are too many members for it, unless it is the only
            one.
        previous: segments of an earlier result by id; a segment that shares the most members with one keeps its number.
        seen: what users have seen, to name them by.

    Raises:
        InputError: there are fewer distinct vectors than segments, too many of them for HDBSCAN, or no segments; or k
            is given for HDBSCAN.
        MissingExtraError: the extra ``analysis`` is not installed.
    """
    distinct = len(np.unique(members.unit, axis=0))
    if distinct < (k or 3):
        advice = "; name a smaller number with -k" if distinct > 1 else ""
        raise InputError(f"{k or 3} distinct vectors are needed, got {distinct}{advice}")
    if k is not None and "k-means" not in methods:
        raise InputError("hdbscan finds the number of segments itself; leave -k out, or take k-means")
    left_out = too_many_for_hdbscan(len(members)) if k is None and {"k-means", "hdbscan"} <= set(methods) else None
    if left_out is not None:
        methods = ("k-means",)
    compared = [] if k is not None else [each for way in methods for each in tried(members.unit, way, seed, distinct)]
    chosen, labels = (None, k_means(members.unit, k, seed)) if k else _best(members.unit, compared, methods, seed)
    labels = _by_size(labels)
    k = int(labels.max()) + 1
    numbers = labels + 1
    moved = kept = None
    if previous is not None:
        earlier = np.array([previous.get(id, 0) for id in members.ids.to_pylist()], np.int64)
        last = max(previous.values(), default=0)  # also of those who are gone
        numbers = np.where(labels < 0, 0, _renumbered(labels, k, earlier, last)[labels])
        shared = earlier > 0
        moved, kept = int((numbers != earlier)[shared].sum()), int((numbers == earlier)[shared].sum())
    traits = traits_of(labels, k, chain(attribute_values(members), seen or ()))
    found = [_segment(members, labels == label, int(numbers[labels == label][0]), traits[label]) for label in range(k)]
    return Segments(
        numbers=numbers,
        segments=sorted(found, key=lambda each: each.number),
        without=int((labels < 0).sum()),
        tried=compared,
        chosen=chosen,
        left_out=left_out,
        moved=moved,
        kept=kept,
    )


def _best(x: Floats, compared: Sequence[Choice], methods: Sequence[Method], seed: int) -> tuple[Choice, Ints]:
    """Return the choice with the highest score that finds segments of all, of equals the fewest; and the clusters."""
    for choice in sorted(compared, key=lambda choice: (-choice.score, choice.k)):
        labels = k_means(x, choice.k, seed) if choice.least is None else hdbscan(x, choice.least)
        if labels.max() >= 0:  # HDBSCAN may find some on a sample, and none of all
            return choice, labels
    raise InputError(f"{' and '.join(methods)} found no 2 to 20 segments; name a number with k-means and -k")


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


def _by_size(labels: Ints) -> Ints:
    """Number from 0 by size, the largest first; of equals, the one with the first member; -1 stays."""
    _, first, sizes = np.unique(labels[labels >= 0], return_index=True, return_counts=True)
    order = np.lexsort((first, -sizes))
    rank = np.full(len(order) + 1, -1, np.int64)  # the last is for -1
    rank[order] = np.arange(len(order))
    return rank[labels]


def _renumbered(labels: Ints, k: int, earlier: Ints, last: int) -> Ints:
    """Return the number of each label, so that as many members as possible keep theirs; others get new numbers."""
    assign = import_extra("scipy.optimize", "finding segments", "analysis").linear_sum_assignment
    shared = np.zeros((k, last), np.int64)
    both = (earlier > 0) & (labels >= 0)
    np.add.at(shared, (labels[both], earlier[both] - 1), 1)
    numbers = np.zeros(k, np.int64)
    for label, column in zip(*assign(shared, maximize=True), strict=True):
        if shared[label, column]:
            numbers[label] = column + 1
    new = numbers == 0
    numbers[new] = last + 1 + np.arange(new.sum())
    return numbers
