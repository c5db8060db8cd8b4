"""What is in a log, before anyone trains on it: counts, times, bots, duplicates, the long tail, and what to do."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.interactions.log import Interactions, LogReport
from embedding_trainers.interactions.preparation import Preparation, first_of_each
from embedding_trainers.interactions.reading import Columns, Reading, read_raw
from feast_embeddings.artifact.ids import id_column_in, id_names
from feast_embeddings.reading import Source, missing_column, read_table, source_name
from feast_embeddings.times import from_microseconds

__all__ = ["Profile", "profile_log", "several"]

_MOST_SHOWN = 5
_MOST_TYPES = 20
# Which users are worth a look: far more rows than nearly all others have, and many.
_MANY_ROWS = 1_000
_TIMES_OTHERS = 10
_FEW_ROWS = 5
# Of fewer users nothing can be said about users in general.
_FEW_USERS = 20


@dataclass(frozen=True)
class Profile:
    """What a log holds. Rows are good rows, except in `log`.

    Attributes:
        log: how many rows there were, and the faults of the bad ones.
        rows, users, items: how many.
        first, last: times of the oldest and the newest row, ISO 8601; None for a log without times.
        months: rows by month, ``2026-01``, without gaps.
        duplicates: rows that repeat another in user, item and time; without times, in user and item.
        heaviest_users: id and rows of those with most.
        rows_per_user, rows_per_item: at the quantiles 0, .5, .9, .99 and 1.
        users_with_one_row: how many.
        items_with_few_rows: how many have fewer than five.
        top_items_share: share of rows on the 1 % of items that have most.
        event_types: rows by type, most first; empty if no column is named.
        weights: smallest, median and largest, and how many are 0; None if no column is named.
        without_interactions: items of the catalogue that no row has; None without a catalogue.
        not_in_catalogue: items of the log that the catalogue lacks; None without a catalogue.
        suggestions: options, and why.
    """

    log: LogReport
    rows: int
    users: int
    items: int
    first: str | None
    last: str | None
    months: dict[str, int]
    duplicates: int
    heaviest_users: list[tuple[str | int, int]]
    rows_per_user: list[int]
    rows_per_item: list[int]
    users_with_one_row: int
    items_with_few_rows: int
    top_items_share: float
    event_types: dict[str, int]
    weights: dict[str, float] | None
    without_interactions: int | None
    not_in_catalogue: int | None
    suggestions: list[tuple[str, str]] = field(default_factory=list)


def profile_log(
    source: Source, columns: Columns | None = None, reading: Reading | None = None, items: Source | None = None
) -> Profile:
    """Look at a log. Bad rows are counted and left out.

    Args:
        source: see `read_log`.
        columns: what its columns are called.
        reading: how values are understood.
        items: a table with a row for each item that there is, the catalogue.

    Raises:
        InputError: it cannot be read, lacks a column, or has no good row.
    """
    columns = columns or Columns()
    reading = replace(reading or Reading(), on_bad_rows="drop")
    log, events, report = read_raw(source, columns, reading, Preparation())
    by_user, by_item = np.bincount(log.user_numbers), np.bincount(log.item_numbers)
    heaviest = np.argsort(-by_user, kind="stable")[:_MOST_SHOWN]
    alike: list[npt.NDArray[Any]] = [log.user_numbers, log.item_numbers]
    if log.timestamps is not None:
        alike.append(log.timestamps)
    without, strangers = _beside_catalogue(log.items, items, columns.item)
    profile = Profile(
        log=report,
        rows=len(log),
        users=len(log.users),
        items=len(log.items),
        first=None if log.timestamps is None else from_microseconds(int(log.timestamps.min())).isoformat(),
        last=None if log.timestamps is None else from_microseconds(int(log.timestamps.max())).isoformat(),
        months=_months(log),
        duplicates=len(log) - int(first_of_each(alike).sum()),
        heaviest_users=[(log.users[user].as_py(), int(by_user[user])) for user in heaviest.tolist()],
        rows_per_user=_quantiles(by_user),
        rows_per_item=_quantiles(by_item),
        users_with_one_row=int((by_user == 1).sum()),
        items_with_few_rows=int((by_item < _FEW_ROWS).sum()),
        top_items_share=float(np.sort(by_item)[-max(1, len(by_item) // 100) :].sum() / len(log)),
        event_types={} if events is None else _by_type(*events),
        weights=None if log.weights is None else _weights(log.weights),
        without_interactions=without,
        not_in_catalogue=strangers,
    )
    return replace(profile, suggestions=_suggestions(profile, by_user, columns))


def several(count: int, noun: str) -> str:
    """A count with its noun: 1 row, 2,000 rows."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _months(log: Interactions) -> dict[str, int]:
    if log.timestamps is None:
        return {}
    months = log.timestamps.astype("datetime64[us]").astype("datetime64[M]")
    first = months.min()
    counts = np.bincount((months - first).astype(np.int64))
    return {str(first + number): int(count) for number, count in enumerate(counts.tolist())}


def _quantiles(counts: npt.NDArray[np.int64]) -> list[int]:
    found: list[int] = np.quantile(counts, [0, 0.5, 0.9, 0.99, 1], method="lower").astype(int).tolist()
    return found


def _by_type(types: pa.Array, numbers: npt.NDArray[np.int32]) -> dict[str, int]:
    counts = np.bincount(numbers, minlength=len(types))
    order = np.argsort(-counts, kind="stable")
    return {types[number].as_py(): int(counts[number]) for number in order.tolist()}


def _weights(weights: npt.NDArray[np.float32]) -> dict[str, float]:
    smallest, median, largest = (float(value) for value in np.quantile(weights, [0, 0.5, 1]))
    return {"min": smallest, "median": median, "max": largest, "zeros": int((weights == 0).sum())}


def _beside_catalogue(ids: pa.Array, catalogue: Source | None, own_name: str) -> tuple[int | None, int | None]:
    if catalogue is None:
        return None, None
    names = id_names("item", own_name)
    table = read_table(catalogue, ids=names)
    id_column = id_column_in(table.column_names, names, source_name(catalogue))
    if id_column is None:
        raise missing_column(source_name(catalogue), own_name, table.column_names)
    listed = pc.unique(table[id_column])
    known = pc.is_in(ids.cast(pa.string()), value_set=listed)
    both = int(pc.sum(known).as_py() or 0)
    return len(listed) - both, len(ids) - both


def _suggestions(profile: Profile, by_user: npt.NDArray[np.int64], columns: Columns) -> list[tuple[str, str]]:
    found = []
    if profile.log.n_bad:
        found.append(("--on-bad-rows drop", f"{several(profile.log.n_bad, 'row')} cannot be used"))
    if profile.duplicates > profile.rows // 100:
        what = "user, item and time" if profile.first else "user and item, and there are no times to tell them apart"
        found.append(("--drop-duplicates", f"{profile.duplicates:,} rows repeat another in {what}"))
    usual = max(_MANY_ROWS, _TIMES_OTHERS * profile.rows_per_user[3])
    if bots := int((by_user > usual).sum()):
        rows = int(by_user[by_user > usual].sum())
        found.append(
            (
                f"--max-user-interactions {usual}",
                f"{rows / profile.rows:.0%} of all rows are of {several(bots, 'user')}",
            )
        )
    if len(profile.event_types) > 1:
        named = ",".join(f"{name}=1" for name in list(profile.event_types)[:_MOST_TYPES])
        found.append((f"--event-column {columns.event} --event-weights {named}", "give each type what it is worth"))
    if profile.users < _FEW_USERS:
        return found
    if profile.users_with_one_row > profile.users // 3:
        found.append(("--min-user-interactions 2", f"{profile.users_with_one_row:,} users have one row each"))
    if profile.items_with_few_rows > profile.items // 2:
        few = f"{profile.items_with_few_rows:,} items have fewer than {_FEW_ROWS} rows, too few for a good vector"
        found.append((f"--min-item-interactions {_FEW_ROWS}", few))
    return found
