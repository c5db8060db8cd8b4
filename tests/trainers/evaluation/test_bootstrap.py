from __future__ import annotations

import numpy as np
import pytest

from embedding_trainers.evaluation import bootstrap
from embedding_trainers.evaluation.bootstrap import bootstrap_intervals


def test_against_the_slow_way(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same as drawing users one by one and averaging what they have, whatever the size of the blocks."""
    values = rng.random((23, 2))
    draws = np.random.default_rng(5)
    means: list[list[float]] = [[], []]
    for _ in range(200):
        drawn = draws.integers(23, size=23).tolist()
        for column in range(2):
            means[column].append(sum(values[user, column] for user in drawn) / 23)
    expected = [[np.quantile(mean, end) for mean in means] for end in (0.025, 0.975)]
    for block in (1, 23 * 7, 1 << 20):
        monkeypatch.setattr(bootstrap, "_BLOCK_DRAWS", block)
        np.testing.assert_allclose(expected, bootstrap_intervals(values, seed=5, resamples=200))


def test_of_many_users_it_is_the_normal_interval(rng: np.random.Generator) -> None:
    """Mean ± 1.96 standard errors, within what 4,000 resamples leave to chance."""
    values = rng.random((2000, 1))
    low, high = bootstrap_intervals(values, seed=0, resamples=4000)[:, 0]
    error = 1.96 * values.std() / 2000**0.5
    assert low == pytest.approx(values.mean() - error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + error, abs=0.1 * error)


def test_one_user() -> None:
    """Who is alone is drawn each time."""
    assert bootstrap_intervals(np.array([[0.25]]), seed=0).tolist() == [[0.25], [0.25]]
