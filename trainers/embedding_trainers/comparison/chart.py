"""Draw quality against the CPU time of the training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, BinaryIO

from embedding_trainers.comparison.paired import OBJECTIVE, Row
from embedding_trainers.extra import import_extra

__all__ = ["draw", "import_figure"]


def import_figure() -> Any:
    """Import what draws.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    return import_extra("matplotlib.figure", "drawing a chart", "charts")


def draw(title: str, rows: Sequence[Row], file: BinaryIO) -> None:
    """Write a PNG with a point and its 95 % interval for each trainer.

    Args:
        title: on what they were compared.
        rows: of trainers, as versions have no CPU time.
        file: to write to.
    """
    figure = import_figure().Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        score = row.scores[OBJECTIVE]
        ends = [[score.value - score.low], [score.high - score.value]] if score.low is not None and score.high else None
        axes.errorbar([row.cpu_seconds], [score.value], yerr=ends, fmt="o", capsize=3)
        axes.annotate(row.name, (row.cpu_seconds, score.value), xytext=(6, 6), textcoords="offset points")
    # Trainers may differ a hundredfold.
    axes.set(xscale="log", xlabel="CPU seconds of the training", ylabel=f"{OBJECTIVE}, 95 % interval")
    plain = import_extra("matplotlib.ticker", "drawing a chart", "charts").LogFormatter
    axes.xaxis.set_major_formatter(plain())
    axes.xaxis.set_minor_formatter(plain())
    axes.margins(x=0.15)
    axes.set_title(title, fontsize="medium", wrap=True)
    figure.savefig(file, format="png", dpi=150)
