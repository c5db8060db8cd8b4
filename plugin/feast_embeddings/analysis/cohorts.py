"""Cohorts: how given groups of users or items, such as the users of a country, differ in the space.

The distance of a cohort is from the mean of its unit vectors to the mean of all others: 0 if they are alike, 2 if
they point in opposite directions. Small cohorts are far off by chance alone, so a permutation test says how far:
members are dealt to cohorts of the same sizes at random, many times (Good, Permutation, Parametric, and Bootstrap Tests
of Hypotheses, 2005, ch. 3).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.analysis.groups import labels_of
from feast_embeddings.analysis.members import Members, attribute_names
from feast_embeddings.analysis.traits import Trait, Values, attribute_values, traits_of
from feast_embeddings.errors import InputError

__all__ = ["Cohort", "Cohorts", "compare_cohorts", "labels_by"]

MOST_COHORTS = 50
_FEWEST_MEMBERS = 2
_DEALS, _FEWEST_DEALS = 999, 99
_MOST_DEALT = 50_000_000  # members, over all deals

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cohort:
    """One cohort.

    Attributes:
        name: its value.
        size: members with a vector.
        share: of all members that are in a cohort.
        distance: from the others, 0 to 2.
        chance: the distance that 95 % of random cohorts of this size stay below.
        p: the share of random cohorts, this one among them, that are at least as far off.
        nearest: the cohort whose mean is nearest; None if there is only one other.
        moved: how far the mean of the members that the earlier version has too moved since; None without one.
        members_moved: the mean of how far each of these members moved.
        traits: what sets it apart, the most telling first; without the column that it is defined by.
    """

    name: str
    size: int
    share: float
    distance: float
    chance: float
    p: float
    nearest: str | None
    moved: float | None
    members_moved: float | None
    traits: list[Trait]


@dataclass(frozen=True)
class Cohorts:
    """The answer of `compare_cohorts`.

    Attributes:
        by: what the cohorts are.
        cohorts: the largest first.
        distances: between the means of each two, in the order of `cohorts`, shape (k, k).
        without: members of no cohort, or of one with a single member.
    """

    by: str
    cohorts: list[Cohort]
    distances: npt.NDArray[np.float64]
    without: int


def labels_by(members: Members, name: str) -> pa.Array:
    """Return the cohort of each member as text, null for none: by an attribute, of times by month.

    Raises:
        InputError: there is no such attribute, or its values are no cohorts.
    """
    names = attribute_names(members)
    if name not in names:
        there = f"the attributes {', '.join(names)}" if names else "no attributes"
        raise InputError(f"--by {name!r}: {members.entity}s have {there}")
    return labels_of(members.table[name].combine_chunks(), "--by", name)


def compare_cohorts(
    members: Members,
    labels: pa.Array,
    by: str,
    *,
    seed: int = 0,
    earlier: Mapping[Any, _Floats] | None = None,
    seen: Iterator[Values] | None = None,
) -> Cohorts:
    """Compare cohorts with each other, and with what they were.

    Args:
        members: n users or items.
        labels: text, null for none, shape (n,).
        by: the name of the column of `labels`.
        seed: of the permutations.
        earlier: unit vectors of an earlier version in the same space, by id.
        seen: what users have seen, to tell what sets cohorts apart.

    Raises:
        InputError: there are not 2 to 50 cohorts of two members or more.
    """
    encoded = labels.dictionary_encode()
    codes = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False).astype(np.int64)
    values = encoded.dictionary.to_pylist()
    sizes = np.bincount(codes[codes >= 0], minlength=len(values))
    order = sorted(np.flatnonzero(sizes >= _FEWEST_MEMBERS).tolist(), key=lambda code: (-sizes[code], values[code]))
    if not 2 <= len(order) <= MOST_COHORTS:
        raise InputError(
            f"--by {by!r}: {len(order):,} values have {_FEWEST_MEMBERS} or more {members.entity}s with a vector; "
            f"expected 2 to {MOST_COHORTS}, put the others together in a file"
        )
    places = np.full(len(values) + 1, -1, np.int64)  # the last is for -1
    places[order] = np.arange(len(order))
    groups = places[codes]
    names, sizes = [values[code] for code in order], sizes[order]
    x = members.unit[groups >= 0]
    inside = groups[groups >= 0]
    means = _means(x, inside, sizes)
    between = np.linalg.norm(means[:, None] - means[None], axis=2)
    distances = _from_others(means, sizes)
    dealt = _dealt(x, inside, sizes, seed)
    own = (each for each in attribute_values(members) if each.attribute != by)
    traits = traits_of(groups, len(names), chain(own, seen or ()))
    moved = _moved(members, groups, len(names), earlier)
    nearest = np.where(np.eye(len(names), dtype=bool), np.inf, between).argmin(axis=1)
    found = [
        Cohort(
            name=name,
            size=int(sizes[place]),
            share=float(sizes[place] / sizes.sum()),
            distance=float(distances[place]),
            chance=float(np.quantile(dealt[:, place], 0.95)),
            p=float((1 + (dealt[:, place] >= distances[place]).sum()) / (1 + len(dealt))),
            nearest=names[nearest[place]] if len(names) > 2 else None,
            moved=moved[place][0],
            members_moved=moved[place][1],
            traits=traits[place],
        )
        for place, name in enumerate(names)
    ]
    return Cohorts(by, found, between, len(members) - len(x))


def _means(x: _Floats, groups: _Ints, sizes: _Ints) -> npt.NDArray[np.float64]:
    order = np.argsort(groups, kind="stable")
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    means: npt.NDArray[np.float64] = np.add.reduceat(x[order], starts, axis=0, dtype=np.float64) / sizes[:, None]
    return means


def _from_others(means: npt.NDArray[np.float64], sizes: _Ints) -> npt.NDArray[np.float64]:
    """The distance of each mean from the mean of all others: n ÷ (n - size) times its distance from the mean of all."""
    total = sizes.sum()
    overall = sizes @ means / total
    distances: npt.NDArray[np.float64] = np.linalg.norm(means - overall, axis=1) * total / (total - sizes)
    return distances


def _dealt(x: _Floats, groups: _Ints, sizes: _Ints, seed: int) -> npt.NDArray[np.float64]:
    """The distances of random cohorts of these sizes, shape (deals, k): 99 to 999 deals, the fewer the more members."""
    rng = np.random.default_rng(seed)
    deals = min(_DEALS, max(_FEWEST_DEALS, _MOST_DEALT // len(x)))
    return np.array([_from_others(_means(x, rng.permutation(groups), sizes), sizes) for _ in range(deals)])


def _moved(
    members: Members, groups: _Ints, n_groups: int, earlier: Mapping[Any, _Floats] | None
) -> list[tuple[float | None, float | None]]:
    if earlier is None:
        return [(None, None)] * n_groups
    ids = members.ids.to_pylist()
    there = np.array([id in earlier for id in ids])
    found: list[tuple[float | None, float | None]] = []
    for group in range(n_groups):
        rows = np.flatnonzero((groups == group) & there)
        if not len(rows):
            found.append((None, None))
            continue
        change = members.unit[rows].astype(np.float64) - np.array([earlier[ids[row]] for row in rows.tolist()])
        found.append((float(np.linalg.norm(change.mean(axis=0))), float(np.linalg.norm(change, axis=1).mean())))
    return found
