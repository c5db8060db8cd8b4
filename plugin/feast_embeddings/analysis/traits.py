"""What sets groups of users or items apart: values and words that are more common in a group than in all."""

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
_NO_WORD = r"[^\p{L}\p{N}]+"
_SHORTEST = 2
_FEWEST = 2
# A value that is this little more common than in all says nothing.
_LEAST_LIFT = 1.2
# Words such as "the" are a little more common in some groups by chance.
_LEAST_LIFT_OF_TERM = 1.5
# Texts of fewer words on average are codes or names.
_FEWEST_WORDS = 1.5


@dataclass(frozen=True)
class Trait:
    """A value or word, its share in the group, and how many times its share in all that is."""

    attribute: str
    value: Any
    share: float
    lift: float

    def __str__(self) -> str:
        return f"{self.attribute} {self.value}"


@dataclass(frozen=True)
class Values:
    """The values of an attribute: row `rows[i]` has `values[i]`; a row may have several values, or none.

    They are `terms` if they are words of text, each once a row, or items: each is of few rows.
    """

    attribute: str
    rows: npt.NDArray[np.int64]
    values: pa.Array
    terms: bool = False


def attribute_values(members: Members) -> Iterator[Values]:
    """Yield text, truth values and lists of text; of text that differs from row to row, such as titles, the words."""
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
    yield Values("saw", rows, seen, terms=True)
    places = pc.index_in(seen, value_set=items.ids)
    known = places.is_valid().to_numpy(zero_copy_only=False)
    numbers, rows = places.drop_null().to_numpy().astype(np.int64), rows[known]
    for each in attribute_values(items):
        # Items in the order of `each.rows`, which ascend; an item's values are then one slice.
        starts = np.searchsorted(each.rows, np.arange(len(items) + 1))
        counts = np.diff(starts)[numbers]
        first = np.repeat(starts[numbers] - np.cumsum(counts) + counts, counts)
        of_seen = each.values.take(pa.array(first + np.arange(len(first))))
        yield Values(f"saw {each.attribute}", np.repeat(rows, counts), of_seen, each.terms)


def traits_of(groups: npt.NDArray[np.int64], n_groups: int, attributes: Iterator[Values]) -> list[list[Trait]]:
    """Return the traits of each group, the most telling first.

    Values come before terms. The weight of a value is its share in the group times the logarithm of its lift. The
    weight of a term is its class-based TF-IDF (Grootendorst, BERTopic, 2022): its share × log(1 + A / f), where A is
    the mean number of terms of a group, and f how often the term is in all groups.

    Args:
        groups: of each row, from 0; -1 for none.
    """
    found: list[list[tuple[bool, float, Trait]]] = [[] for _ in range(n_groups)]
    for each in attributes:
        encoded = each.values.dictionary_encode()
        names, codes = encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
        of = groups[each.rows]
        codes, of = codes[of >= 0], of[of >= 0]
        if len(codes) == 0:
            continue
        counts = np.bincount(of * len(names) + codes, minlength=n_groups * len(names)).reshape(n_groups, -1)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        totals = counts.sum(axis=0)
        lifts = shares / np.maximum(totals / len(codes), 1e-12)
        told, value = np.nonzero((counts >= _FEWEST) & (lifts >= (_LEAST_LIFT_OF_TERM if each.terms else _LEAST_LIFT)))
        share, lift = shares[told, value], lifts[told, value]
        weight = share * (np.log1p(len(codes) / n_groups / totals[value]) if each.terms else np.log(lift))
        columns = (column.tolist() for column in (told, value, share, lift, weight))
        for group, code, its_share, its_lift, its_weight in zip(*columns, strict=True):
            found[group].append((each.terms, -its_weight, Trait(each.attribute, names[code], its_share, its_lift)))
    return [
        [trait for *_, trait in sorted(traits, key=lambda each: (*each[:2], str(each[2])))][:10] for traits in found
    ]


def _values(name: str, column: pa.Array) -> Values | None:
    rows, values = _flat(column)
    dtype = values.type
    if not (pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_boolean(dtype)):
        return None
    if len(values) == 0:
        return None
    if len(pc.unique(values)) <= min(_MOST_VALUES, max(len(column) // 2, 2)):
        return Values(name, rows, values)
    return _words(name, rows, values)  # truth values are never that many


def _words(name: str, rows: npt.NDArray[np.int64], texts: pa.Array) -> Values | None:
    parts = pc.split_pattern_regex(pc.utf8_lower(texts), _NO_WORD)
    words = parts.flatten()
    long = pc.greater_equal(pc.utf8_length(words), _SHORTEST)
    of = rows[pc.list_parent_indices(parts).to_numpy()][long.to_numpy(zero_copy_only=False)]
    encoded = words.filter(long).dictionary_encode()
    n_words = max(len(encoded.dictionary), 1)
    pairs = np.unique(of * n_words + encoded.indices.to_numpy())  # a word counts once a row
    if len(pairs) < _FEWEST_WORDS * len(texts):
        return None
    own = pa.DictionaryArray.from_arrays(pa.array(pairs % n_words, pa.int32()), encoded.dictionary)
    return Values(name, pairs // n_words, own, terms=True)


def _flat(column: pa.Array) -> tuple[npt.NDArray[np.int64], pa.Array]:
    """Return row numbers, ascending, and values, without nulls; a list gives several."""
    dtype = column.type
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype):
        rows, values = pc.list_parent_indices(column).to_numpy().astype(np.int64), column.flatten()
    else:
        rows, values = np.arange(len(column)), column
    there = values.is_valid()
    return rows[there.to_numpy(zero_copy_only=False)], values.filter(there)
