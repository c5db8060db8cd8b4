"""A map as one HTML file that needs no network: WebGL, with search, a legend to filter by, and titles."""

from __future__ import annotations

import base64
import json
from collections import Counter
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from feast_embeddings.analysis.members import Members

__all__ = ["OTHER", "group_names", "map_page"]

OTHER = "other"
_MOST_GROUPS = 20


def group_names(values: list[Any]) -> tuple[list[str], npt.NDArray[np.uint8]]:
    """Return the most common values as text, and which of them each row has; the rest are one group, the last."""
    texts = ["none" if value is None else str(value) for value in values]
    common = [text for text, _ in sorted(Counter(texts).items(), key=lambda pair: (-pair[1], pair[0]))]
    names = common if len(common) <= _MOST_GROUPS else [*common[: _MOST_GROUPS - 1], OTHER]
    places = {text: place for place, text in enumerate(names)}
    return names, np.array([places.get(text, len(names) - 1) for text in texts], np.uint8)


def map_page(
    members: Members,
    places: npt.NDArray[np.float64],
    titles: list[str],
    groups: tuple[list[str], Any],
    heading: str,
    segments: tuple[npt.NDArray[np.int64], dict[int, str]] | None = None,
) -> str:
    """Return the page.

    Args:
        members: n users or items.
        places: shape (n, 2).
        titles: what to say of each point, next to its id.
        groups: as `group_names` returns them.
        segments: the number of each member's segment, and the name of each, to write in their midst.
    """
    low, high = places.min(axis=0), places.max(axis=0)
    scaled = (places - (low + high) / 2) / max(float((high - low).max()) / 1.9, 1e-12)
    names, numbers = groups
    data = {
        "id": members.id_name,
        "ids": [str(id) for id in members.ids.to_pylist()],
        "titles": titles,
        "labels": _labels(scaled, segments),
        "vectors": base64.b64encode(np.rint(members.unit * 32767).astype("<i2").tobytes()).decode(),
        "groups": names,
        "places": base64.b64encode(scaled.astype("<f4").tobytes()).decode(),
        "numbers": base64.b64encode(numbers.tobytes()).decode(),
    }
    # In a script element, "</script>" and "<!--" would end or change it; U+003C is the same character to JSON.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    template = files("feast_embeddings.analysis").joinpath("map.html").read_text("utf-8")
    before, after = template.split("/*DATA*/")
    return before.replace("HEADING", escape(heading)) + text + after


def _labels(
    places: npt.NDArray[np.float64], segments: tuple[npt.NDArray[np.int64], dict[int, str]] | None
) -> list[tuple[float, float, str]]:
    """Return the place and name of each segment: its member that is nearest to the median, so that it is among them."""
    labels = []
    for number, name in segments[1].items() if segments is not None else ():
        own = places[segments[0] == number]  # type: ignore[index]
        x, y = own[np.linalg.norm(own - np.median(own, axis=0), axis=1).argmin()]
        labels.append((float(x), float(y), name))
    return labels
