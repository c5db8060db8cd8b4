"""How well factors rank the items that users turned to later, compared with ranking by popularity and at random."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_trainers.evaluation import metrics
from embedding_trainers.evaluation.beyond_accuracy import beyond_accuracy, popularity_lift
from embedding_trainers.evaluation.bootstrap import bootstrap_intervals
from embedding_trainers.evaluation.ranking import Ranking, factors_ranking, popularity_ranking, random_ranking
from embedding_trainers.evaluation.segments import ACTIVITY, by_activity, by_value
from embedding_trainers.extra import import_extra
from embedding_trainers.interactions import LeftOut, Split
from embedding_trainers.interactions.vocabulary import count_numbers
from embedding_trainers.trainer import Factors, RunOptions
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = [
    "HEADLINE",
    "Estimate",
    "K",
    "Measured",
    "Report",
    "Segment",
    "estimates",
    "evaluate",
    "evaluate_in_detail",
    "headline",
    "measure",
    "score_users",
]

K = 20
HEADLINE = (f"recall@{K}", f"ndcg@{K}")
MAX_K = 1000
# The standard error of a mean over this number is below 0.002, as no metric of a user is outside of 0 to 1.
MAX_TEST_USERS = 100_000


@dataclass(frozen=True)
class Estimate:
    """A metric and its 95 % interval, which is None for metrics that are no mean over users (coverage and Gini)."""

    value: float
    low: float | None = None
    high: float | None = None


Scores = dict[str, dict[str, Estimate]]
"""Of the rankings ``model``, ``popular`` and ``random``: metrics such as ``recall@20``."""


@dataclass(frozen=True)
class Segment:
    """A part of the test users.

    Attributes:
        n_users: how many.
        interactions: the fewest and the most items that one of them had in training.
        scores: metrics that are means over these users.
    """

    n_users: int
    interactions: tuple[int, int]
    scores: Scores


@dataclass(frozen=True)
class Report:
    """What an evaluation found. Definitions and sources of the metrics are in `metrics` and docs/evaluation.md.

    Attributes:
        method: what the test was, in words.
        k: the cut-offs, ascending.
        n_users: test users; the metrics are means over them.
        of_users: how many test users there are, of which `n_users` are a random sample.
        n_items: items that are ranked for each.
        n_pairs: pairs of user and item to be found.
        left_out: what of the test could not be found, and was not looked for.
        scores: the metrics of the model and of both floors.
        similar_items: metrics of the lists of similar items, as ``popularity_lift@20``.
        segments: kind of segment (``activity``, or the name of an attribute) -> segment -> its scores.
    """

    method: str
    k: tuple[int, ...]
    n_users: int
    of_users: int
    n_items: int
    n_pairs: int
    left_out: LeftOut
    scores: Scores
    similar_items: dict[str, float]
    segments: dict[str, dict[str, Segment]]


@dataclass(frozen=True)
class Measured:
    """What `measure` found.

    Attributes:
        metrics: ``recall@20`` and ``ndcg@20``, means over the ranked users, and as the floor for anything personal
            ``popular_recall@20`` and ``popular_ndcg@20``: the same for the items by their number of users in training.
            0 to 1, higher is better; empty if there is no test user. See `metrics.recall` and `metrics.ndcg`.
        n_ranked: how many users were ranked for.
        margins: half of each metric's 95 % interval, from the variance between users, if these are a sample of the
            test users; else empty.
    """

    metrics: dict[str, float]
    n_ranked: int
    margins: dict[str, float]


def evaluate(factors: Factors, train: csr_matrix, test: csr_matrix) -> dict[str, float]:
    """Return the metrics of `measure`."""
    return measure(factors, train, test).metrics


def measure(
    factors: Factors,
    train: csr_matrix,
    test: csr_matrix,
    *,
    popularity: npt.NDArray[np.int64] | None = None,
    of_users: int | None = None,
) -> Measured:
    """Rank all items for the test users, without those seen in training: are the test items among the first 20?

    Of more than 100,000 test users a random 100,000 are ranked for.

    Args:
        factors: in the numbering of `train`.
        train: csr, shape (n_users, n_items); its pairs are masked.
        test: csr, same shape, sorted indices, disjoint from `train`.
        popularity: users of each item in training, where `train` has only some of them.
        of_users: how many test users there are, where `test` has only a sample of them.
    """
    if not test.nnz:
        return Measured({}, 0, {})
    scores = score_users(factors, train, test)
    return measured(scores, train, test, popularity=popularity, of_users=of_users)


def measured(
    scores: metrics.PerUser,
    train: csr_matrix,
    test: csr_matrix,
    *,
    popularity: npt.NDArray[np.int64] | None = None,
    of_users: int | None = None,
) -> Measured:
    """Return what `measure` does, from what `score_users` returned for these parts."""
    users = _test_users(test)
    popularity = _popularity(train) if popularity is None else popularity
    floor = headline(popularity_ranking(train[users], popularity, K), test[users])
    names = [prefix + name for prefix in ("", "popular_") for name in HEADLINE]
    found = dict(zip(names, [*scores.T, *floor], strict=True))
    means = {name: float(values.mean()) for name, values in found.items()}
    margins = {name: float(1.96 * values.std() / np.sqrt(len(values))) for name, values in found.items()}
    sampled = len(users) < (of_users or np.count_nonzero(np.diff(test.indptr)))
    return Measured(means, len(users), margins if sampled else {})


def score_users(factors: Factors, masked: csr_matrix, test: csr_matrix) -> metrics.PerUser:
    """Return the metrics of `HEADLINE` of each test user, ascending, or of the 100,000 that `measure` draws.

    Args:
        masked: csr, shape (n_users, n_items); its pairs are left out of the ranking.
        test: csr, same shape, sorted indices.

    Returns:
        Shape (n, 2).
    """
    users = _test_users(test)
    return np.column_stack(headline(factors_ranking(factors, masked, users, K, progress=False), test[users]))


def headline(ranking: Ranking, relevant: csr_matrix) -> tuple[metrics.PerUser, metrics.PerUser]:
    """Return the metrics of `HEADLINE` of each user, in its order; `relevant` has a row for each, and no empty one."""
    hits, n_relevant = metrics.find_hits(ranking, relevant), np.diff(relevant.indptr)
    return metrics.recall(hits, n_relevant, K), metrics.ndcg(hits, n_relevant, K)


def ranked_users(n_ranked: int, n_users: int) -> str:
    """Say how many test users were ranked for, and of how many if these are a sample."""
    return f"{n_ranked:,} users" if n_ranked == n_users else f"a random {n_ranked:,} of {n_users:,} users"


def _test_users(test: csr_matrix) -> npt.NDArray[np.intp]:
    """The users with a test item, or a random `MAX_TEST_USERS` of them, always the same; ascending."""
    users = np.flatnonzero(np.diff(test.indptr))
    if len(users) <= MAX_TEST_USERS:
        return users
    return np.sort(np.random.default_rng(0).choice(users, MAX_TEST_USERS, replace=False))


def evaluate_in_detail(
    factors: Factors,
    split: Split,
    *,
    k: Sequence[int] = (10, 20, 50),
    attributes: Mapping[str, pa.Array] | None = None,
    options: RunOptions | None = None,
) -> Report:
    """Rank as `evaluate`, and say everything about it: all metrics, their intervals, coverage, popularity, segments.

    The segments of ``activity`` are by the number of items that a user had in training: ``new`` is the quarter of
    the test users with the fewest, ``heavy`` that with the most, ``regular`` the rest. Users with equally many
    are in one segment, so the parts may differ in size.

    Args:
        factors: in the numbering of `split`.
        split: the training part, and the held-out part.
        k: the cut-offs; more than there are items is the same as all items.
        attributes: of all users of the split, by name; each value is a segment.
        options: the seed of the bootstrap and of the random floor; equal seeds give equal reports.

    Raises:
        InputError: there is no test user; `k` is empty or out of range; or an attribute has more than 50 values.
    """
    options = options or RunOptions()
    cuts = tuple(sorted(set(k)))
    if not cuts or cuts[0] < 1 or cuts[-1] > MAX_K:
        raise InputError(f"cut-offs k: expected one or more whole numbers from 1 to {MAX_K:,}, not {list(k)}")
    users = _test_users(split.test)
    if not len(users):
        raise InputError(f"nothing to evaluate on {split.method}: no test user is left ({split.left_out})")
    masked, relevant = split.masked, split.test[users]
    n_items = masked.shape[1]
    popularity = _popularity(split.train)
    n_seen = np.diff(split.train.indptr)[users]
    segments = {ACTIVITY: by_activity(n_seen)}
    for name, values in (attributes or {}).items():
        if name in segments:
            raise InputError(f"segments by {name!r} are those by number of training interactions; rename the column")
        segments[name] = by_value(name, values.take(pa.array(users)))

    deepest = cuts[-1]
    with import_extra("threadpoolctl").threadpool_limits(options.threads or None):
        rankings = {
            "model": factors_ranking(factors, masked, users, deepest, progress=options.progress),
            "popular": popularity_ranking(masked[users], popularity, deepest),
            "random": random_ranking(masked[users], deepest, np.random.default_rng(options.seed)),
        }
        names: list[tuple[str, str]] = []
        columns = []
        for ranking_name, ranking in rankings.items():
            beyond = beyond_accuracy(ranking, factors, popularity, split.train.shape[0], cuts)
            for metric, values in (_accuracy(ranking, relevant, cuts) | beyond).items():
                names.append((ranking_name, metric))
                columns.append(values)
        per_user = np.column_stack(columns)
        scores = estimates(names, per_user, options.seed)
        for ranking_name, ranking in rankings.items():
            for cut in cuts:
                scores[ranking_name][f"coverage@{cut}"] = Estimate(metrics.coverage(ranking, n_items, cut))
                scores[ranking_name][f"gini@{cut}"] = Estimate(metrics.gini(ranking, n_items, cut))
        lifts = popularity_lift(factors.item_factors, popularity, cuts)
        parts = {
            kind: {
                name: Segment(
                    n_users=int(inside.sum()),
                    interactions=(int(n_seen[inside].min()), int(n_seen[inside].max())),
                    scores=estimates(names, per_user[inside], options.seed),
                )
                for name, inside in masks.items()
            }
            for kind, masks in segments.items()
        }
    similar = {f"popularity_lift@{cut}": lift for cut, lift in lifts.items()}
    n_pairs = int(relevant.nnz)
    return Report(
        *(split.method, cuts, len(users), split.n_test_users, n_items, n_pairs, split.left_out, scores, similar, parts)
    )


def _popularity(train: csr_matrix) -> npt.NDArray[np.int64]:
    return count_numbers(train.indices, train.shape[1])


def _accuracy(ranking: Ranking, relevant: csr_matrix, cuts: Sequence[int]) -> dict[str, metrics.PerUser]:
    hits = metrics.find_hits(ranking, relevant)
    n_relevant = np.diff(relevant.indptr)
    return {
        f"{name}@{k}": values
        for k in cuts
        for name, values in (
            ("recall", metrics.recall(hits, n_relevant, k)),
            ("ndcg", metrics.ndcg(hits, n_relevant, k)),
            ("map", metrics.average_precision(hits, n_relevant, k)),
            ("hr", metrics.hit_rate(hits, k)),
            ("mrr", metrics.reciprocal_rank(hits, k)),
        )
    }


def estimates(names: Sequence[tuple[str, str]], per_user: metrics.PerUser, seed: int) -> Scores:
    """Return the means and intervals of the columns of `per_user`, which `names` gives as ranking and metric."""
    low, high = bootstrap_intervals(per_user, seed=seed)
    scores: Scores = {}
    for (ranking, metric), *numbers in zip(names, per_user.mean(axis=0), low, high, strict=True):
        scores.setdefault(ranking, {})[metric] = Estimate(*map(float, numbers))
    return scores
