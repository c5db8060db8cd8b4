"""Attribute columns of every Arrow type: the same values in a type that can be served, or one clear error."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from feast_embeddings.artifact.attributes import normalise_attributes
from feast_embeddings.errors import InputError

LISTS = [["a"], ["b", "c"], None, [], ["d"]]


def served(column: pa.Array) -> pa.ChunkedArray:
    """The column as it is served."""
    return normalise_attributes(pa.table({"x": column}), source="items")["x"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array(LISTS, pa.list_view(pa.string())),
        pa.array(LISTS, pa.large_list_view(pa.string_view())),
        pa.array(LISTS, pa.list_(pa.string_view())),
        pa.array(LISTS, pa.large_list(pa.large_string())),
        pa.ListArray.from_arrays([0, 1, 3, 3], pa.array(["a", "b", "a"]).dictionary_encode()),
        pa.ListViewArray.from_arrays([3, 0, 0], [1, 2, 3], pa.array([1, 2, 3, 4])),
        pa.array(["a", None, "b"], pa.string_view()),
        pa.array(["a", None, "b"]).dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([0, 1, None]), pa.array(["x", None])),
        pa.array([5, None], pa.uint64()),
    ],
    ids=lambda column: str(column.type),
)
def test_layouts(column: pa.Array) -> None:
    """No value is lost, wherever the column is cut."""
    for part in (column, column[1:], column[:2]):
        assert served(part).to_pylist() == part.to_pylist()


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([2**64 - 1, 1], pa.uint64()), ["18446744073709551615", "1"]),
        (pa.array([Decimal(1200)], pa.decimal128(5, -2)), [1200]),
        (pa.array([Decimal(10**40)], pa.decimal256(50, 0)), [str(10**40)]),
        (pa.array([1999], pa.timestamp("ns", "America/New_York")), [datetime(1970, 1, 1, tzinfo=UTC)]),
        (pa.array([-1], pa.timestamp("us")), [datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)]),
        (pa.array([1_999_999, None], pa.timestamp("us")), [datetime(1970, 1, 1, second=1, tzinfo=UTC), None]),
        (pa.array([10**9], pa.timestamp("s")), [datetime(2001, 9, 9, 1, 46, 40, tzinfo=UTC)]),
        (pa.array([datetime.max]), [datetime.max.replace(tzinfo=UTC, microsecond=0)]),
    ],
    ids=str,
)
def test_numbers_and_times(column: pa.Array, expected: list[Any]) -> None:
    """Whole numbers beyond 64 bits are text; times are cut to whole seconds, as Feast serves them."""
    assert served(column).to_pylist() == expected


@pytest.mark.parametrize("dtype", [pa.timestamp("s"), pa.timestamp("us"), pa.date32()], ids=str)
def test_times_beyond_the_year_9999(dtype: pa.DataType) -> None:
    """They are an error, and no other time."""
    with pytest.raises(InputError, match=r"column 'x'.*correct (it|them), or leave the column out"):
        served(pa.array([0, 2**30 if dtype == pa.date32() else 2**60], dtype))
