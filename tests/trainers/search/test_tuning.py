from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from pydantic import Field

from embedding_trainers.interactions import Interactions
from embedding_trainers.models.als import ALS, ALSConfig, train_als
from embedding_trainers.models.svd import SVD
from embedding_trainers.search import Search, search_space, tune
from embedding_trainers.trainer import Factors, RunOptions, Trainer, TrainerConfig
from feast_embeddings.errors import EmbeddingsError, InputError

ONE_THREAD = RunOptions(seed=3, threads=1)


class PeriodConfig(TrainerConfig):
    """Guesses that users and items meet if their numbers are equal modulo `period`. The right one is 3."""

    period: int = Field(default=5, ge=1, le=12, json_schema_extra={"search": {"low": 1, "high": 12}})
    sign: Literal[-1, 1] = Field(default=-1, json_schema_extra={"search": {"choices": [-1, 1]}})


trained: list[tuple[Any, PeriodConfig, RunOptions]] = []


def train_period(user_items: Any, config: PeriodConfig, options: RunOptions) -> Factors:
    trained.append((user_items, config, options))
    if config.period == 12:
        raise InputError("training diverged")
    users, items = (np.eye(config.period, dtype=np.float32)[np.arange(n) % config.period] for n in user_items.shape)
    return Factors(config.sign * users, items, np.zeros(len(items), np.float32))


PERIOD = Trainer(PeriodConfig, train_period)


@pytest.fixture(autouse=True)
def _forget() -> None:
    trained.clear()


def everyone_meets(n: int = 60, period: int = 3) -> Interactions:
    """Each user and item whose numbers are equal modulo the period."""
    numbers = np.arange(n)
    users, items = np.nonzero(numbers[:, None] % period == numbers % period)
    ids = pa.array([f"{number:03}" for number in numbers])
    return Interactions(ids, ids, users.astype(np.int32), items.astype(np.int32))


def test_the_best_setting_is_found() -> None:
    """Of 24 settings only one predicts everything, and it is found and kept."""
    tuning = tune(PERIOD, {}, everyone_meets(), ONE_THREAD, Search(60))

    assert PeriodConfig(period=3, sign=1) == tuning.config
    assert tuning.score == pytest.approx(1)
    assert max(trial.score for trial in tuning.trials if trial.score is not None) == tuning.score
    assert len(tuning.trials) == 60
    assert (tuning.validation, tuning.ended) == ("random 20% of each user's items, 60 users", "all 60 trials done")


def test_repeatable() -> None:
    """The same seed tries the same settings with the same scores, another seed others."""
    first, second, other = (
        [
            (trial.parameters, trial.score)
            for trial in tune(PERIOD, {}, everyone_meets(), RunOptions(seed=seed, threads=1), Search(12)).trials
        ]
        for seed in (3, 3, 4)
    )

    assert first == second
    assert first != other


def test_the_defaults_come_first() -> None:
    """One trial is the defaults; what the caller gives is not searched."""
    one = tune(PERIOD, {}, everyone_meets(), ONE_THREAD, Search(1))
    assert PeriodConfig() == one.config
    assert [trial.parameters for trial in one.trials] == [{"period": 5, "sign": -1}]

    given = tune(PERIOD, {"sign": 1, "factors": 7}, everyone_meets(), ONE_THREAD, Search(8))
    assert given.trials[0].parameters == {"period": 5}
    assert {config.sign for _, config, _ in trained[1:]} == {1}
    assert {config.factors for _, config, _ in trained[1:]} == {7}


def test_failed_trials() -> None:
    """A setting that cannot be trained is a trial without a score; if all are, the search says why."""
    tuning = tune(PERIOD, {"sign": 1}, everyone_meets(), ONE_THREAD, Search(40))
    assert any(trial.score is None and trial.parameters == {"period": 12} for trial in tuning.trials)
    with pytest.raises(InputError, match="training failed in all 3 trials, at last with: training diverged"):
        tune(PERIOD, {"period": 12}, everyone_meets(), ONE_THREAD, Search(3))


def test_time_budget() -> None:
    """When the time is used up no trial is started, but the first always is."""
    tuning = tune(PERIOD, {}, everyone_meets(), ONE_THREAD, Search(50, timedelta(microseconds=1)))

    assert (len(tuning.trials), tuning.ended) == (1, "time budget used up after 1 trials")


def test_ctrl_c_keeps_the_best() -> None:
    """An interrupt ends the search with what it has; before the first trial it ends everything."""
    calls = 0

    def interrupted(user_items: Any, config: PeriodConfig, options: RunOptions) -> Factors:
        nonlocal calls
        calls += 1
        if calls == stop_at:
            raise KeyboardInterrupt
        return train_period(user_items, config, options)

    stop_at = 4
    tuning = tune(Trainer(PeriodConfig, interrupted), {"sign": 1}, everyone_meets(), ONE_THREAD, Search(50))
    assert (len(tuning.trials), tuning.ended) == (3, "interrupted after 3 trials")
    assert tuning.score == max(trial.score or 0 for trial in tuning.trials)
    calls, stop_at = 0, 1
    with pytest.raises(KeyboardInterrupt):
        tune(Trainer(PeriodConfig, interrupted), {}, everyone_meets(), ONE_THREAD, Search(50))


def test_trainings_of_the_search_are_silent(capfd: pytest.CaptureFixture[str]) -> None:
    """Nothing is printed without progress; with it there is one bar, that of the search."""
    tune(PERIOD, {}, everyone_meets(), ONE_THREAD, Search(3))
    assert capfd.readouterr() == ("", "")
    tune(PERIOD, {}, everyone_meets(), RunOptions(threads=1, progress=True), Search(3))
    printed = capfd.readouterr()
    assert "3/3" in printed.err
    assert "ndcg@20=" in printed.err
    assert not any(options.progress for _, _, options in trained)


@pytest.mark.parametrize(
    ("parameters", "log", "message"),
    [
        ({"period": 3, "sign": 1}, everyone_meets(), "nothing to search: the trainer's parameters are all given"),
        ({"sign": 2}, everyone_meets(), "parameter sign=2"),
        ({}, everyone_meets(6, 3), "too few interactions to hold any back from the search; leave out --tune"),
    ],
    ids=["all-given", "not-allowed", "small-log"],
)
def test_refused(parameters: dict[str, Any], log: Interactions, message: str) -> None:
    """A search that cannot be is one clear line, before anything is trained."""
    with pytest.raises(InputError, match=message):
        tune(PERIOD, parameters, log, ONE_THREAD, Search(3))
    assert trained == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 0}, "needs at least 1 trial, not 0"),
        ({"trials": 1, "time_budget": timedelta()}, "must be longer than 0"),
    ],
)
def test_senseless_searches(settings: dict[str, Any], message: str) -> None:
    """They are refused."""
    with pytest.raises(InputError, match=message):
        Search(**settings)


def test_search_space() -> None:
    """What is searched is what the fields of the config declare."""
    assert {"smoothing", "refinements", "popularity", "alpha", "regularization"} == set(search_space(SVD.config))
    assert search_space(TrainerConfig) == {}

    class Typo(TrainerConfig):
        rate: float = Field(default=1, json_schema_extra={"search": {"lowest": 1, "high": 2}})

    with pytest.raises(EmbeddingsError, match=r"Typo\.rate declares the search .* must be low and high"):
        search_space(Typo)


def test_the_derived_default_is_tried_as_it_is() -> None:
    """With weights of another unit it is outside of what is searched, and the result is not worse than it."""
    heavy = replace(everyone_meets(), weights=np.full(len(everyone_meets()), 900, np.float32))
    derived: list[float | None] = []

    def record(user_items: Any, config: ALSConfig, options: RunOptions) -> Factors:
        derived.append(config.alpha)
        return train_als(user_items, config, options)

    tuning = tune(replace(ALS, train=record), {"factors": 2}, heavy, ONE_THREAD, Search(1))
    [alpha] = derived
    assert alpha is not None
    assert alpha < 0.3
    assert tuning.trials[0].parameters["alpha"] == alpha
    assert tuning.config.model_dump()["alpha"] == alpha
