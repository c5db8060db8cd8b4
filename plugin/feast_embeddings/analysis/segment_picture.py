"""A picture of segments: the two main directions of the vectors, coloured by segment, and the sizes."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from feast_embeddings.analysis.members import Members
from feast_embeddings.analysis.segments import Segments
from feast_embeddings.errors import import_extra

__all__ = ["draw_segments"]

_MOST_POINTS = 20_000


def draw_segments(members: Members, found: Segments, file: BinaryIO) -> None:
    """Write a PNG.

    Raises:
        MissingExtraError: the extra ``charts`` is not installed.
    """
    figures = import_extra("matplotlib.figure", "drawing segments", "charts")
    colours = import_extra("matplotlib", "drawing segments", "charts").colormaps["tab20"]
    centred = members.unit - members.unit.mean(axis=0)
    _, _, directions = np.linalg.svd(centred[: _MOST_POINTS * 5], full_matrices=False)
    places = centred @ directions[:2].T
    if places.shape[1] < 2:  # vectors of one number
        places = np.column_stack([places, np.zeros(len(places))])
    figure = figures.Figure(figsize=(12, 6), layout="constrained")
    scatter, bars = figure.subplots(1, 2, width_ratios=[2, 1])
    shown = np.random.default_rng(0).permutation(len(members))[:_MOST_POINTS]
    scatter.scatter(*places[shown[found.numbers[shown] == 0]].T, s=3, linewidths=0, color="0.8")
    for place, each in enumerate(found.segments):
        own = shown[found.numbers[shown] == each.number]
        scatter.scatter(*places[own].T, s=6, linewidths=0, alpha=0.6, color=colours(place % 20))
        scatter.annotate(str(each.number), np.median(places[found.numbers == each.number], axis=0), weight="bold")
    scatter.set(xticks=[], yticks=[], title=f"{len(members):,} {members.entity}s of version {members.version}")
    labels = [f"{each.number}: {each.name}"[:50] for each in found.segments]
    # Names come from the data: a dollar sign is no formula.
    labels = [label.replace("$", r"\$") for label in labels]
    bars.barh(labels, [each.size for each in found.segments], color=[colours(i % 20) for i in range(len(labels))])
    bars.invert_yaxis()
    bars.set(title="size")
    figure.savefig(file, format="png", dpi=150)
