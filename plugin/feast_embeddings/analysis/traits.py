"""What sets groups of users or items apart: values of attributes that are more common in a group than in all."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.analysis.members import Members, attribute_names

__all__ = ["Trait", "Values", "attribute_values", "seen_values", "traits_of"]

# A column with more distinct values names single rows, as titles do.
_MOST_VALUES = 1000
_FEWEST = 2
# A value that is this little more common than in all says nothing.
_LEAST_LIFT = 1.2


@dataclass(frozen=True)
class Trait:
    """A value, its share in the group, and how many times its share in all that is."""

    attribute: str
    value: Any
    share: float
    lift: float

    def __str__(self) -> str:
        return f"{self.attribute} {self.value}"


@dataclass(frozen=True)
class Values:
    """The values of an attribute: row `rows[i]` has `values[i]`; a row may have several values, or none."""

    attribute: str
    rows: npt.NDArray[np.int64]
    values: pa.Array


def attribute_values(members: Members) -> Iterator[Values]:
    """Yield the attributes with words: text, truth values, and lists of text."""
    for name in attribute_names(members):
        found = _values(name, members.table[name].combine_chunks())
        if found is not None:
            yield found


def seen_values(users: Members, items: Members) -> Iterator[Values]:
    """Yield what users have seen: the items, by id, and the values of those items' attributes."""
    if "seen_items" not in users.table.column_names:
        return
    lists = users.table["seen_items"].combine_chunks()
    rows, seen = _flat(lists)
    yield Values("saw", rows, seen)
    places = pc.index_in(seen, value_set=items.ids)
    known = places.is_valid().to_numpy(zero_copy_only=False)
    numbers, rows = places.drop_null().to_numpy().astype(np.int64), rows[known]
    for each in attribute_values(items):
        # Items in the order of `each.rows`, which ascend; an item's values are then one slice.
        starts = np.searchsorted(each.rows, np.arange(len(items) + 1))
        counts = np.diff(starts)[numbers]
        first = np.repeat(starts[numbers] - np.cumsum(counts) + counts, counts)
        yield Values(
            f"saw {each.attribute}", np.repeat(rows, counts), each.values.take(pa.array(first + np.arange(len(first))))
        )


def traits_of(groups: npt.NDArray[np.int64], n_groups: int, attributes: Iterator[Values]) -> list[list[Trait]]:
    """Return the traits of each group, the most telling first.

    A trait's weight is its share in the group times the logarithm of its lift: the class-based TF-IDF of Grootendorst
    (BERTopic, 2022), with shares in place of counts.

    Args:
        groups: of each row, from 0; -1 for none.
    """
    found: list[list[tuple[float, Trait]]] = [[] for _ in range(n_groups)]
    for each in attributes:
        encoded = each.values.dictionary_encode()
        names, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
        of = groups[each.rows]
        codes, of = codes[of >= 0], of[of >= 0]
        if len(codes) == 0:
            continue
        counts = np.bincount(of * len(names) + codes, minlength=n_groups * len(names)).reshape(n_groups, -1)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        lifts = shares / np.maximum(counts.sum(axis=0) / len(codes), 1e-12)
        for group, value in np.argwhere((counts >= _FEWEST) & (lifts >= _LEAST_LIFT)).tolist():
            share, lift = float(shares[group, value]), float(lifts[group, value])
            found[group].append((share * np.log(lift), Trait(each.attribute, names[value], share, lift)))
    return [[trait for _, trait in sorted(traits, key=lambda pair: (-pair[0], str(pair[1])))][:10] for traits in found]


def _values(name: str, column: pa.Array) -> Values | None:
    rows, values = _flat(column)
    dtype = values.type
    if not (pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_boolean(dtype)):
        return None
    if len(values) == 0 or len(pc.unique(values)) > min(_MOST_VALUES, max(len(column) // 2, 2)):
        return None
    return Values(name, rows, values)


def _flat(column: pa.Array) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """Return row numbers, ascending, and values, without nulls; a list gives several."""
    dtype = column.type
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        rows, values = pc.list_parent_indices(column).to_numpy().astype(np.int64), column.flatten()
    else:
        rows, values = np.arange(len(column)), column
    there = values.is_valid()
    return rows[there.to_numpy(zero_copy_only=False)], values.filter(there)
