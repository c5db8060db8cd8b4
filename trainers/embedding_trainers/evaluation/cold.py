"""How well vectors serve items or users that training never saw: from their content, and from n interactions.

A fifth of the items, or of the users, is hidden from training. For each n the hidden ones with more interactions are
folded in from n of them, drawn at random, and a ranking has to find their other interactions: users rank
hidden items among themselves, and hidden users rank the trained items.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_trainers.content.features import Features
from embedding_trainers.content.prior import FoldIn, Prior, Trained, fit_prior
from embedding_trainers.content.spec import ContentColumn
from embedding_trainers.evaluation.ranking import Ranking, factors_ranking, popularity_ranking, random_ranking
from embedding_trainers.evaluation.report import HEADLINE, K, Scores, estimates, headline
from embedding_trainers.extra import import_extra
from embedding_trainers.trainer import Factors, Folded, KnownSide, LogShape, RunOptions, Trainer, TrainingLog
from feast_embeddings.artifact import Entity
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["GIVEN", "ColdReport", "ColdRow", "evaluate_cold"]

GIVEN = (0, 1, 2, 5, 10, 20, 40)
_HIDDEN = 0.2
_NEAREST = 20
_MOST_USERS = 5000  # that are ranked for; the standard error of a mean over this number is below 0.007

_Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ColdRow:
    """What came out for one number of given interactions.

    Attributes:
        given: n.
        n_hidden: hidden items or users with more than n interactions.
        n_users: users that the metrics are means over.
        scores: of each ranking, ``recall@20`` and ``ndcg@20`` with their intervals. ``behaviour`` is the fold-in,
            ``content`` what content says, ``both`` the blend of the two that is served, ``neighbours`` the mean of the
            20 trained vectors of the nearest content; ``popular`` ranks hidden items by their other interactions, which
            only an oracle knows, and trained items by the training's.
    """

    given: int
    n_hidden: int
    n_users: int
    scores: Scores


@dataclass(frozen=True)
class ColdReport:
    """What `evaluate_cold` found.

    Attributes:
        entity: what was hidden.
        n_hidden: how many.
        n_trained: how many of them were left to train on.
        content: the columns, as ``title:text``; empty without content.
        strength: τ of the blend, see `content.prior`; None without content.
        rows: by n, ascending.
    """

    entity: Entity
    n_hidden: int
    n_trained: int
    content: tuple[str, ...]
    strength: float | None
    rows: tuple[ColdRow, ...]


@dataclass(frozen=True)
class Catalogue:
    """Content of one side of a log.

    Attributes:
        table: its rows.
        rows: the row of each item or user of the log, -1 for none; shape (n,).
        columns: the table's content columns.
    """

    table: pa.Table
    rows: _Numbers
    columns: Sequence[ContentColumn]


@dataclass(frozen=True)
class _Content:
    prior: Prior
    features: csr_matrix  # of the hidden ones
    neighbours: Folded


def evaluate_cold(
    entity: Entity,
    user_items: csr_matrix,
    trainer: Trainer[Any],
    config: Any,
    catalogue: Catalogue | None,
    options: RunOptions,
    log: TrainingLog | None = None,
) -> ColdReport:
    """Hide a fifth of the items or users, train on the rest, and see how the hidden ones are served.

    Args:
        entity: what to hide.
        user_items: csr, shape (n_users, n_items), sorted indices.
        trainer: what to train with; one that cannot fold in is asked for content alone.
        config: of the trainer, complete or not.
        catalogue: content of this side; only what has content is hidden then. None evaluates behaviour alone.
        options: the seed also draws the hidden ids and the given interactions.
        log: what `user_items` sums up, for a trainer that reads it; hidden rows are left out.

    Raises:
        InputError: there is nothing to hide, neither content nor a fold-in, or users are made of an order.
    """
    if catalogue is None and trainer.fold_in is None:
        raise InputError("this trainer cannot fold in, so that without content there is nothing to evaluate")
    if entity == "user" and trainer.fold_in_reads_log:
        raise InputError("this trainer makes users of the order of their interactions, and here some are drawn of them")
    rng = np.random.default_rng(options.seed)
    side = (user_items.T if entity == "item" else user_items).tocsr()
    candidates = np.arange(side.shape[0]) if catalogue is None else np.flatnonzero(catalogue.rows >= 0)
    hidden = np.sort(rng.permutation(candidates)[: int(len(candidates) * _HIDDEN)])
    rest = np.setdiff1d(np.arange(side.shape[0]), hidden)
    if not len(hidden):
        raise InputError(f"{len(candidates):,} {entity}s are too few to hide a fifth of them; expected 5 or more")
    kept = np.flatnonzero(side[rest].getnnz(axis=0))
    seen = side[rest][:, kept]
    if log is not None:
        log = log.of(kept, rest) if entity == "item" else log.of(rest, kept)
    trained, known, config = _train(entity, seen, trainer, config, options, log)
    asked = side[hidden][:, kept].tocsr()
    asked.sort_indices()
    fold = _folding(trainer, config)
    content = None if catalogue is None else _fit_content(catalogue, rest, hidden, trained, fold, options.seed)
    return ColdReport(
        entity=entity,
        n_hidden=len(hidden),
        n_trained=len(rest),
        content=() if catalogue is None else tuple(map(str, catalogue.columns)),
        strength=None if content is None else content.prior.strength,
        rows=tuple(_rows(entity, asked, known, content, fold, options, rng)),
    )


def _train(
    entity: Entity,
    seen: csr_matrix,
    trainer: Trainer[Any],
    config: Any,
    options: RunOptions,
    log: TrainingLog | None,
) -> tuple[Trained, KnownSide, Any]:
    seen.sort_indices()
    train = (seen.T if entity == "item" else seen).tocsr()
    train.sort_indices()
    config = trainer.complete(config, LogShape.of(train))
    factors = trainer.fit(train, config, options, log)
    degrees = [np.diff(matrix.indptr).astype(np.int64) for matrix in (train, train.T.tocsr())]
    zeros = np.zeros(train.shape[0], np.float32)
    users = KnownSide("user", factors.user_factors, zeros, degrees[0], factors.network)
    items = KnownSide("item", factors.item_factors, factors.item_bias, degrees[1], factors.network)
    own, known = (items, users) if entity == "item" else (users, items)
    return Trained(own.factors, own.bias, seen, known), known, factors.config or config


def _fit_content(
    catalogue: Catalogue,
    rest: _Numbers,
    hidden: _Numbers,
    trained: Trained,
    fold: FoldIn | None,
    seed: int,
) -> _Content:
    listed = np.flatnonzero(catalogue.rows[rest] >= 0)
    table = catalogue.table.take(pa.array(catalogue.rows[rest[listed]]))
    features = Features.fitted(table, catalogue.columns)
    of_rest, of_hidden = features.of(table), features.of(catalogue.table.take(pa.array(catalogue.rows[hidden])))
    part = Trained(trained.vectors[listed], trained.bias[listed], trained.interactions[listed], trained.known)
    prior = fit_prior(of_rest, part, fold, widths=features.widths(table), seed=seed)
    # A block at a time: the similarities of all would be a matrix of hidden by trained.
    nearest = np.concatenate(
        [
            np.argsort(-(of_hidden[start : start + 1000] @ of_rest.T).toarray(), axis=1, kind="stable")[:, :_NEAREST]
            for start in range(0, len(hidden), 1000)
        ]
    )
    neighbours = Folded(part.vectors[nearest].mean(axis=1), part.bias[nearest].mean(axis=1))
    return _Content(prior, of_hidden, neighbours)


def _folding(trainer: Trainer[Any], config: Any) -> FoldIn | None:
    if trainer.fold_in is None:
        return None
    return lambda rows, known: trainer.fold(rows, known, config, RunOptions())


def _rows(
    entity: Entity,
    asked: csr_matrix,
    known: KnownSide,
    content: _Content | None,
    fold: FoldIn | None,
    options: RunOptions,
    rng: np.random.Generator,
) -> Iterator[ColdRow]:
    order = _random_places(asked, rng)
    for n in GIVEN:
        rows = np.flatnonzero(np.diff(asked.indptr) > n)
        if not len(rows) or (n and fold is None) or (not n and content is None):
            continue
        given, wanted = (_part(asked, keep)[rows] for keep in (order < n, order >= n))
        folded: dict[str, Folded] = {}
        if content is not None:
            features = content.features[rows]
            folded["content"] = content.prior.of(features)
            folded["neighbours"] = Folded(content.neighbours.factors[rows], content.neighbours.bias[rows])
            folded["both"] = folded["content"]
        if n and fold is not None:
            folded["behaviour"] = fold(given, known)
        if n and content is not None:
            folded["both"] = content.prior.mixed(folded["behaviour"], np.full(len(rows), n), features)
        yield _row(entity, n, given, wanted, folded, known, options, rng)


def _row(
    entity: Entity,
    n: int,
    given: csr_matrix,
    wanted: csr_matrix,
    folded: dict[str, Folded],
    known: KnownSide,
    options: RunOptions,
    rng: np.random.Generator,
) -> ColdRow:
    n_hidden = wanted.shape[0]
    if entity == "item":
        # The most popular hidden items are known to an oracle only: all of them have n interactions.
        popularity = wanted.getnnz(axis=1).astype(np.int64)
        given, wanted = given.T.tocsr(), wanted.T.tocsr()
        wanted.sort_indices()
    else:
        popularity = known.degrees
    users = np.flatnonzero(np.diff(wanted.indptr))
    if len(users) > _MOST_USERS:
        users = np.sort(rng.choice(users, _MOST_USERS, replace=False))
    rankings: dict[str, Ranking] = {}
    with import_extra("threadpoolctl").threadpool_limits(options.threads or None):
        for name in sorted(folded, key=("both", "behaviour", "content", "neighbours").index):
            new = folded[name]
            factors = (
                Factors(known.factors, new.factors, new.bias)
                if entity == "item"
                else Factors(new.factors, known.factors, known.bias)
            )
            rankings[name] = factors_ranking(factors, given, users, K, progress=False)
    rankings["popular"] = popularity_ranking(given[users], popularity, K)
    rankings["random"] = random_ranking(given[users], K, rng)
    relevant = wanted[users]
    names = [(name, metric) for name in rankings for metric in HEADLINE]
    per_user = [values for ranking in rankings.values() for values in headline(ranking, relevant)]
    return ColdRow(n, n_hidden, len(users), estimates(names, np.column_stack(per_user), options.seed))


def _random_places(matrix: csr_matrix, rng: np.random.Generator) -> _Numbers:
    """Return the place of each stored value in a random order of its row, from 0."""
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    places = np.empty(matrix.nnz, np.int64)
    places[np.lexsort((rng.random(matrix.nnz), rows))] = np.arange(matrix.nnz) - matrix.indptr[rows]
    return places


def _part(matrix: csr_matrix, keep: npt.NDArray[np.bool_]) -> csr_matrix:
    """Return the matrix with these of its stored values."""
    ends = np.concatenate([[0], np.cumsum(keep)])[matrix.indptr]
    part: csr_matrix = type(matrix)((matrix.data[keep], matrix.indices[keep], ends), shape=matrix.shape)
    return part
