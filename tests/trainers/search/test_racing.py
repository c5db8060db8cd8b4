from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from embedding_trainers.interactions import Interactions, Split, split_interactions
from embedding_trainers.models.softmax import SOFTMAX
from embedding_trainers.search import Race, Racer, divide_users, find_racers, race
from embedding_trainers.trainer import Factors, LogShape, RaceEntry, RunOptions, Trainer, TrainerConfig
from feast_embeddings.errors import EmbeddingsError, InputError

OPTIONS = RunOptions(seed=3, threads=1)


def meetings(n: int = 60, period: int = 3, *, times: bool = False) -> Interactions:
    """Each user and item whose numbers are equal modulo the period."""
    users, items = np.nonzero(np.arange(n)[:, None] % period == np.arange(n) % period)
    ids = pa.array([f"{number:03}" for number in range(n)])
    when = np.random.default_rng(0).permutation(len(users)).astype(np.int64) if times else None
    return Interactions(ids, ids, users.astype(np.int32), items.astype(np.int32), timestamps=when)


SPLIT = split_interactions(meetings(), seed=0)


def racer(name: str, cost: float, train: Callable[..., Factors], **parameters: Any) -> Racer:
    entry = RaceEntry(cost, parameters)
    return Racer(name, Trainer(TrainerConfig, train, race=entry), TrainerConfig(factors=3), entry)


def by_period(period: int) -> Callable[..., Factors]:
    """Train with the assumption that equal remainders meet."""

    def train(user_items: Any, config: TrainerConfig, options: RunOptions) -> Factors:
        users, items = (np.eye(period, dtype=np.float32)[np.arange(n) % period] for n in user_items.shape)
        return Factors(users, items, np.zeros(len(items), np.float32))

    return train


def at_random(seed: int) -> Callable[..., Factors]:
    """Rank at random."""

    def train(user_items: Any, config: TrainerConfig, options: RunOptions) -> Factors:
        users, items = (np.random.default_rng(seed).standard_normal((n, 3), np.float32) for n in user_items.shape)
        return Factors(users, items, np.zeros(len(items), np.float32))

    return train


def fails(error: Exception) -> Callable[..., Factors]:
    def train(*_: Any) -> Factors:
        raise error

    return train


def run(*racers: Racer, split: Split = SPLIT, **more: Any) -> Race:
    return race(sorted(racers, key=lambda each: each.entry.cost), split, OPTIONS, **more)


def test_the_best_wins() -> None:
    """The one that knows how the log was made finds all that is held back, whatever it costs."""
    found = run(racer("right", 9, by_period(3)), racer("wrong", 1, by_period(5)), racer("random", 2, at_random(0)))

    assert (found.winner.name, found.reason) == ("right", "right ranks best")
    assert found.laps[0].trainer == "right"
    assert (found.laps[0].ndcg, found.laps[0].recall, found.laps[0].behind) == (1, 1, 0)
    ndcg = [lap.ndcg for lap in found.laps if lap.ndcg is not None]
    assert ndcg == sorted(ndcg, reverse=True)
    assert found.method == "random 20% of each user's items, 60 users"
    assert [lap["trainer"] for lap in found.to_json()["trainers"]] == [lap.trainer for lap in found.laps]


def test_of_equals_the_cheapest_wins() -> None:
    """Equal vectors are a tie, and so is what differs by less than a standard error."""
    assert run(racer("a", 2, by_period(3)), racer("b", 1, by_period(3))).winner.name == "b"

    names = [run(racer("a", 2, at_random(seed)), racer("b", 1, at_random(seed + 1000))) for seed in range(20)]
    for found in names:
        first, second = found.laps
        assert second.behind is not None
        assert second.margin is not None
        cheapest_is_near = first.trainer == "b" or second.behind <= second.margin
        assert found.winner.name == ("b" if cheapest_is_near else "a")
    assert {found.winner.name for found in names} == {"a", "b"}


def test_the_trainer_of_the_version_before_stays_unless_another_is_better() -> None:
    """Not for noise; but for a real difference, and only if it takes part."""
    equal = racer("cheap", 1, by_period(3)), racer("dear", 9, by_period(3))
    assert run(*equal).winner.name == "cheap"
    stays = run(*equal, incumbent="dear")
    assert (stays.winner.name, stays.reason) == ("dear", "dear stays, as no other is better by more than noise")
    assert run(*equal, incumbent="bpr").winner.name == "cheap"
    assert run(racer("right", 9, by_period(3)), racer("old", 1, by_period(5)), incumbent="old").winner.name == "right"


def test_one_that_fails_does_no_harm() -> None:
    """Whatever it raises; its row says why."""
    broken = racer("broken", 1, fails(ValueError("no")))
    found = run(broken, racer("right", 2, by_period(3)))
    assert found.winner.name == "right"
    assert (found.laps[-1].trainer, found.laps[-1].ndcg, found.laps[-1].error) == ("broken", None, "ValueError: no")
    assert "failed: ValueError: no" in found.lines()[-1]

    diverges = racer("diverges", 2, fails(InputError("diverged")))
    with pytest.raises(InputError, match=r"all trainers of auto failed: diverges: diverged$"):
        run(diverges)
    with pytest.raises(EmbeddingsError, match=r"failed: broken: ValueError: no; diverges: diverged$") as error:
        run(broken, diverges)
    assert error.value.exit_code == 1


def test_too_few_users() -> None:
    """The cheapest is taken, or what the version before had; and the reason is given. Nothing is trained."""
    racers = racer("cheap", 1, fails(AssertionError())), racer("dear", 2, fails(AssertionError()))
    few = split_interactions(meetings(19, 1), seed=0)
    found = run(*racers, split=few)
    assert (found.winner.name, found.laps) == ("cheap", [])
    assert found.lines() == [
        "auto: cheap is the cheapest; too few interactions for a race: 19 test users, and 20 are needed"
    ]
    assert run(*racers, split=few, incumbent="dear").reason.startswith("dear is the trainer of the version before; too")
    assert run(racer("a", 1, by_period(1)), split=split_interactions(meetings(20, 1), seed=0)).laps


def test_short_in_the_race_only() -> None:
    """What an entry says applies to the race, and not to the winner."""
    seen = []

    def train(user_items: Any, config: Any, options: RunOptions) -> Factors:
        seen.append(config.iterations)
        return by_period(3)(user_items, config, options)

    trainer = replace(SOFTMAX, train=train, race=RaceEntry(1, {"iterations": 2}))
    assert trainer.race is not None
    config = trainer.configure({"factors": 3})
    found = run(Racer("softmax", trainer, config, trainer.race))
    assert (seen, found.winner.config, config.model_dump()["iterations"]) == ([2], config, 10)


def test_large_logs_race_on_some_of_their_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole histories of a random part of them, and no item that none of these has."""
    monkeypatch.setattr("embedding_trainers.search.racing._SAMPLE", SPLIT.train.nnz // 2 - 1)
    seen = []

    def train(user_items: Any, config: TrainerConfig, options: RunOptions) -> Factors:
        seen.append(user_items)
        return at_random(0)(user_items, config, options)

    found = run(racer("a", 1, train))
    (sample,) = seen
    assert sample.shape[0] == 30
    assert set(np.diff(sample.indptr)) <= set(np.diff(SPLIT.train.indptr))
    assert np.bincount(sample.indices).all()
    assert found.method.endswith(f"30 users, a sample with {sample.nnz:,} of {SPLIT.train.nnz:,} pairs")
    assert not found.values


def test_same_seed_same_race() -> None:
    """All but the seconds."""
    first, second = (run(racer("a", 2, at_random(0)), racer("b", 1, at_random(1))) for _ in range(2))
    assert [replace(lap, cpu_seconds=0) for lap in first.laps] == [replace(lap, cpu_seconds=0) for lap in second.laps]
    assert (first.winner.name, first.without) == (second.winner.name, second.without)


def test_no_user_is_scored_by_a_choice_that_it_took_part_in() -> None:
    """Each tenth of the users gets what wins among the others: by hand, for a race that tenths decide."""
    deciding = 0
    for seed in range(30):
        found = run(racer("a", 1, at_random(seed)), racer("b", 2, at_random(seed + 1000)))
        honest = found.honest_values(found.values[found.winner.name])
        tenths = np.random.default_rng(OPTIONS.seed).permutation(60) % 10
        for tenth in range(10):
            others = {name: values[tenths != tenth, 1] for name, values in found.values.items()}
            difference = others["b"] - others["a"]
            is_better = difference.mean() > difference.std(ddof=1) / np.sqrt(len(difference))
            deciding += ("b" if is_better else "a") != found.winner.name
            expected = found.values["b" if is_better else "a"][tenths == tenth]
            np.testing.assert_array_equal(honest[tenths == tenth], expected)
    assert deciding > 0


def test_users_are_divided() -> None:
    """Each test user is in one half, with all of its test pairs; the training part stays."""
    first, second = divide_users(SPLIT, 5)
    assert (first.test + second.test != SPLIT.test).nnz == 0
    assert first.n_test_users == second.n_test_users == 30
    assert first.train is second.train is SPLIT.train


def test_racers() -> None:
    """The trainers that say they are cheap, the cheapest first; hyper-parameters of one trainer belong to none."""
    racers, warnings = find_racers({"factors": "8"}, weighs=True)
    assert [(each.name, each.config.factors) for each in racers] == [("svd", 8), ("als", 8), ("softmax", 8)]
    assert warnings == []
    assert [each.name for each in find_racers({}, weighs=False)[0]] == ["svd", "als", "softmax", "bpr"]
    with pytest.raises(InputError, match=r"^no parameter 'alpha' with auto, only factors; name its trainer"):
        find_racers({"alpha": 3}, weighs=False)
    with pytest.raises(InputError, match=r"^parameter factors=0: "):
        find_racers({"factors": 0}, weighs=False)


def test_who_races(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trainers that ignore weights have no place where weights differ, and one that cannot be loaded is named."""
    ignoring = replace(SOFTMAX, uses_weights=False)

    def find(name: str) -> Trainer[Any]:
        if name == "gone":
            raise EmbeddingsError("the trainer 'gone' cannot be loaded")
        return {"a": ignoring, "b": SOFTMAX, "c": replace(SOFTMAX, race=None)}[name]

    monkeypatch.setattr("embedding_trainers.search.racing.find_trainer", find)
    installed = ["a", "b", "c", "gone"]
    monkeypatch.setattr("embedding_trainers.search.racing.installed_trainers", lambda: installed)
    assert [each.name for each in find_racers({}, weighs=False)[0]] == ["a", "b"]
    racers, warnings = find_racers({}, weighs=True)
    assert [each.name for each in racers] == ["b"]
    assert warnings == ["the trainer 'gone' cannot be loaded; auto goes on without it"]
    installed[:] = ["a", "c"]
    with pytest.raises(InputError, match=r"^no installed trainer takes part in auto; name one with --trainer$"):
        find_racers({}, weighs=True)


def test_some_race_on_some_logs() -> None:
    """A trainer that says which logs suit it is not trained on others; bpr suits short histories and dense logs."""
    [bpr] = (each for each in find_racers({}, weighs=False)[0] if each.name == "bpr")
    assert bpr.entry.suits is not None
    shape = LogShape(n_users=10, n_items=1500, n_pairs=149, weight=1)
    assert bpr.entry.suits(shape)
    assert not bpr.entry.suits(replace(shape, n_pairs=150))
    assert bpr.entry.suits(replace(shape, n_pairs=151))

    asked = []

    def suits(shape: LogShape) -> bool:
        asked.append(shape)
        return False

    away = racer("away", 1, fails(AssertionError()))
    away = replace(away, entry=replace(away.entry, suits=suits))
    found = run(away, racer("right", 2, by_period(3)))
    assert [lap.trainer for lap in found.laps] == ["right"]
    assert asked == [LogShape.of(SPLIT.train)]
