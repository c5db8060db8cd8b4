"""A picture of cohorts: how far each is from the others, next to chance, and the distances between them."""

from __future__ import annotations

from typing import BinaryIO

import numpy as np

from feast_embeddings.analysis.cohorts import Cohorts
from feast_embeddings.analysis.members import Members
from feast_embeddings.errors import import_extra

__all__ = ["draw_cohorts"]


def draw_cohorts(members: Members, found: Cohorts, file: BinaryIO) -> None:
    """Write a PNG.

    Raises:
        MissingExtraError: the extra ``charts`` is not installed.
    """
    figures = import_extra("matplotlib.figure", "drawing cohorts", "charts")
    n = len(found.cohorts)
    figure = figures.Figure(figsize=(13, max(4, 1.5 + 0.3 * n)), layout="constrained")
    bars, matrix = figure.subplots(1, 2, width_ratios=[3, 2])
    # Names come from the data: a dollar sign is no formula.
    names = [f"{each.name[:30]} ({each.size:,})".replace("$", r"\$") for each in found.cohorts]
    places = np.arange(n)
    colours = ["tab:blue" if each.p < 0.05 else "silver" for each in found.cohorts]
    bars.barh(places, [each.distance for each in found.cohorts], color=colours)
    chance = [each.chance for each in found.cohorts]
    bars.vlines(chance, places - 0.4, places + 0.4, color="black", label="95 % of random cohorts of that size")
    bars.set(yticks=places, yticklabels=names, xlabel="distance from all others", xlim=(0, None))
    bars.invert_yaxis()
    figure.legend(loc="outside lower left")
    bars.set_title(f"{members.entity}s of version {members.version} by {found.by}".replace("$", r"\$"))
    picture = matrix.imshow(found.distances, cmap="viridis")
    matrix.set(xticks=[], yticks=places, yticklabels=[each.name[:20].replace("$", r"\$") for each in found.cohorts])
    matrix.set_title("distances between cohorts")
    figure.colorbar(picture, ax=matrix)
    figure.savefig(file, format="png", dpi=130)
