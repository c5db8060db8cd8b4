"""What is done to an interaction log before it is trained on: which rows count, and how much."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_trainers.interactions.log import Interactions, LogReport
from embedding_trainers.interactions.vocabulary import Numbers, count_numbers
from feast_embeddings.errors import InputError
from feast_embeddings.times import from_microseconds, to_microseconds

__all__ = [
    "NO_WEIGHT",
    "OUTSIDE",
    "REPEATED",
    "Preparation",
    "all_too_many",
    "core",
    "decay",
    "event_weights",
    "first_of_each",
    "no_weights",
    "prepare",
    "too_many",
]

_MOST_SHOWN = 5
# Why rows are left out.
NO_WEIGHT = "of weight 0"
OUTSIDE = "outside of --since and --until"
REPEATED = "that repeat another"


@dataclass(frozen=True)
class Preparation:
    """How a log becomes training data. A row's weight is the product

        weight column × weight of its event type × 2^(-age / half_life)

    where a factor that is not given is 1, and age is the time from the row to the newest one that is kept. The weights
    of the rows of one user and item are summed. The steps go in this order: rows of weight 0 and rows outside of
    `since` and `until` are left out; then duplicates; then users with too many rows; then users and items with too
    few; then the age counts.

    Attributes:
        since: leave out what happened before this instant (with a time zone).
        until: leave out what happened after this instant (with a time zone).
        event_weights: a weight for each type in the event column, as text; 0 leaves the type out.
        half_life: after this time an interaction counts half.
        drop_duplicates: of rows that are alike in user, item, time and weight, take one.
        max_user_interactions: leave out users with more rows, as bots have.
        min_user_interactions: leave out users with fewer rows; see `core`.
        min_item_interactions: leave out items with fewer rows.

    Raises:
        InputError: a value that makes no sense.
    """

    since: datetime | None = None
    until: datetime | None = None
    event_weights: Mapping[str, float] = field(default_factory=dict)
    half_life: timedelta | None = None
    drop_duplicates: bool = False
    max_user_interactions: int | None = None
    min_user_interactions: int = 1
    min_item_interactions: int = 1

    def __post_init__(self) -> None:
        for name in ("since", "until"):
            instant = getattr(self, name)
            if instant is not None and instant.tzinfo is None:
                raise InputError(f"{name}={instant} has no time zone; add one, e.g. tzinfo=UTC")
        if self.since and self.until and self.since > self.until:
            raise InputError(f"since={self.since} is after until={self.until}")
        for event, weight in self.event_weights.items():
            if not (math.isfinite(weight) and weight >= 0):
                raise InputError(f"the weight of the event type {event!r} must be 0 or more, but it is {weight}")
        if self.half_life is not None and self.half_life <= timedelta():
            raise InputError(f"the half-life must be longer than 0, but it is {self.half_life}")
        for name in ("min_user_interactions", "min_item_interactions", "max_user_interactions"):
            least = getattr(self, name)
            if least is not None and least < 1:
                raise InputError(f"{name} must be 1 or more, but it is {least}")

    @property
    def needs_times(self) -> str | None:
        """The name of a setting that needs a time for each interaction, or None."""
        return next((name for name in ("since", "until", "half_life") if getattr(self, name) is not None), None)

    def empty_window(self, name: str, first: int, last: int) -> InputError:
        """Make the error for a log without a row between `since` and `until`; `first` and `last` are its times."""
        limits = (("since", self.since), ("until", self.until))
        window = " ".join(f"{word} {instant}" for word, instant in limits if instant)
        return InputError(
            f"{name} has no interactions {window}; the first is at {from_microseconds(first)}, "
            f"the last at {from_microseconds(last)}"
        )


def too_many(most: int) -> str:
    """Say why rows of users with more are left out."""
    return f"of users with more than {most:,}"


def all_too_many(name: str, most: int) -> InputError:
    """Make the error for a log of such users only."""
    return InputError(f"{name}: every user has more than {most:,} interactions; allow more")


def no_weights(name: str) -> InputError:
    """Make the error for a log in which no row has a weight."""
    return InputError(f"{name}: all weights are 0, which leaves no interaction")


def prepare(log: Interactions, preparation: Preparation, name: str, report: LogReport) -> Interactions:
    """Leave out the rows that do not count, and weigh the others by their age.

    Args:
        name: what to call the log in an error.
        report: where the rows that are left out are counted.

    Raises:
        InputError: no row remains.
    """
    if log.weights is not None:
        counted = log.where(log.weights > 0)
        report.leave_out(NO_WEIGHT, len(log) - len(counted))
        log = counted
        if not len(log):
            raise no_weights(name)
    since, until = preparation.since, preparation.until
    if log.timestamps is not None and (since or until):
        times = log.timestamps
        keep = np.ones(len(log), dtype=bool)
        if since:
            keep &= times >= to_microseconds(since)
        if until:
            keep &= times <= to_microseconds(until)
        report.leave_out(OUTSIDE, int((~keep).sum()))
        log = log.where(keep)
        if not len(log):
            raise preparation.empty_window(name, int(times.min()), int(times.max()))
    if preparation.drop_duplicates:
        alike: list[npt.NDArray[Any]] = [log.user_numbers, log.item_numbers]
        alike += [values for values in (log.timestamps, log.weights) if values is not None]
        # Of rows that are alike, one that a test may have counts first.
        order = np.arange(len(log)) if log.targets is None else np.argsort(~log.targets, kind="stable")
        keep = np.zeros(len(log), dtype=bool)
        keep[order] = first_of_each([values[order] for values in alike])
        report.leave_out(REPEATED, int((~keep).sum()))
        log = log.where(keep)
    if (most := preparation.max_user_interactions) is not None:
        keep = (count_numbers(log.user_numbers, len(log.users)) <= most)[log.user_numbers]
        report.leave_out(too_many(most), int((~keep).sum()))
        log = log.where(keep)
        if not len(log):
            raise all_too_many(name, most)
    least = preparation.min_user_interactions, preparation.min_item_interactions
    if max(least) > 1:
        enough = log.where(core(log.user_numbers, log.item_numbers, *least))
        report.leave_out("of users or items with too few", len(log) - len(enough))
        log = enough
        if not len(log):
            raise InputError(
                f"{name}: no interactions are left when each user has at least {least[0]} and each item at least "
                f"{least[1]}; ask for fewer"
            )
    if preparation.half_life is not None and log.timestamps is not None:
        weights = decay(log.timestamps, preparation.half_life)
        if log.weights is not None:
            # Not 0 even for very old rows: that would be no interaction.
            weights = np.maximum(weights * log.weights, np.finfo(np.float32).tiny)
        log = replace(log, weights=weights)
    return log


def event_weights(
    types: pa.Array, numbers: Numbers, weights: Mapping[str, float], what: str
) -> npt.NDArray[np.float32]:
    """The weight of each row by the type of its event.

    Args:
        types: the distinct event types.
        numbers: int32, shape (n,); row r is of ``types[numbers[r]]``.
        weights: by type, as text.
        what: what to call the column in an error.

    Returns:
        float32, shape (n,).

    Raises:
        InputError: a type without a weight.
    """
    names = types.cast(pa.string()).to_pylist()
    if absent := [name for name in names if name not in weights]:
        shown = ", ".join(map(repr, absent[:_MOST_SHOWN])) + (", …" if len(absent) > _MOST_SHOWN else "")
        raise InputError(
            f"{what}: {len(absent)} of {len(names)} event types have no weight: {shown}; give each one, and 0 to "
            f"those to leave out (--event-weights {absent[0]}=0)"
        )
    by_type: npt.NDArray[np.float32] = np.array([weights[name] for name in names], dtype=np.float32)
    return by_type[numbers]


def first_of_each(columns: Sequence[npt.NDArray[Any]]) -> npt.NDArray[np.bool_]:
    """Which rows are the first among equals in all columns.

    Args:
        columns: each of shape (n,).

    Returns:
        shape (n,).
    """
    order = np.lexsort(columns[::-1])
    new = np.zeros(len(order), dtype=bool)
    new[:1] = True
    for column in columns:
        ordered = column[order]
        new[1:] |= ordered[1:] != ordered[:-1]
    keep = np.zeros(len(order), dtype=bool)
    # lexsort is stable, so the first of each group in its order is the first in the log.
    keep[order[new]] = True
    return keep


def core(users: Numbers, items: Numbers, min_user: int, min_item: int) -> npt.NDArray[np.bool_]:
    """Which rows are left when no user has fewer than `min_user` rows and no item fewer than `min_item`.

    Leaving out an item takes rows from users, and so on: repeated until nothing changes, which is the
    core of the graph of users and items, a row being an edge (Batagelj & Zaveršnik 2003, arXiv:cs/0310049;
    for two sides Cerinšek & Batagelj, Social Networks 2015). It is the same in whatever order it is done.

    Args:
        users: user number of each row, shape (n,).
        items: item number of each row, shape (n,).

    Returns:
        shape (n,).
    """
    keep = np.ones(len(users), dtype=bool)
    while len(users):
        enough = (np.bincount(users) >= min_user)[users] & (np.bincount(items) >= min_item)[items]
        if enough.all():
            break
        keep[keep] = enough
        users, items = users[enough], items[enough]
    return keep


def decay(timestamps: npt.NDArray[np.int64], half_life: timedelta) -> npt.NDArray[np.float32]:
    """2^(-age / half_life) of each row, 1 for the newest one; never 0, which would be no interaction.

    Args:
        timestamps: microseconds, shape (n,).

    Returns:
        float32, shape (n,), in (0, 1].
    """
    factors: npt.NDArray[np.float64] = (timestamps - timestamps.max()) / (half_life / timedelta(microseconds=1))
    np.exp2(factors, out=factors)
    np.maximum(factors, np.finfo(np.float32).tiny, out=factors)
    return factors.astype(np.float32)
