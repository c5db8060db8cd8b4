"""How well a model ranks what users turned to later."""

from __future__ import annotations

from embedding_trainers.evaluation.report import (
    Estimate,
    K,
    Report,
    Segment,
    evaluate,
    evaluate_in_detail,
    measure,
    measured,
    score_users,
)

__all__ = ["Estimate", "K", "Report", "Segment", "evaluate", "evaluate_in_detail", "measure", "measured", "score_users"]
