from __future__ import annotations

import io
import sys

import numpy as np
import pytest

from embedding_trainers.comparison.chart import draw
from embedding_trainers.comparison.paired import Scored, compare
from embedding_trainers.comparison.table import markdown
from feast_embeddings.errors import MissingExtraError


def scored(name: str, ndcg: object, cpu: float | None = None, memory: float | None = None) -> Scored:
    values = np.asarray(ndcg, float)
    return Scored(name, np.column_stack([values / 2, values]), cpu_seconds=cpu, memory_mib=memory)


def test_intervals_against_the_slow_way(rng: np.random.Generator) -> None:
    """Scores and differences are as from drawing users one by one, all models' values of a user together."""
    hardness = rng.random(40)
    lifts = {"a": 0.0, "b": 0.06, "c": 0.05}
    models = {name: hardness * 0.8 + rng.random(40) * 0.1 + lift for name, lift in lifts.items()}
    rows = {row.name: row for row in compare([scored(*model) for model in models.items()], seed=3)}
    best = max(models, key=lambda name: models[name].mean())
    draws = np.random.default_rng(3)
    drawn = [draws.integers(40, size=40).tolist() for _ in range(1000)]

    for name, values in models.items():
        for found, expected in ((rows[name].scores, values), (rows[name].differences, values - models[best])):
            means = [sum(expected[user] for user in each) / 40 for each in drawn]
            ends = np.quantile(means, [0.025, 0.975])
            for metric, share in (("recall@20", 0.5), ("ndcg@20", 1.0)):
                estimate = found[metric]
                assert estimate.value == pytest.approx(share * expected.mean(), abs=1e-12)
                assert (estimate.low, estimate.high) == pytest.approx((share * ends[0], share * ends[1]), abs=1e-12)
    # Users differ much, models by little: only paired can the difference be seen.
    assert rows["a"].verdict == "worse"
    assert rows["a"].scores["ndcg@20"].high > rows[best].scores["ndcg@20"].low  # type: ignore[operator]


def test_verdicts() -> None:
    """The best, one that differs for few users, one that is worse for all, and one that equals the best."""
    base = np.linspace(0.2, 0.8, 50)
    few = base.copy()
    few[0] -= 0.1
    models = {"worse": base - 0.1, "few": few, "best": base, "same": base}
    rows = compare([scored(*model) for model in models.items()], seed=0)

    assert [(row.name, row.verdict) for row in rows] == [
        ("best", "best"),
        ("same", "noise"),
        ("few", "noise"),
        ("worse", "worse"),
    ]


def test_the_table() -> None:
    """Trainers have what they took; versions have no such columns."""
    values = np.array([0.2, 0.4])
    rows = compare([scored("x", values, 1.25, 2048), scored("y", values - 0.1, 9, 1)], seed=0)
    text = markdown("trainer", "on a log", rows)
    lines = text.splitlines()

    assert lines[0] == "on a log"
    assert lines[2] == (
        "| trainer | Recall@20 | NDCG@20 | 95 % interval | CPU s | memory MiB | to the best | 95 % interval |  |"
    )
    assert lines[4] == "| x | 0.1500 | 0.3000 | 0.2000 – 0.4000 | 1.2 | 2,048 |  |  | best |"
    assert "CPU" not in markdown("version", "on a log", compare([scored("x", values)], seed=0))


def test_the_chart(monkeypatch: pytest.MonkeyPatch) -> None:
    """A PNG, or an error that names the extra."""
    rows = compare([scored("x", [0.2, 0.4], 1.0, 1.0), scored("y", [0.1, 0.1], 400.0, 1.0)], seed=0)
    file = io.BytesIO()
    draw("on a log", rows, file)
    assert file.getvalue().startswith(b"\x89PNG\r\n")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "matplotlib.figure")
    with pytest.raises(MissingExtraError, match=r"drawing a chart needs the package 'matplotlib', .*\[charts\]"):
        draw("on a log", rows, file)
