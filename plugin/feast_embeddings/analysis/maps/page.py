"""A map as one HTML file that needs no network: WebGL, with search, a legend to filter by, and titles."""

from __future__ import annotations

import base64
import json
import re
from html import escape
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from feast_embeddings.analysis.members import Members
from feast_embeddings.artifact.saved_map import Colouring, Label, SavedMap

__all__ = ["drawn_map", "map_page"]

_SCRIPTS = ("elements.js", "audience.js", "colours.js", "painter.js", "stepping.js", "map.js")


def drawn_map(
    members: Members,
    places: npt.NDArray[np.float64],
    titles: list[str],
    colourings: list[Colouring],
    segments: tuple[npt.NDArray[np.int64], dict[int, str]] | None = None,
) -> SavedMap:
    """Return what a map shows.

    Args:
        members: n users or items.
        places: shape (n, 2).
        titles: what to say of each point, next to its id.
        colourings: one at least.
        segments: the number of each member's segment, and the name of each, to write in their midst.
    """
    return SavedMap(members.ids, places, titles, colourings, _labels(places, segments))


def map_page(members: Members, drawn: SavedMap, heading: str, hidden: list[int]) -> str:
    """Return the page of a map of these members; `hidden` are the rows of those that answers leave out."""
    data = {
        "id": members.id_name,
        "ids": [str(id) for id in drawn.ids.to_pylist()],
        "titles": drawn.titles,
        "labels": drawn.labels,
        "hidden": hidden,
        "vectors": base64.b64encode(np.rint(members.unit * 32767).astype("<i2").tobytes()).decode(),
        "colorings": [
            {"name": each.name, "groups": each.groups, "numbers": base64.b64encode(each.numbers.tobytes()).decode()}
            for each in drawn.colourings
        ],
        "places": base64.b64encode(drawn.places.astype("<f4").tobytes()).decode(),
    }
    # In a script element, "</script>" and "<!--" would end or change it; U+003C is the same character to JSON.
    text = json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")
    own = files("feast_embeddings.analysis")
    style, *scripts = (own.joinpath("drawing", name).read_text("utf-8") for name in ("map.css", *_SCRIPTS))
    # One script has no need to import its parts.
    script = re.sub(r"^import .*\n", "", "\n".join(scripts), flags=re.MULTILINE)
    page = (
        own.joinpath("drawing", "map.html")
        .read_text("utf-8")
        .replace("/*STYLE*/", style)
        .replace("/*DRAWING*/", script)
    )
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
