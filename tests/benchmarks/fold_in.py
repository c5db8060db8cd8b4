"""What fold-in loses against training in full, and how long it takes.

    python -m tests.benchmarks.fold_in --data DIR [--dataset gowalla] [--param factors=256]

A tenth of the users is hidden. Folded in from half of their items, or trained in full on that same half, they are asked
for the rest: Recall@20 of the one ÷ of the other. With `--items` a tenth of the items is hidden instead; then the share
of the held-out pairs that are among the user's first 20. DIR holds ``ml-100k_interactions.parquet`` and
``gowalla_train.parquet``.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from embedding_trainers.evaluation import evaluate
from embedding_trainers.evaluation.ranking import factors_ranking
from embedding_trainers.interactions import read_interactions
from embedding_trainers.trainer import Factors, Folded, KnownSide, LogShape, RunOptions, find_trainer, known_trainers

FILES = {"ml-100k": "ml-100k_interactions.parquet", "gowalla": "gowalla_train.parquet"}
AT_LEAST = 4  # items of a user, or users of an item, that may be hidden
K = 20

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Hidden:
    """A matrix without some of its rows, and those rows in two halves; all of one shape."""

    rows: Numbers
    rest: csr_matrix
    given: csr_matrix
    asked: csr_matrix


@dataclass(frozen=True)
class Result:
    """Quality of the hidden rows folded in and trained in full, their number, and processor seconds of the fold-in."""

    folded_in: float
    in_full: float
    n: int
    seconds: float

    @property
    def ratio(self) -> float:
        return self.folded_in / self.in_full


def hide(matrix: csr_matrix, seed: int) -> Hidden:
    """Hide a tenth of the rows, and split each of them into halves."""
    rng = np.random.default_rng(seed)
    lengths = np.diff(matrix.indptr)
    rows = np.sort(rng.permutation(len(lengths))[: len(lengths) // 10])
    rows = rows[lengths[rows] >= AT_LEAST]
    row_of = np.repeat(np.arange(len(lengths)), lengths)
    order = np.lexsort((rng.random(matrix.nnz), row_of))
    place = np.empty(matrix.nnz, np.int64)
    place[order] = np.arange(matrix.nnz) - np.repeat(matrix.indptr[:-1], lengths)
    is_hidden, is_first = np.isin(row_of, rows), place < lengths[row_of] // 2

    def part(keep: npt.NDArray[np.bool_]) -> csr_matrix:
        found = csr_matrix((matrix.data[keep], (row_of[keep], matrix.indices[keep])), shape=matrix.shape)
        found.sort_indices()
        return found

    return Hidden(rows, part(~is_hidden), part(is_hidden & is_first), part(is_hidden & ~is_first))


def train(trainer: str, parameters: dict[str, Any], matrix: csr_matrix, seed: int) -> tuple[Factors, Any]:
    """Train; users and items without interactions get zeros, and such items a bias that keeps them out."""
    method = find_trainer(trainer)
    users, items = (np.flatnonzero(np.asarray(matrix.sum(axis=axis)).ravel()) for axis in (1, 0))
    part = matrix[users][:, items].tocsr()
    part.sort_indices()
    config = method.complete(method.configure(parameters), LogShape.of(part))
    found = method.train(part, config, RunOptions(seed=seed, threads=1))
    user_factors, item_factors = (np.zeros((n, found.user_factors.shape[1]), np.float32) for n in matrix.shape)
    user_factors[users], item_factors[items] = found.user_factors, found.item_factors
    bias = np.full(matrix.shape[1], -1e9, np.float32)
    bias[items] = found.item_bias
    return Factors(user_factors, item_factors, bias), config


def fold(trainer: str, given: csr_matrix, known: KnownSide, config: Any) -> tuple[Folded, float]:
    """What the trainer folds in, and the processor seconds that took."""
    method, start = find_trainer(trainer), time.process_time()
    assert method.fold_in is not None
    with threadpool_limits(1, "blas"):  # as the package does
        folded = method.fold_in(given, known, config, RunOptions(seed=1))
    return folded, time.process_time() - start


def fold_users(trainer: str, hidden: Hidden, learned: Factors, config: Any) -> tuple[Factors, float]:
    """The factors with the hidden users folded in, and the processor seconds that took."""
    counts = np.asarray((hidden.rest > 0).sum(axis=0)).ravel()
    items = np.flatnonzero(counts)
    known = KnownSide("item", learned.item_factors[items], learned.item_bias[items], counts[items].astype(np.int64))
    given = hidden.given[hidden.rows][:, items].tocsr()
    given.sort_indices()
    # Who has nothing that is known keeps the zeros.
    some = np.diff(given.indptr) > 0
    folded, seconds = fold(trainer, given[some], known, config)
    users = learned.user_factors.copy()
    users[hidden.rows[some]] = folded.factors
    return Factors(users, learned.item_factors, learned.item_bias), seconds


def of_users(trainer: str, parameters: dict[str, Any], matrix: csr_matrix, seed: int = 0) -> Result:
    """Recall@20 of hidden users."""
    hidden = hide(matrix, seed)
    learned, config = train(trainer, parameters, hidden.rest, seed)
    factors, seconds = fold_users(trainer, hidden, learned, config)
    full, _ = train(trainer, parameters, (hidden.rest + hidden.given).tocsr(), seed + 100)
    recalls = [evaluate(f, hidden.given, hidden.asked)[f"recall@{K}"] for f in (factors, full)]
    return Result(recalls[0], recalls[1], len(hidden.rows), seconds)


def of_items(trainer: str, parameters: dict[str, Any], matrix: csr_matrix, seed: int = 0) -> Result:
    """Share of held-out pairs of hidden items that are among the user's first 20 of all items."""
    hidden = hide(matrix.T.tocsr(), seed)
    rest, asked = hidden.rest.T.tocsr(), hidden.asked.T.tocsr()
    learned, config = train(trainer, parameters, rest, seed)
    counts = np.asarray((rest > 0).sum(axis=1)).ravel()
    users = np.flatnonzero(counts)
    known = KnownSide(
        "user", learned.user_factors[users], np.zeros(len(users), np.float32), counts[users].astype(np.int64)
    )
    given = hidden.given[hidden.rows][:, users].tocsr()
    given.sort_indices()
    some = np.diff(given.indptr) > 0
    folded, seconds = fold(trainer, given[some], known, config)
    items, bias = learned.item_factors.copy(), learned.item_bias.copy()
    items[hidden.rows[some]], bias[hidden.rows[some]] = folded.factors, folded.bias
    seen = (rest + hidden.given.T).tocsr()
    full, _ = train(trainer, parameters, seen, seed + 100)
    seen.sort_indices()
    who = np.flatnonzero(np.diff(asked.indptr))

    def share(factors: Factors) -> float:
        first = factors_ranking(factors, seen, who, K, progress=False)
        found = sum(np.isin(asked[user].indices, row).sum() for user, row in zip(who, first, strict=True))
        return float(found / asked.nnz)

    return Result(share(Factors(learned.user_factors, items, bias)), share(full), len(hidden.rows), seconds)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--dataset", choices=FILES, default="ml-100k")
    parser.add_argument("--trainers", nargs="+", default=[name for name in known_trainers() if name != "item2vec"])
    parser.add_argument("--items", action="store_true")
    parser.add_argument("--param", action="append", default=[], metavar="NAME=VALUE", help="of all trainers named")
    arguments = parser.parse_args()
    matrix = read_interactions(arguments.data / FILES[arguments.dataset]).to_csr()
    matrix.data[:] = 1
    parameters = dict(text.split("=", 1) for text in arguments.param)
    what = "items" if arguments.items else "users"
    print(f"| data set | trainer | folded in | trained in full | ratio | {what} | CPU s for 1,000 |")
    print("|---|---|---|---|---|---|---|")
    for trainer in arguments.trainers:
        found = (of_items if arguments.items else of_users)(trainer, parameters, matrix)
        print(
            f"| {arguments.dataset} | {trainer} | {found.folded_in:.4f} | {found.in_full:.4f} | **{found.ratio:.2f}** "
            f"| {found.n:,} | {found.seconds * 1000 / found.n:.2f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
