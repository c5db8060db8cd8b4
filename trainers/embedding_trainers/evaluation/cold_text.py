"""A report on hidden items or users as a table to read."""

from __future__ import annotations

from embedding_trainers.evaluation.cold import ColdReport
from embedding_trainers.evaluation.report import HEADLINE

__all__ = ["cold_text"]


def cold_text(name: str, report: ColdReport) -> str:
    """Lines without a trailing newline.

    Args:
        name: of the trainer.
        report: what came out.
    """
    entity, metric = report.entity, HEADLINE[0]
    ranked = f"the hidden {entity}s" if entity == "item" else "the trained items"
    lines = [
        f"{name} on {report.n_hidden:,} hidden {entity}s, trained on the {report.n_trained:,} others",
        f"  n of its interactions are given of each, {metric} is of its others, when users rank {ranked}",
    ]
    if report.content:
        lines.append(f"  content: {','.join(report.content)}; it counts as much as {report.strength:g} interactions")
    rankings = list(dict.fromkeys(ranking for row in report.rows for ranking in row.scores))
    rankings.sort(key=("both", "behaviour", "content", "neighbours", "popular", "random").index)
    head = f"{'n':>4}{entity + 's':>9}{'users':>9}"
    lines += ["", head + "".join(f"{ranking:>12}" for ranking in rankings) + f"  95 % interval of {rankings[0]}"]
    for row in report.rows:
        cells = [row.scores[ranking][metric] if ranking in row.scores else None for ranking in rankings]
        numbers = "".join(f"{'–' if cell is None else f'{cell.value:.4f}':>12}" for cell in cells)
        first = cells[0]
        interval = "" if first is None else f"  {first.low:.4f} – {first.high:.4f}"
        lines.append(f"{row.given:>4}{row.n_hidden:>9,}{row.n_users:>9,}{numbers}{interval}")
    return "\n".join(lines)
