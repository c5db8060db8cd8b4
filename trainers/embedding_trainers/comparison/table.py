"""A comparison as a table in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from embedding_trainers.comparison.paired import OBJECTIVE, Row
from embedding_trainers.evaluation import Estimate
from embedding_trainers.evaluation.report import HEADLINE

__all__ = ["markdown"]

_TITLES = {name: name.replace("ndcg", "NDCG").replace("recall", "Recall") for name in HEADLINE}


def markdown(kind: str, title: str, rows: Sequence[Row]) -> str:
    """Return lines without a trailing newline.

    Args:
        kind: what a row is: trainer or version.
        title: on what they were compared.
        rows: the best first.
    """
    trained = rows[0].cpu_seconds is not None
    heads = [kind, *_TITLES.values(), "95 % interval"]
    heads += ["CPU s", "memory MiB"] if trained else []
    heads += ["to the best", "95 % interval", ""]
    lines = [heads, ["---"] + ["---:"] * (len(heads) - 2) + ["---"]]
    lines += [_cells(row) for row in rows]
    table = ["| " + " | ".join(cells) + " |" for cells in lines]
    legend = [
        f"to the best: difference in {_TITLES[OBJECTIVE]} to the first row, with the interval of a paired bootstrap"
    ]
    if any(row.verdict == "noise" for row in rows):
        legend.append("noise: that interval contains 0, so the difference may be chance")
    return "\n".join([title, "", *table, "", *legend])


def _cells(row: Row) -> list[str]:
    score, difference = row.scores[OBJECTIVE], row.differences[OBJECTIVE]
    cells = [row.name, *(f"{each.value:.4f}" for each in row.scores.values()), _interval(score)]
    if row.cpu_seconds is not None and row.memory_mib is not None:
        cells += [f"{row.cpu_seconds:,.1f}", f"{row.memory_mib:,.0f}"]
    is_best = row.verdict == "best"
    return cells + (["", ""] if is_best else [f"{difference.value:+.4f}", _interval(difference, "+")]) + [row.verdict]


def _interval(estimate: Estimate, sign: str = "") -> str:
    return f"{estimate.low:{sign}.4f} – {estimate.high:{sign}.4f}"
