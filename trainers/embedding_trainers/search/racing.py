"""Which trainer suits a log: a race of the cheap ones on interactions that are held back."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from embedding_trainers import AUTO
from embedding_trainers.evaluation.metrics import PerUser
from embedding_trainers.evaluation.report import HEADLINE, score_users
from embedding_trainers.extra import import_extra
from embedding_trainers.interactions import Split
from embedding_trainers.trainer import (
    LogShape,
    RaceEntry,
    RunOptions,
    Trainer,
    TrainerConfig,
    TrainingLog,
    find_trainer,
)
from embedding_trainers.trainer import known_trainers as installed_trainers
from feast_embeddings.errors import EmbeddingsError, InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["MIN_RACE_USERS", "Lap", "Race", "Racer", "divide_users", "find_racers", "race"]

MIN_RACE_USERS = 20
"""Test users below which a race says nothing."""
_SAMPLE = 500_000  # pairs of the users that race for a log of more than twice as many
_NOISE = 1.0  # standard errors of a difference that is no difference
_NOISE_OF_INCUMBENT = 1.96  # the same next to the trainer of the version before: another one moves all neighbours
_FOLDS = 10
_RECALL, _NDCG = range(len(HEADLINE))


@dataclass(frozen=True)
class Racer:
    """A candidate: an installed trainer with its default hyper-parameters, see `find_racers`."""

    name: str
    trainer: Trainer[Any]
    config: TrainerConfig
    entry: RaceEntry


@dataclass(frozen=True)
class Lap:
    """What a candidate did.

    Attributes:
        trainer: its name.
        ndcg, recall: at 20, means over the users of the race; None if it failed.
        behind, margin: by how much NDCG@20 is below the highest, and the standard error of that over the users.
        cpu_seconds: of this process, for the training and the ranking.
        error: why it failed; else empty.
    """

    trainer: str
    ndcg: float | None
    recall: float | None
    behind: float | None
    margin: float | None
    cpu_seconds: float
    error: str = ""


@dataclass(frozen=True)
class Race:
    """How the trainer was chosen.

    Attributes:
        winner: the candidate that won.
        method: on what they raced, or why they did not.
        laps: one for each candidate, the best first; none if there was no race.
        reason: why the winner won.
        configs: what was trained, by name.
        values: what each test user got, by name, as `score_users` returns it; empty if only a sample of the users
            raced.
        without: the winner without each tenth of the test users; see `honest_values`.
    """

    winner: Racer
    method: str
    laps: list[Lap]
    reason: str
    configs: Mapping[str, TrainerConfig]
    values: Mapping[str, PerUser]
    without: list[str]
    seed: int

    def to_json(self) -> dict[str, Any]:
        """For the manifest; the winner is the trainer there."""
        return {"validation": self.method, "chosen": self.reason, "trainers": [asdict(lap) for lap in self.laps]}

    def honest_values(self, of_winner: PerUser) -> PerUser:
        """What each test user got from the trainer that wins without them and their tenth of the users.

        Users who take part in the choice flatter the winner, these do not (cross-fitting). It equals the winner's
        wherever no tenth decides the race.

        Args:
            of_winner: what the winner gave the test users, with all of its training.
        """
        if not self.values:
            return of_winner
        values = {**self.values, self.winner.name: of_winner}
        folds = _folds(len(of_winner), self.seed)
        return np.choose(folds[:, None], [values[name] for name in self.without])

    def lines(self) -> list[str]:
        """A table to read."""
        if not self.laps:
            return [f"{AUTO}: {self.reason}"]
        rows = [["trainer", "NDCG@20", "Recall@20", "behind the best", "CPU s", ""], ["---", *["---:"] * 4, "---"]]
        for lap in self.laps:
            if lap.ndcg is None or lap.recall is None or lap.behind is None or lap.margin is None:
                rows.append([lap.trainer, "", "", "", f"{lap.cpu_seconds:.1f}", f"failed: {lap.error}"])
                continue
            behind = f"{lap.behind:.4f} ± {lap.margin:.4f}" if lap.behind or lap.margin else ""
            chosen = "chosen" if lap.trainer == self.winner.name else ""
            rows.append([lap.trainer, f"{lap.ndcg:.4f}", f"{lap.recall:.4f}", behind, f"{lap.cpu_seconds:.1f}", chosen])
        table = ["| " + " | ".join(cells) + " |" for cells in rows]
        return [f"{AUTO}: {self.reason}, on {self.method}", *table]


def find_racers(parameters: Mapping[str, Any], *, weighs: bool) -> tuple[list[Racer], list[str]]:
    """Return the installed trainers that take part in races, the cheapest first; and which cannot be loaded.

    Args:
        parameters: `factors`, or nothing: hyper-parameters of a trainer need that trainer by name.
        weighs: weights differ, so that trainers which ignore them have no place.

    Raises:
        InputError: a parameter cannot be used, or no trainer takes part.
    """
    if other := next((name for name in parameters if name != "factors"), None):
        raise InputError(f"no parameter {other!r} with {AUTO}, only factors; name its trainer with --trainer")
    factors = {"factors": TrainerConfig().factors, **parameters}
    racers, warnings = [], []
    for name in installed_trainers():
        try:
            trainer = find_trainer(name)
        except EmbeddingsError as error:
            warnings.append(f"{error}; {AUTO} goes on without it")
            continue
        if trainer.race is not None and (trainer.uses_weights or not weighs):
            racers.append(Racer(name, trainer, trainer.configure(factors), trainer.race))
    if not racers:
        raise InputError(f"no installed trainer takes part in {AUTO}; name one with --trainer")
    return sorted(racers, key=lambda racer: (racer.entry.cost, racer.name)), warnings


def race(
    racers: Sequence[Racer],
    split: Split,
    options: RunOptions,
    *,
    shape: LogShape | None = None,
    incumbent: str | None = None,
) -> Race:
    """Train each candidate on the training part, and take the one that ranks the rest best.

    A candidate whose NDCG@20 is lower than the highest by at most a standard error of the difference (paired, over the
    users) counts as equal; of equals the cheapest wins. Where an incumbent is among the candidates it wins unless it
    is behind by more than noise, which is 1.96 standard errors. Of a log with more than a million pairs a random
    sample of the users races, with their whole histories. Equal seeds and one thread give equal results.

    Args:
        racers: see `find_racers`.
        split: a training part, with its log if a candidate reads it, and the pairs to predict.
        options: seed, threads, device and progress.
        shape: of the log that hyper-parameters are derived from, if the training part is to be treated as that log.
        incumbent: the trainer of the version that the new one follows on.

    Raises:
        EmbeddingsError: all candidates failed; an InputError if each failed with one.
    """
    sampled = split.train.nnz > 2 * _SAMPLE
    train, test, log = _sample(split, options.seed) if sampled else (split.train, split.test, split.log)
    n_users = int(np.count_nonzero(np.diff(test.indptr)))
    if n_users < MIN_RACE_USERS:
        kept = next((racer for racer in racers if racer.name == incumbent), None)
        why = f"too few interactions for a race: {n_users} test users, and {MIN_RACE_USERS} are needed"
        role = "the trainer of the version before" if kept else "the cheapest"
        won = kept or racers[0]
        return Race(won, why, [], f"{won.name} is {role}; {why}", {}, {}, [], options.seed)
    of_part = LogShape.of(train)
    if shape is None or sampled:
        shape = of_part
    racers = [racer for racer in racers if racer.entry.suits is None or racer.entry.suits(of_part)] or racers
    masked = type(train)(train.shape, dtype=np.float32) if split.include_seen else train
    configs: dict[str, TrainerConfig] = {}
    values: dict[str, PerUser] = {}
    seconds: dict[str, float] = {}
    failed: dict[str, Exception] = {}
    run = replace(options, progress=False, watch=None)
    for racer in tqdm(racers, AUTO, unit=" trainers", disable=not options.progress, leave=False):
        begun = time.process_time()
        try:
            config = racer.trainer.configure({**racer.config.model_dump(), **racer.entry.parameters})
            configs[racer.name] = config = racer.trainer.complete(config, shape)
            factors = racer.trainer.fit(train, config, run, log)
            with import_extra("threadpoolctl").threadpool_limits(options.threads or None):
                values[racer.name] = score_users(factors, masked, test)
        except Exception as error:  # of one trainer, which may be anyone's: the others go on
            failed[racer.name] = error
        seconds[racer.name] = time.process_time() - begun
    if not values:
        kind = InputError if all(isinstance(error, InputError) for error in failed.values()) else EmbeddingsError
        reasons = "; ".join(f"{name}: {_words(error)}" for name, error in failed.items())
        raise kind(f"all trainers of {AUTO} failed: {reasons}")

    entered = [racer for racer in racers if racer.name in values]
    ndcg = {racer.name: values[racer.name][:, _NDCG] for racer in entered}
    winner, reason = _choose(ndcg, incumbent)
    folds = _folds(n_users := len(ndcg[winner]), options.seed)
    without = [_choose({n: v[folds != fold] for n, v in ndcg.items()}, incumbent)[0] for fold in range(_FOLDS)]
    best = max(ndcg, key=lambda name: ndcg[name].mean())
    laps = [
        Lap(name, float(got.mean()), float(values[name][:, _RECALL].mean()), *_behind(got, ndcg[best]), seconds[name])
        for name, got in sorted(ndcg.items(), key=lambda item: -item[1].mean())
    ]
    laps += [Lap(name, None, None, None, None, seconds[name], _words(error)) for name, error in failed.items()]
    users = f"{n_users:,} users" + (f", a sample with {train.nnz:,} of {split.train.nnz:,} pairs" if sampled else "")
    return Race(
        next(racer for racer in entered if racer.name == winner),
        f"{split.method}, {users}",
        laps,
        reason,
        configs,
        {} if sampled else values,
        without,
        options.seed,
    )


def divide_users(split: Split, seed: int) -> tuple[Split, Split]:
    """Return the split with a random half of the test users, to race on, and with the others, to test the winner on."""
    users = np.flatnonzero(np.diff(split.test.indptr))
    first = np.random.default_rng(seed).permutation(users)[::2]
    rows = np.repeat(np.arange(split.test.shape[0]), np.diff(split.test.indptr))
    parts = []
    for keep in (here := np.isin(rows, first), ~here):
        cells = split.test.data[keep], (rows[keep], split.test.indices[keep])
        test = type(split.test)(cells, shape=split.test.shape)
        test.sort_indices()
        parts.append(replace(split, test=test))
    parts[1] = replace(parts[1], method=f"{split.method}, half of the users, as the others chose the trainer")
    return parts[0], parts[1]


def _choose(ndcg: Mapping[str, npt.NDArray[np.float64]], incumbent: str | None) -> tuple[str, str]:
    """Return the winner and why; the cheapest comes first."""
    best = max(ndcg, key=lambda name: ndcg[name].mean())

    def is_equal(name: str, noise: float) -> bool:
        behind, margin = _behind(ndcg[name], ndcg[best])
        return behind <= noise * margin

    if incumbent is not None and incumbent in ndcg and is_equal(incumbent, _NOISE_OF_INCUMBENT):
        return incumbent, f"{incumbent} stays, as no other is better by more than noise"
    winner = next(name for name in ndcg if is_equal(name, _NOISE))
    if winner == best:
        return winner, f"{winner} ranks best"
    return winner, f"{winner} is cheaper than {best}, and not worse by more than a standard error"


def _behind(values: npt.NDArray[np.float64], best: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return how far a mean is below the best one, and the standard error of that."""
    difference = best - values
    return float(difference.mean()), float(difference.std() / np.sqrt(max(len(difference) - 1, 1)))


def _folds(n_users: int, seed: int) -> npt.NDArray[np.int64]:
    """Return a random tenth for each user."""
    return np.random.default_rng(seed).permutation(n_users) % _FOLDS


def _sample(split: Split, seed: int) -> tuple[csr_matrix, csr_matrix, TrainingLog | None]:
    """Return both parts for a random sample of the users, and the items that these have."""
    n_users = split.train.shape[0]
    n_drawn = max(1, round(n_users * _SAMPLE / split.train.nnz))
    drawn = np.sort(np.random.default_rng(seed).choice(n_users, n_drawn, replace=False))
    train, test = split.train[drawn], split.test[drawn]
    items = np.flatnonzero(np.bincount(train.indices, minlength=train.shape[1]))
    train, test = train[:, items], test[:, items]
    for part in (train, test):
        part.sort_indices()
    return train, test, None if split.log is None else split.log.of(drawn, items)


def _words(error: Exception) -> str:
    return str(error) if isinstance(error, EmbeddingsError) else f"{type(error).__name__}: {error}"
