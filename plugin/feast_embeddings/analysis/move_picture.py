"""A picture of how far groups moved between two versions: their members, next to their means."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from feast_embeddings.errors import import_extra
from feast_embeddings.offline.segment_diff import SegmentMoves

__all__ = ["draw_moves"]


def draw_moves(moves: SegmentMoves, heading: str, file: BinaryIO) -> None:
    """Write a PNG.

    Raises:
        MissingExtraError: the extra ``charts`` is not installed.
    """
    figures = import_extra("matplotlib.figure", "drawing moves", "charts")
    found = moves.segments
    figure = figures.Figure(figsize=(13, max(4, 1.5 + 0.3 * len(found))), layout="constrained")
    members, means = figure.subplots(1, 2, sharey=True)
    # Names come from the data: a dollar sign is no formula.
    names = [f"{each.name[:30]} ({each.size:,})".replace("$", r"\$") for each in found]
    places = np.arange(len(found))
    members.barh(places, [each.move for each in found], label="mean of the members")
    most = [each.move_p95 for each in found]
    members.vlines(most, places - 0.4, places + 0.4, color="black", label="95 % of the members moved less")
    members.set(yticks=places, yticklabels=names, xlabel="cosine distance from the old vector", xlim=(0, None))
    members.set_title(heading.replace("$", r"\$"))
    members.invert_yaxis()
    means.barh(places, [each.mean_move for each in found], color="silver")
    means.set(xlabel="distance from the old mean", xlim=(0, None))
    figure.legend(loc="outside lower left")
    figure.savefig(file, format="png", dpi=130)
