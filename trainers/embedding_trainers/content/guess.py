"""Guess from a table which of its columns are content, and why the others are not."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.content.spec import ContentColumn, Kind

__all__ = ["Guess", "guess_content"]

_FEW = 20  # values: always a category
_FEW_SHARE = 0.2  # of the rows: as many values as this are still a category
_MANY_SHARE = 0.5  # of the rows: as many values as this are no longer one
_TEXT_WORDS = 1.5  # in the mean: titles have more, codes have one
_MOST_ROWS = 100_000  # that are looked at
_URL = r"^[a-z][a-z0-9+.-]*://"


@dataclass(frozen=True)
class Guess:
    """What was guessed.

    Attributes:
        content: the columns to use, in the order of the table.
        left_out: why each other column is not used, by name.
    """

    content: tuple[ContentColumn, ...]
    left_out: dict[str, str]


def guess_content(table: pa.Table) -> Guess:
    """Guess by types and by values; the column of ids should not be among them.

    Few distinct values are a category, texts of several words are text, lists of values are lists, lists of as many
    floats in each row are vectors. What names a row, such as a URL, a code or a number that no other row has, says
    nothing of other rows.
    """
    rows = table.slice(0, _MOST_ROWS)
    content, left_out = [], {}
    for name in table.column_names:
        kind, reason = _kind(rows[name])
        if kind is None:
            left_out[name] = reason
        else:
            content.append(ContentColumn(name, kind))
    return Guess(tuple(content), left_out)


def _kind(column: pa.ChunkedArray) -> tuple[Kind | None, str]:
    """The kind, or None and why."""
    dtype, values = column.type, column.drop_null()
    if pa.types.is_dictionary(dtype):
        return _kind(column.cast(dtype.value_type))
    if not len(values):
        return None, "no row has a value"
    if pa.types.is_temporal(dtype):
        return None, "times are not content"
    if _is_list(dtype):
        return _kind_of_lists(values)
    if not (_is_text(dtype) or pa.types.is_boolean(dtype) or _is_number(dtype)):
        return None, f"values of type {dtype} cannot be encoded"
    distinct = pc.count_distinct(values).as_py()
    if distinct == 1 and not column.null_count:
        return None, "all rows have the same value"
    if pa.types.is_boolean(dtype):
        return "category", ""
    if _is_number(dtype):
        if pa.types.is_integer(dtype) and distinct == len(values) > _FEW:
            return None, "no two rows have the same number, as ids do"
        return "number", ""
    return _kind_of_text(values, distinct)


def _kind_of_text(values: pa.ChunkedArray, distinct: int) -> tuple[Kind | None, str]:
    if pc.mean(pc.match_substring_regex(values, _URL, ignore_case=True)).as_py() > 0.5:
        return None, "URLs are not content"
    words = pc.mean(pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(values)))).as_py()
    if distinct <= _FEW_SHARE * len(values) or (distinct <= _FEW and words < _TEXT_WORDS):
        return "category", ""
    if words >= _TEXT_WORDS:
        return "text", ""
    if distinct > _MANY_SHARE * len(values):
        return None, "almost every row has a different value, as with ids"
    return "category", ""


def _kind_of_lists(values: pa.ChunkedArray) -> tuple[Kind | None, str]:
    element = values.type.value_type
    if pa.types.is_floating(element):
        sizes = pc.unique(pc.list_value_length(values))
        if len(sizes) == 1:
            return "vector", ""
        return None, f"vectors of {pc.min(sizes)} to {pc.max(sizes)} numbers have no common length"
    if _is_text(element) or pa.types.is_integer(element):
        return "list", ""
    return None, f"lists of type {element} cannot be encoded"


def _is_text(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_string(dtype) or pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype))


def _is_number(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_integer(dtype) or pa.types.is_floating(dtype) or pa.types.is_decimal(dtype))


def _is_list(dtype: pa.DataType) -> bool:
    return bool(pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype))
