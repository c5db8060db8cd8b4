"""Do similar items look alike? Genres that an item of MovieLens 100K shares with its nearest neighbours, by trainer.

    python -m tests.benchmarks.neighbours --data FOLDER

Each trainer learns from the whole log with its defaults and one thread. Printed is the mean, over items with at least
--least interactions, of the Jaccard index of the genres of an item and each of its 10 nearest by cosine; and the share
of these that have fewer than --least interactions. A filter on n_interactions keeps such out of answers.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from threadpoolctl import threadpool_limits

from embedding_trainers.interactions import Interactions, read_interactions
from embedding_trainers.interactions.attributes import read_attributes
from embedding_trainers.trainer import LogShape, RunOptions, find_trainer, known_trainers

_NEAREST = 10

Genres = npt.NDArray[np.float32]


def genres_of(path: Path, ids: pa.Array) -> Genres:
    """Which genres each item has, shape (n_items, genres)."""
    lists = read_attributes(path, ("item_id",), ids)[0]["genres"].to_pylist()
    known = sorted({genre for genres in lists for genre in genres or ()})
    return np.array([[genre in (genres or ()) for genre in known] for genres in lists], np.float32)


def nearest_to(vectors: npt.NDArray[np.float32], asked: npt.NDArray[np.integer]) -> npt.NDArray[np.intp]:
    """The nearest of each of the asked items, shape (n, 10)."""
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    cosines = unit[asked] @ unit.T
    cosines[np.arange(len(asked)), asked] = -np.inf
    nearest: npt.NDArray[np.intp] = np.argpartition(-cosines, _NEAREST)[:, :_NEAREST]
    return nearest


def shared(nearest: npt.NDArray[np.intp], genres: Genres, asked: npt.NDArray[np.integer]) -> float:
    """The mean Jaccard index of the asked items and their nearest."""
    both = (genres[asked][:, None] * genres[nearest]).sum(axis=2)
    either = np.maximum(genres[asked][:, None], genres[nearest]).sum(axis=2)
    return float((both / np.maximum(either, 1)).mean())


def learned(name: str, log: Interactions) -> tuple[npt.NDArray[np.float32], float]:
    """Vectors of items, and the CPU seconds that they took."""
    trainer, matrix = find_trainer(name), log.to_csr()
    config = trainer.complete(trainer.config(), LogShape.of(matrix))
    with threadpool_limits(1):
        began = time.process_time()
        factors = trainer.fit(matrix, config, RunOptions(seed=0, threads=1), log.training_log())
        return factors.item_factors, time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--trainers", nargs="+", default=known_trainers())
    parser.add_argument("--least", type=int, default=5)
    options = parser.parse_args()
    log = read_interactions(options.data / "ml-100k_interactions.parquet")
    genres = genres_of(options.data / "ml-100k_items.parquet", log.items)
    is_rare = np.bincount(log.item_numbers, minlength=len(log.items)) < options.least
    asked = np.flatnonzero(~is_rare)
    print(f"{len(asked):,} items, and {is_rare.mean():.1%} of all have fewer than {options.least} interactions\n")
    print("| trained | genres shared | rare neighbours | CPU s |\n|---|---|---|---|")
    for name in options.trainers:
        vectors, seconds = learned(name, log)
        nearest = nearest_to(vectors, asked)
        rare = is_rare[nearest].mean()
        print(f"| {name} | {shared(nearest, genres, asked):.3f} | {rare:.1%} | {seconds:.1f} |", flush=True)
    drawn = np.random.default_rng(0).standard_normal((len(log.items), 64)).astype(np.float32)
    nearest = nearest_to(drawn, asked)
    print(f"| at random | {shared(nearest, genres, asked):.3f} | {is_rare[nearest].mean():.1%} | |")


if __name__ == "__main__":
    main()
