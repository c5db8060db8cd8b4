"""A report as a table to read."""

from __future__ import annotations

from embedding_trainers.evaluation.report import Report, Segment, ranked_users
from embedding_trainers.evaluation.segments import ACTIVITY

__all__ = ["report_text"]

_METRICS = ("recall", "ndcg", "map", "hr", "mrr", "coverage", "gini", "popularity", "novelty", "diversity")


def report_text(name: str, report: Report) -> str:
    """Lines without a trailing newline.

    Args:
        name: what was evaluated.
        report: what came out.
    """
    users = ranked_users(report.n_users, report.of_users)
    lines = [
        f"{name} on {report.method}",
        f"  {users}, {report.n_pairs:,} pairs to predict, {report.n_items:,} items ranked for each",
        f"  left out: {report.left_out}",
    ]
    for k in report.k:
        lines += ["", f"{'':14}{'model':>10}  {'95 % interval':22}{'popular':>10}{'random':>10}"]
        lines += [_metric_line(report, f"{metric}@{k}") for metric in _METRICS]
    lifts = ", ".join(f"{lift:+.0%} at {name.partition('@')[2]}" for name, lift in report.similar_items.items())
    lines += ["", f"popularity of similar items, compared with the items themselves: {lifts}"]
    # One cut-off is enough to see where it is good; --json has all of them.
    k = 20 if 20 in report.k else report.k[0]
    for kind, segments in report.segments.items():
        by = "by training items" if kind == ACTIVITY else f"by {kind}"
        columns = (f"recall@{k}", "popular", f"ndcg@{k}", "popular")
        lines += ["", f"{by:20}{'users':>9}{'items':>12}" + "".join(f"{column:>12}" for column in columns)]
        lines += [_segment_line(segment_name, segment, k) for segment_name, segment in segments.items()]
    return "\n".join(lines)


def _metric_line(report: Report, metric: str) -> str:
    model, popular, random = (report.scores[ranking][metric] for ranking in ("model", "popular", "random"))
    interval = "" if model.low is None or model.high is None else f"{_number(model.low)} – {_number(model.high)}"
    numbers = f"{_number(popular.value):>10}{_number(random.value):>10}"
    return f"{metric:14}{_number(model.value):>10}  {interval:22}{numbers}"


def _segment_line(name: str, segment: Segment, k: int) -> str:
    fewest, most = segment.interactions
    scores = [
        segment.scores[ranking][f"{metric}@{k}"].value
        for metric in ("recall", "ndcg")
        for ranking in ("model", "popular")
    ]
    seen = f"{fewest:,}" if fewest == most else f"{fewest:,}–{most:,}"
    return f"{name:20}{segment.n_users:>9,}{seen:>12}" + "".join(f"{_number(score):>12}" for score in scores)


def _number(value: float) -> str:
    return f"{value:.4f}" if value < 10 else f"{value:,.1f}"
