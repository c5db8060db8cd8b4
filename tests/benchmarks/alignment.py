"""What alignment is worth: a classifier of version 1 vectors, and version 1 neighbours, read with version 2 vectors.

    python -m tests.benchmarks.alignment --data DIR                  # needs the extra analysis
    python -m tests.benchmarks.alignment --data DIR --thresholds     # what the limits were chosen from
    python -m tests.benchmarks.alignment --data DIR --chain          # versions aligned each to the one before

DIR holds MovieLens 100K as ``ml-100k_interactions.parquet`` and ``ml-100k_users.parquet``. Version 1 is of the first
80 % of the time, version 2 of all of it with another seed.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from embedding_trainers.alignment import MAX_RESIDUAL, align, residual_of
from embedding_trainers.interactions import Interactions, read_interactions
from embedding_trainers.interactions.tables import factor_tables
from embedding_trainers.trainer import RunOptions, find_trainer, known_trainers
from feast_embeddings.artifact import Artifact, EmbeddingTable, Entity, TrainerInfo, write_artifact

Tables = dict[Entity, EmbeddingTable]
Floats = npt.NDArray[np.float64]
FOLDS = 10
K = 10


@dataclass(frozen=True)
class Run:
    """One training: its log and its tables."""

    log: Interactions
    tables: Tables

    def vectors(self, entity: Entity) -> tuple[list[Any], Floats]:
        table = self.tables[entity]
        return table.ids.to_pylist(), table.embedding.astype(np.float64)


def fit(trainer: str, log: Interactions, seed: int, factors: int) -> Run:
    method = find_trainer(trainer)
    matrix = log.to_csr()
    learned = method.train(matrix, method.configure({"factors": factors}), RunOptions(seed=seed, threads=1))
    return Run(log, factor_tables(log.summary(), matrix, learned))


def written(folder: Path, run: Run) -> Artifact:
    return write_artifact(
        folder,
        "m",
        users=run.tables["user"],
        items=run.tables["item"],
        as_of=datetime.now(UTC),
        trainer=TrainerInfo(name="benchmark", config={}),
        seed=None,
        metrics={},
        fingerprint="",
        n_interactions=len(run.log),
    )


def rows(log: Interactions, keep: npt.NDArray[np.bool_]) -> Interactions:
    """A log of some of the rows, read as a file of its own would be."""
    table = pa.table(
        {
            "user_id": log.users.take(pa.array(log.user_numbers[keep])),
            "item_id": log.items.take(pa.array(log.item_numbers[keep])),
        }
    )
    with TemporaryDirectory() as folder:
        pq.write_table(table, Path(folder) / "log.parquet")
        return read_interactions(Path(folder) / "log.parquet")


def accuracies(first: Run, second: dict[str, Run], label: dict[Any, str]) -> dict[str, float]:
    """Mean over folds of users: a classifier fitted on the other folds, scored on this one's version 2 vectors."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    ids_1, matrix_1 = first.vectors("user")
    ids_2, aligned = second["aligned"].vectors("user")
    unaligned = second["unaligned"].vectors("user")[1]
    fold_of = dict(zip(sorted(label), np.random.default_rng(0).permutation(len(label)) % FOLDS, strict=True))
    labels_1, labels_2 = (np.array([label[id] for id in ids]) for ids in (ids_1, ids_2))
    folds_1, folds_2 = (np.array([fold_of[id] for id in ids]) for ids in (ids_1, ids_2))
    right: dict[str, list[float]] = {}
    for fold in range(FOLDS):
        seen_1, seen_2, asked = folds_1 != fold, folds_2 != fold, folds_2 == fold

        def classifier(matrix: Floats, labels: npt.NDArray[np.str_]) -> Any:
            return make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=1000)).fit(matrix, labels)

        of_first = classifier(matrix_1[seen_1], labels_1[seen_1])
        retrained = classifier(aligned[seen_2], labels_2[seen_2])
        names, counts = np.unique(labels_1[seen_1], return_counts=True)
        answers = {
            "majority": np.full(int(asked.sum()), names[counts.argmax()]),
            "unaligned": of_first.predict(unaligned[asked]),
            "aligned": of_first.predict(aligned[asked]),
            "retrained": retrained.predict(aligned[asked]),
        }
        for name, answer in answers.items():
            right.setdefault(name, []).extend(answer == labels_2[asked])
    return {name: float(np.mean(values)) for name, values in right.items()}


def overlaps(first: Run, second: dict[str, Run]) -> dict[str, float]:
    """Of the ten items nearest to a version 1 vector among version 1 vectors, the share found among version 2's."""
    ids_1, matrix_1 = first.vectors("item")
    position = {id: n for n, id in enumerate(second["aligned"].vectors("item")[0])}
    shared = np.array([position[id] for id in ids_1])

    def nearest(queries: Floats, matrix: Floats) -> npt.NDArray[np.int64]:
        unit_queries, unit = (m / np.linalg.norm(m, axis=1, keepdims=True) for m in (queries, matrix))
        cosine = unit_queries @ unit.T
        np.fill_diagonal(cosine, -np.inf)
        return np.argsort(-cosine, axis=1)[:, :K]

    before = nearest(matrix_1, matrix_1)

    def overlap(after: npt.NDArray[np.int64]) -> float:
        return float(np.mean([len(set(a) & set(b)) / K for a, b in zip(before, after, strict=True)]))

    of_second = {name: run.vectors("item")[1][shared] for name, run in second.items()}
    return {
        "majority": K / (len(ids_1) - 1),
        **{name: overlap(nearest(matrix_1, matrix)) for name, matrix in of_second.items()},
        "retrained": overlap(nearest(of_second["aligned"], of_second["aligned"])),
    }


def table(data: Path, trainers: list[str], factors: int) -> None:
    """Print accuracies and overlaps per trainer, each a mean over three pairs of seeds."""
    log = read_interactions(data / "ml-100k_interactions.parquet")
    assert log.timestamps is not None
    early = rows(log, log.timestamps <= np.quantile(log.timestamps, 0.8))
    users = pq.read_table(data / "ml-100k_users.parquet").to_pandas().set_index("user_id")
    tasks = {
        "age under 30": (users.age < 30).map({True: "y", False: "n"}).to_dict(),
        "gender": users.gender.to_dict(),
    }
    print("| trainer | what | floor | unaligned | **aligned** | ceiling |\n|---|---|---|---|---|---|")
    for trainer in trainers:
        results: dict[str, list[dict[str, float]]] = {}
        fits = []
        for seed in range(3):
            with TemporaryDirectory() as folder:
                first, new = fit(trainer, early, seed, factors), fit(trainer, log, seed + 100, factors)
                done = align(written(Path(folder), first), new.tables)
            assert done.alignment is not None, done.refused
            fits.append(done.alignment)
            second = {"unaligned": new, "aligned": Run(log, dict(done.tables))}
            for task, label in tasks.items():
                results.setdefault(f"accuracy, {task}", []).append(accuracies(first, second, label))
            results.setdefault("item neighbours overlap@10", []).append(overlaps(first, second))
        for what, values in results.items():
            mean = {name: np.mean([value[name] for value in values]) for name in values[0]}
            floor, unaligned, aligned, ceiling = (mean[n] for n in ("majority", "unaligned", "aligned", "retrained"))
            print(f"| {trainer} | {what} | {floor:.3f} | {unaligned:.3f} | **{aligned:.3f}** | {ceiling:.3f} |")
        names = ("residual", "cosine_before", "cosine")
        means = ", ".join(f"{name} {np.mean([getattr(f, name) for f in fits]):.2f}" for name in names)
        print(f"  {trainer}: {means}; shared {fits[0].shared_users} users, {fits[0].shared_items} items", flush=True)


def thresholds(data: Path, trainers: list[str], factors: int) -> None:
    """Print residuals of retrainings, which should pass, and of trainings with nothing in common, which should not."""
    log = read_interactions(data / "ml-100k_interactions.parquet")
    assert log.timestamps is not None
    rng = np.random.default_rng(0)
    shuffled = Interactions(log.users, log.items, log.user_numbers, rng.permutation(log.item_numbers))
    renamed = Interactions(
        log.users.take(pa.array(rng.permutation(len(log.users)))),
        log.items.take(pa.array(rng.permutation(len(log.items)))),
        log.user_numbers,
        log.item_numbers,
    )
    part = rng.random(len(log)) < 0.5
    pairs = {"same log, other seed": (log, log)}
    for share in (0.9, 0.8, 0.5):
        pairs[f"first {share:.0%} of the time, then all"] = (
            rows(log, log.timestamps <= np.quantile(log.timestamps, share)),
            log,
        )
    pairs |= {
        "two halves without a common row": (rows(log, part), rows(log, ~part)),
        "items shuffled among the rows": (log, shuffled),
        "ids permuted": (log, renamed),
    }
    print(f"| version 1, version 2 | {' | '.join(f'{t} {factors}' for t in trainers)} |\n|---|{'---|' * len(trainers)}")
    for what, (before, after) in pairs.items():
        cells = []
        for trainer in trainers:
            with TemporaryDirectory() as folder:
                previous = written(Path(folder), fit(trainer, before, 0, factors))
                cells.append(f"{residual_of(previous, fit(trainer, after, 1, factors).tables):.2f}")
        print(f"| {what} | {' | '.join(cells)} |", flush=True)
    print(f"refused above {MAX_RESIDUAL}")


def chain(data: Path, trainers: list[str], factors: int) -> None:
    """Print how far versions drift that are aligned each to the one before, next to alignment to the first of them."""
    log = read_interactions(data / "ml-100k_interactions.parquet")
    assert log.timestamps is not None
    shares = (0.5, 0.6, 0.7, 0.8, 0.9, 1)
    logs = [rows(log, log.timestamps <= np.quantile(log.timestamps, share)) for share in shares]
    users = pq.read_table(data / "ml-100k_users.parquet").to_pandas().set_index("user_id")
    label = (users.age < 30).map({True: "y", False: "n"}).to_dict()
    print(
        "| trainer | version | cosine to version 1 | aligned to version 1 | accuracy | aligned to version 1 | ceiling |"
    )
    print("|---|---|---|---|---|---|---|")
    for trainer in trainers:
        with TemporaryDirectory() as folder:
            first = previous = fit(trainer, logs[0], 0, factors)
            origin = written(Path(folder) / "origin", first)
            for number, part in enumerate(logs[1:], start=2):
                new = fit(trainer, part, number, factors)
                stepwise = align(written(Path(folder) / str(number), previous), new.tables)
                previous = Run(part, dict(stepwise.tables))
                directly = align(origin, previous.tables)
                assert stepwise.alignment, stepwise.refused
                assert directly.alignment, directly.refused
                right = accuracies(first, {"aligned": Run(part, dict(directly.tables)), "unaligned": previous}, label)
                cosines = f"{directly.alignment.cosine_before:.2f} | {directly.alignment.cosine:.2f}"
                print(
                    f"| {trainer} | {number} | {cosines} "
                    f"| {right['unaligned']:.3f} | {right['aligned']:.3f} | {right['retrained']:.3f} |",
                    flush=True,
                )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--trainers", nargs="+", default=known_trainers())
    parser.add_argument("--thresholds", action="store_true")
    parser.add_argument("--chain", action="store_true")
    arguments = parser.parse_args()
    measure = thresholds if arguments.thresholds else chain if arguments.chain else table
    measure(arguments.data, arguments.trainers, arguments.factors)


if __name__ == "__main__":
    main()
