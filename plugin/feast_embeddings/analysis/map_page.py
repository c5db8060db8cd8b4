"""A map as one HTML file that needs no network: WebGL, with search, a legend to filter by, and titles."""

from __future__ import annotations

import base64
import json
import re
from collections import Counter
from datetime import datetime
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from feast_embeddings.analysis.members import Members
from feast_embeddings.artifact.saved_map import Label, SavedMap

__all__ = ["OTHER", "drawn_map", "group_names", "map_page"]

OTHER, _NONE = "other", "none"
_MOST_GROUPS, _RANGES = 20, 8
_SCRIPTS = ("colours.js", "painter.js", "stepping.js", "map.js")


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
        return _ranges(values)
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


def _ranges(values: list[Any]) -> tuple[list[str], npt.NDArray[np.uint8]]:
    numbers = np.array([np.nan if value is None else value for value in values], np.float64)
    known = ~np.isnan(numbers)
    # Each range begins with a value that there is, so that none is empty.
    starts = np.unique(np.quantile(numbers[known], np.arange(_RANGES) / _RANGES, method="higher"))
    place = np.searchsorted(starts, numbers, side="right") - 1
    names = [f"{starts[i]:.6g} to {numbers[known & (place == i)].max():.6g}" for i in range(len(starts))]
    if not known.all():
        names.append(_NONE)
        place = np.where(known, place, len(names) - 1)
    return names, place.astype(np.uint8)


def drawn_map(
    members: Members,
    places: npt.NDArray[np.float64],
    titles: list[str],
    groups: tuple[list[str], npt.NDArray[np.uint8]],
    segments: tuple[npt.NDArray[np.int64], dict[int, str]] | None = None,
) -> SavedMap:
    """Return what a map shows.

    Args:
        members: n users or items.
        places: shape (n, 2).
        titles: what to say of each point, next to its id.
        groups: as `group_names` returns them.
        segments: the number of each member's segment, and the name of each, to write in their midst.
    """
    return SavedMap(members.ids, places, titles, *groups, _labels(places, segments))


def map_page(members: Members, drawn: SavedMap, heading: str, hidden: list[int]) -> str:
    """Return the page of a map of these members; `hidden` are the rows of those that answers leave out."""
    data = {
        "id": members.id_name,
        "ids": [str(id) for id in drawn.ids.to_pylist()],
        "titles": drawn.titles,
        "labels": drawn.labels,
        "hidden": hidden,
        "vectors": base64.b64encode(np.rint(members.unit * 32767).astype("<i2").tobytes()).decode(),
        "groups": drawn.groups,
        "places": base64.b64encode(drawn.places.astype("<f4").tobytes()).decode(),
        "numbers": base64.b64encode(drawn.numbers.tobytes()).decode(),
    }
    # In a script element, "</script>" and "<!--" would end or change it; U+003C is the same character to JSON.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    own = files("feast_embeddings.analysis")
    style, *scripts = (own.joinpath("drawing", name).read_text("utf-8") for name in ("map.css", *_SCRIPTS))
    # One script has no need to import its parts.
    script = re.sub(r"^import .*\n", "", "\n".join(scripts), flags=re.MULTILINE)
    page = own.joinpath("map.html").read_text("utf-8").replace("/*STYLE*/", style).replace("/*DRAWING*/", script)
    before, after = page.split("/*DATA*/")
    return before.replace("HEADING", escape(heading)) + text + after


def _labels(
    places: npt.NDArray[np.float64], segments: tuple[npt.NDArray[np.int64], dict[int, str]] | None
) -> list[Label]:
    """Return the place and name of each segment: its member that is nearest to the median, so that it is among them."""
    if segments is None:
        return []
    numbers, names = segments
    labels = []
    for number, name in names.items():
        own = places[numbers == number]
        x, y = own[np.linalg.norm(own - np.median(own, axis=0), axis=1).argmin()]
        labels.append((float(x), float(y), name))
    return labels
