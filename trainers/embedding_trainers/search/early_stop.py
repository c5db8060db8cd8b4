"""How many iterations are best, by interactions that are held back from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from embedding_trainers.evaluation import K, evaluate
from embedding_trainers.interactions import Interactions, Split, split_interactions
from embedding_trainers.trainer import Factors, RunOptions, Trainer, TrainerConfig
from feast_embeddings.artifact import Entity
from feast_embeddings.errors import InputError

__all__ = ["EarlyStop", "find_iterations"]

_CHECKS = 30  # at most, over all iterations: each costs a ranking
_MAX_USERS = 3000  # ranked in a check
_METRIC = f"ndcg@{K}"


@dataclass(frozen=True)
class EarlyStop:
    """What watching a training found.

    Attributes:
        config: the config with the best number of iterations.
        ran: iterations until it stopped.
        score: NDCG@20 of the best, on what was held back.
    """

    config: TrainerConfig
    ran: int
    score: float

    def __str__(self) -> str:
        best = self.config.model_dump()["iterations"]
        return f"{best} iterations were best ({_METRIC} {self.score:.4f} on what was held back), of {self.ran} run"


def find_iterations(
    trainer: Trainer[Any],
    config: TrainerConfig,
    log: Interactions,
    options: RunOptions,
    *,
    patience: int,
    attributes: Mapping[Entity, pa.Table | None] | None = None,
) -> EarlyStop:
    """Train without a part of the log, and see after which iteration that was predicted best.

    The log is split as for an evaluation, see `split_interactions`.

    Training stops when NDCG@20 did not rise in `patience` checks in a row. There are at most 30 checks, spread evenly
    over `config.iterations`, on at most 3,000 users drawn by seed.

    Args:
        trainer: one with the hyper-parameter ``iterations``.
        config: its `iterations` are the most that are run.
        log: what may be looked at; nothing of a test set belongs here.
        options: of the run.
        patience: checks without a gain before it stops, at least 1.
        attributes: of the users and items of the log, for a trainer that reads them.

    Raises:
        InputError: the trainer has no iterations, or the log is too small to hold anything back.
    """
    total = config.model_dump().get("iterations")
    if not isinstance(total, int):
        raise InputError("early stop: this trainer has no iterations to stop; leave --patience out")
    if patience < 1:
        raise InputError(f"patience {patience}: expected at least 1")
    split = split_interactions(log, seed=options.seed)
    if not split.n_test_users:
        raise InputError("early stop: no user has 5 items, so none can be held back; leave --patience out")
    watch = _Watch(split, options.seed, total, patience)
    if trainer.needs_log(config):
        split = split.with_log(log, attributes)
    trainer.fit(split.train, config, replace(options, watch=watch), split.log)
    if not watch.best:
        raise InputError("early stop: the trainer never said how far it is; leave --patience out")
    return EarlyStop(config.model_copy(update={"iterations": watch.best}), watch.last, watch.score)


class _Watch:
    """Scores factors every few iterations, and remembers the best."""

    def __init__(self, split: Split, seed: int, total: int, patience: int) -> None:
        users = np.flatnonzero(np.diff(split.test.indptr))
        if len(users) > _MAX_USERS:
            users = np.sort(np.random.default_rng(seed).choice(users, _MAX_USERS, replace=False))
        self._users, self._train, self._test = users, split.train[users], split.test[users]
        self._every, self._total, self._patience = max(1, -(-total // _CHECKS)), total, patience
        self._without_gain = 0
        self.best = self.last = 0
        self.score = -1.0

    def __call__(self, iteration: int, factors: Callable[[], Factors]) -> bool:
        self.last = iteration
        if iteration % self._every and iteration != self._total:
            return False
        now = factors()
        now = Factors(now.user_factors[self._users], now.item_factors, now.item_bias)
        score = evaluate(now, self._train, self._test)[_METRIC]
        if score > self.score:
            self.best, self.score, self._without_gain = iteration, score, 0
        else:
            self._without_gain += 1
        return self._without_gain >= self._patience
