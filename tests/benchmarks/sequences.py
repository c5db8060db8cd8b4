"""Who is asked next: the last item of each user, ranked among all that they have not had.

    python -m tests.benchmarks.sequences --log beauty.txt --trainers als sasrec --set sasrec.iterations=6

The log has a line for each interaction, "user item", in order, as the repository of BERT4Rec (FeiSun/BERT4Rec, folder
data) has Amazon Beauty; or is Parquet with the usual columns. The last item of a user is for the test, the one before
for the validation, and both are kept from training. Then users are folded in from all but the last, as a shop would do
between two trainings. HR@10 is the share of users whose item is among the first ten, with 95 % intervals.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.csv as pacsv
from scipy.sparse import csr_matrix

from embedding_trainers.interactions import read_interactions
from embedding_trainers.trainer import Factors, KnownSide, LogShape, RunOptions, TrainingLog, find_trainer

_FIRST = 10
_USERS = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--log", type=Path, required=True)
    parser.add_argument("--trainers", nargs="+", default=["als", "sasrec"])
    parser.add_argument("--set", nargs="*", default=[], metavar="TRAINER.NAME=VALUE")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    log = read(arguments.log)
    rank = from_end(log.user_rows)
    print(f"{log.user_rows.max() + 1:,} users, {log.item_columns.max() + 1:,} items, {len(log):,} interactions")
    for name in arguments.trainers:
        trainer = find_trainer(name)
        given = dict(each.split(".", 1)[1].split("=", 1) for each in arguments.set if each.startswith(f"{name}."))
        shape = (int(log.user_rows.max()) + 1, int(log.item_columns.max()) + 1)
        train = part(log, rank >= 2)
        # Items that only the held-back interactions have are never found.
        known_items = np.unique(train.item_columns)
        config = trainer.complete(trainer.configure(given), LogShape.of(matrix(train, shape)))
        options = RunOptions(seed=arguments.seed, threads=arguments.threads)
        users = np.unique(train.user_rows)
        of_known = train.of(users, known_items)
        start = time.process_time()
        factors = trainer.fit(matrix(of_known, (len(users), len(known_items))), config, options, of_known)
        seconds = time.process_time() - start
        print(f"{name} {given}: {seconds:.0f} CPU s")
        for what, held in (("validation", 1), ("test", 0)):
            history = part(log, rank > held).of(users, known_items)
            target = part(log, rank == held).of(users, known_items)
            found = hits(trainer, config, factors, history, target, (len(users), len(known_items)))
            n = shape[0]
            mean = found.sum() / n
            hit = (found > 0).sum() / n
            print(f"  {what}: HR@10 {hit:.4f} ± {1.96 * np.sqrt(hit * (1 - hit) / n):.4f}, NDCG@10 {mean:.4f}")


def read(path: Path) -> TrainingLog:
    """The log in order, with ranks as times where it has none."""
    if path.suffix == ".parquet":
        read = read_interactions(path)
        return TrainingLog(read.user_numbers, read.item_numbers, times=read.timestamps).by_time()
    table = pacsv.read_csv(
        path,
        pacsv.ReadOptions(column_names=["user", "item"]),
        pacsv.ParseOptions(delimiter=" "),
    )
    rows, columns = (table[name].combine_chunks().dictionary_encode().indices for name in ("user", "item"))
    return TrainingLog(rows.to_numpy(), columns.to_numpy(), times=np.arange(len(table), dtype=np.int64))


def from_end(users: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """How many interactions of its user come after each; shape (len(users),)."""
    by_user = np.argsort(users, kind="stable")
    ends = np.cumsum(np.bincount(users))[users[by_user]]
    ranks = np.empty(len(users), np.int64)
    ranks[by_user] = ends - 1 - np.arange(len(users))
    return ranks


def part(log: TrainingLog, chosen: npt.NDArray[np.bool_]) -> TrainingLog:
    """Those interactions."""
    return replace(
        log,
        user_rows=log.user_rows[chosen],
        item_columns=log.item_columns[chosen],
        times=None if log.times is None else log.times[chosen],
    )


def matrix(log: TrainingLog, shape: tuple[int, int]) -> csr_matrix:
    """Counts of the pairs."""
    counts = csr_matrix((np.ones(len(log), np.float32), (log.user_rows, log.item_columns)), shape=shape)
    counts.sum_duplicates()
    return counts


def hits(
    trainer: Any, config: Any, factors: Factors, history: TrainingLog, target: TrainingLog, shape: tuple[int, int]
) -> npt.NDArray[np.float64]:
    """The gain of each target: 1 / log2(1 + its rank), 0 beyond the first ten; shape (len(target),)."""
    seen = matrix(history, shape)
    degrees = np.asarray(seen.getnnz(axis=0), np.int64)
    known = KnownSide("item", factors.item_factors, factors.item_bias, degrees, network=factors.network)
    users = trainer.fold_in(seen, known, factors.config or config, RunOptions(log=history)).factors
    gains = np.zeros(len(target))
    for start in range(0, len(target), _USERS):
        rows, items = (array[start : start + _USERS] for array in (target.user_rows, target.item_columns))
        scores = users[rows] @ factors.item_factors.T + factors.item_bias
        scores[seen[rows].nonzero()] = -np.inf
        ranks = (scores > scores[np.arange(len(rows)), items][:, None]).sum(axis=1)
        gains[start : start + _USERS] = np.where(ranks < _FIRST, 1 / np.log2(ranks + 2), 0)
    return gains


if __name__ == "__main__":
    main()
