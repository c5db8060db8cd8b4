"""Values as a few groups with a name each, such as those that have one colour on a map."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["OTHER", "group_names", "range_names"]

OTHER, _NONE = "other", "none"
_MOST_GROUPS, _RANGES = 20, 8


def group_names(values: list[Any]) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """Return the most common values as text, and which of them each row has; the rest are one group, the last.

    Times are grouped by month, or by year if there are too many months; numbers of too many values by ranges with
    about as many rows each; these groups are in order. A list counts as the one of its values that most rows have.
    """
    given = [value for value in values if value is not None]
    if given and all(isinstance(value, datetime) for value in given):
        formats = ("%Y-%m", "%Y")
        by = next((f for f in formats if len({value.strftime(f) for value in given}) < _MOST_GROUPS), formats[-1])
        return _in_order([None if value is None else value.strftime(by) for value in values])
    if len(set(map(str, given))) > _MOST_GROUPS and all(_is_number(value) for value in given):
        return range_names(np.array([np.nan if value is None else value for value in values], np.float64))
    if any(isinstance(value, list) for value in given):
        count = Counter(str(each) for value in given for each in set(value))
        values = [min(map(str, value or [_NONE]), key=lambda text: (-count[text], text)) for value in values]
    texts = [_NONE if value is None else str(value) for value in values]
    common = [text for text, _ in sorted(Counter(texts).items(), key=lambda pair: (-pair[1], pair[0]))]
    names = common if len(common) <= _MOST_GROUPS else [*common[: _MOST_GROUPS - 1], OTHER]
    places = {text: place for place, text in enumerate(names)}
    return names, np.array([places.get(text, len(names) - 1) for text in texts], np.uint8)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _in_order(texts: list[str | None]) -> tuple[list[str], npt.NDArray[np.uint8]]:
    names = sorted({text for text in texts if text is not None})[-_MOST_GROUPS + 1 :]
    places = {text: place for place, text in enumerate(names)}
    rest = [text for text in texts if text is None or text not in places]
    if rest:
        names.append(_NONE if all(text is None for text in rest) else OTHER)
    return names, np.array([places.get(text or "", len(names) - 1) for text in texts], np.uint8)


def range_names(numbers: npt.NDArray[np.float64], unknown: str = _NONE) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """Return ranges with about as many numbers each, and which of them each is in; nan is in a group of its own."""
    known = ~np.isnan(numbers)
    # Each range begins with a value that there is, so that none is empty.
    starts = np.unique(np.quantile(numbers[known], np.arange(_RANGES) / _RANGES, method="higher"))
    place = np.searchsorted(starts, numbers, side="right") - 1
    names = [f"{starts[i]:.6g} to {numbers[known & (place == i)].max():.6g}" for i in range(len(starts))]
    if not known.all():
        names.append(unknown)
        place = np.where(known, place, len(names) - 1)
    return names, place.astype(np.uint8)
