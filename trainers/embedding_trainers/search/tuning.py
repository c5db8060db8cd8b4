"""Hyper-parameters by trial, on interactions that are held back from the training data and never on a test set."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from tqdm import tqdm

from embedding_trainers.evaluation import K, evaluate
from embedding_trainers.extra import import_extra
from embedding_trainers.interactions import split_interactions
from embedding_trainers.trainer import LogShape, RunOptions, Trainer, TrainerConfig
from feast_embeddings.artifact import Entity
from feast_embeddings.errors import EmbeddingsError, InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from embedding_trainers.interactions import Interactions

__all__ = ["OBJECTIVE", "Search", "Trial", "Tuning", "search_space", "tune"]

OBJECTIVE = f"ndcg@{K}"


@dataclass(frozen=True)
class Search:
    """How long to search.

    Attributes:
        trials: the most settings that are tried, the first being the defaults; at least 1.
        time_budget: no trial starts later than this after the start of the first.
    """

    trials: int
    time_budget: timedelta | None = None

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise InputError(f"a search needs at least 1 trial, not {self.trials}")
        if self.time_budget is not None and self.time_budget <= timedelta():
            raise InputError(f"the time budget of a search must be longer than 0, but it is {self.time_budget}")


@dataclass(frozen=True)
class Trial:
    """One setting.

    Attributes:
        parameters: the hyper-parameters that are searched.
        score: NDCG@20 on what was held back, higher is better; None if training diverged.
        seconds: wall time.
    """

    parameters: dict[str, Any]
    score: float | None
    seconds: float


@dataclass(frozen=True)
class Tuning:
    """What a search found.

    Attributes:
        config: the best setting.
        score: its NDCG@20.
        trials: all settings, in the order in which they were tried.
        validation: what was held back, and for how many users.
        ended: why no more were tried.
    """

    config: TrainerConfig
    score: float
    trials: list[Trial]
    validation: str
    ended: str

    def __str__(self) -> str:
        best = next(trial for trial in self.trials if trial.score == self.score)
        found = ", ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in best.parameters.items()
        )
        before = self.trials[0].score
        compared = "the defaults failed" if before is None else f"defaults: {before:.4f}"
        return f"{found}: {OBJECTIVE} {self.score:.4f} ({compared}) on {self.validation}; {self.ended}"

    def to_json(self) -> dict[str, Any]:
        """For the manifest; the best setting is the trainer's config there."""
        trials = [asdict(trial) | {"seconds": round(trial.seconds, 3)} for trial in self.trials]
        return {"objective": OBJECTIVE, "validation": self.validation, "ended": self.ended, "trials": trials}


def tune(
    trainer: Trainer[Any],
    parameters: Mapping[str, Any],
    log: Interactions,
    options: RunOptions,
    search: Search,
    attributes: Mapping[Entity, pa.Table | None] | None = None,
) -> Tuning:
    """Train with one setting after the other on a part of the log, and take the one that ranks the rest best.

    The log is split as for an evaluation, see `split_interactions`. The defaults come first, so the result is never
    worse than they are there. What follows is drawn by the tree-structured Parzen estimator (Bergstra et al., NeurIPS
    2011; Optuna: Akiba et al., KDD 2019, arXiv:1907.10902). The same seed and one thread give the same trials.
    Ctrl-C ends the search with the best so far, if a trial is done.

    Args:
        trainer: its config declares the search space, see `search_space`.
        parameters: hyper-parameters that are given, and so are not searched.
        log: what may be looked at; nothing of a test set belongs here.
        options: seed and threads of the search and of each training.
        search: how long.
        attributes: of the users and items of the log, for a trainer that reads them.

    Raises:
        MissingExtraError: Optuna is not installed.
        InputError: there is nothing to search, the log is too small to hold anything back, or training diverges in
            all trials.
    """
    optuna = import_extra("optuna")
    space = {name: where for name, where in search_space(trainer.config).items() if name not in parameters}
    if not space:
        raise InputError("nothing to search: the trainer's parameters are all given, or none can be searched")
    split = split_interactions(log, seed=options.seed)
    if not split.n_test_users:
        raise InputError("too few interactions to hold any back from the search; leave out --tune")
    given = trainer.complete(trainer.configure(parameters), LogShape.of(split.train))
    if trainer.reads_log:
        split = split.with_log(log, attributes)

    trials: list[Trial] = []
    best: tuple[float, TrainerConfig] | None = None
    ended = f"all {search.trials} trials done"
    run = RunOptions(seed=options.seed, threads=options.threads)
    start = time.perf_counter()
    with _quiet(optuna), tqdm(total=search.trials, desc="tune", unit="trial", disable=not options.progress) as bar:
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=options.seed))
        study.enqueue_trial({name: _within(getattr(given, name), where) for name, where in space.items()})
        try:
            while len(trials) < search.trials:
                if trials and _is_over(search.time_budget, time.perf_counter() - start):
                    ended = f"time budget used up after {len(trials)} trials"
                    break
                asked = study.ask(space)
                # A value derived from a log may be outside of the searched range, and is tried unchanged.
                config = trainer.configure({**parameters, **asked.params}) if trials else given
                begun = time.perf_counter()
                score, failure = _score(trainer, config, split, run)
                trials.append(
                    Trial({name: getattr(config, name) for name in space}, score, time.perf_counter() - begun)
                )
                study.tell(asked, score, state=None if failure is None else optuna.trial.TrialState.FAIL)
                if score is not None and (best is None or score > best[0]):
                    best = score, config
                bar.update()
                bar.set_postfix({OBJECTIVE: f"{best[0]:.4f}" if best else "-"})
        except KeyboardInterrupt:
            if best is None:
                raise
            ended = f"interrupted after {len(trials)} trials"
    if best is None:
        raise InputError(f"training failed in all {len(trials)} trials, at last with: {failure}")
    return Tuning(best[1], best[0], trials, f"{split.method}, {split.n_test_users} users", ended)


def search_space(config: type[TrainerConfig]) -> dict[str, Any]:
    """What a config declares to be searched, as Optuna's distributions by the name of the parameter.

    A parameter is searched if its field says where, in addition to its bounds::

        rank: int = Field(default=5, ge=1, json_schema_extra={"search": {"low": 1, "high": 100, "log": True}})
        loss: str = Field(default="bpr", json_schema_extra={"search": {"choices": ["bpr", "warp"]}})

    Raises:
        MissingExtraError: Optuna is not installed.
        EmbeddingsError: a declaration that cannot be read, or one for `factors`.
    """
    distributions = import_extra("optuna.distributions")
    space = {}
    for name, field in config.model_fields.items():
        extra = field.json_schema_extra
        if not isinstance(extra, dict) or "search" not in extra:
            continue
        where: Any = extra["search"]
        if name == "factors":
            raise EmbeddingsError(f"{config.__name__}.factors is not to be searched: it decides the vector space")
        kind = distributions.IntDistribution if field.annotation is int else distributions.FloatDistribution
        if isinstance(where, dict) and "choices" in where:
            kind = distributions.CategoricalDistribution
        try:
            space[name] = kind(**where)
        except (TypeError, ValueError) as error:
            raise EmbeddingsError(
                f"{config.__name__}.{name} declares the search {where!r}, but it must be low and high (and log), "
                f"or choices: {error}"
            ) from None
    return space


def _within(value: Any, where: Any) -> Any:
    """The value, or the nearest that is searched."""
    return value if hasattr(where, "choices") else min(max(value, where.low), where.high)


def _score(
    trainer: Trainer[Any], config: TrainerConfig, split: Any, run: RunOptions
) -> tuple[float | None, InputError | None]:
    try:
        factors = trainer.fit(split.train, config, run, split.log)
    except InputError as error:  # such as divergence
        return None, error
    return evaluate(factors, split.train, split.test)[OBJECTIVE], None


def _is_over(budget: timedelta | None, seconds: float) -> bool:
    return budget is not None and seconds >= budget.total_seconds()


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Without Optuna's own lines about each trial; the bar and the result say the same."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
