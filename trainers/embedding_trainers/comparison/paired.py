"""Compare what several models gave the same users."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from embedding_trainers.evaluation import Estimate
from embedding_trainers.evaluation.bootstrap import bootstrap_intervals
from embedding_trainers.evaluation.metrics import PerUser
from embedding_trainers.evaluation.report import HEADLINE

__all__ = ["OBJECTIVE", "Row", "Scored", "compare"]

OBJECTIVE = HEADLINE[1]


@dataclass(frozen=True)
class Scored:
    """What a model gave each test user, and what its training took.

    Attributes:
        name: of its row in the table.
        values: the metrics of `HEADLINE`, a row per test user, the same users in each `Scored`.
        trainer, config: what was trained; None for a version.
        cpu_seconds: user and system time of the training, on all threads, and in processes that it started and that
            ended; None for a version.
        memory_mib: the most memory that the process held until the training ended, with the interpreter and the
            training part; None for a version.
    """

    name: str
    values: PerUser
    trainer: str | None = None
    config: dict[str, Any] | None = None
    cpu_seconds: float | None = None
    memory_mib: float | None = None


@dataclass(frozen=True)
class Row:
    """One model of the table.

    Attributes:
        name, trainer, config, cpu_seconds, memory_mib: see `Scored`.
        scores: means over the test users, by metric.
        differences: scores less the best's, by metric; the intervals are of the paired bootstrap.
        verdict: ``best`` has the highest NDCG; ``noise`` is lower by an amount whose 95 % interval contains 0; else
            ``worse``.
    """

    name: str
    trainer: str | None
    config: dict[str, Any] | None
    scores: dict[str, Estimate]
    differences: dict[str, Estimate]
    verdict: Literal["best", "noise", "worse"]
    cpu_seconds: float | None
    memory_mib: float | None


def compare(scored: Sequence[Scored], *, seed: int) -> list[Row]:
    """Order models by NDCG@20, highest first, and say which are worse than the best by more than chance.

    The bootstrap of differences draws users, and takes all models' values of a drawn user together: what makes a user
    easy or hard for all models cancels out (paired: Efron & Tibshirani, An Introduction to the Bootstrap, 1993, ch. 8
    and 13; for rankings Sakai, SIGIR 2006).

    Args:
        scored: at least one, each with the same users in the same order.
        seed: of the draws.
    """
    objective = HEADLINE.index(OBJECTIVE)
    # Stable: of equal ones, the first stays in front.
    order = sorted(scored, key=lambda each: -each.values[:, objective].mean())
    best = order[0].values
    columns = [part for each in order for part in (each.values, each.values - best)]
    together = np.concatenate(columns, axis=1)
    ends = zip(together.mean(axis=0), *bootstrap_intervals(together, seed=seed), strict=True)
    estimates = [Estimate(*map(float, numbers)) for numbers in ends]
    rows = []
    for place, each in enumerate(order):
        start = 2 * place * len(HEADLINE)
        own, difference = (estimates[at : at + len(HEADLINE)] for at in (start, start + len(HEADLINE)))
        high = difference[objective].high
        verdict: Literal["best", "noise", "worse"] = "worse"
        if place == 0:
            verdict = "best"
        elif high is not None and high >= 0:  # the low end is below: the mean is, or all are 0
            verdict = "noise"
        rows.append(
            Row(
                each.name,
                each.trainer,
                each.config,
                dict(zip(HEADLINE, own, strict=True)),
                dict(zip(HEADLINE, difference, strict=True)),
                verdict,
                each.cpu_seconds,
                each.memory_mib,
            )
        )
    return rows
