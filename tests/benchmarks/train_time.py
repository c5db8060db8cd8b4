"""What training costs next to implicit's own fit of the same matrix, with as many factors, iterations and threads.

    python -m tests.benchmarks.train_time --interactions gowalla_train.parquet --threads 1

Three sides take turns: implicit's fit, our trainer, and the whole of `train` without evaluation: reading the file,
training, and writing the version. CPU times are printed with the wall times; they say more on a busy machine.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import implicit.cpu.als
import implicit.cpu.bpr
import numpy as np
from threadpoolctl import threadpool_limits

from embedding_trainers.interactions import Columns, read_interactions
from embedding_trainers.train import train_model
from embedding_trainers.trainer import RunOptions, find_trainer
from feast_embeddings.repo import init_repo

_THEIRS = {
    "als": implicit.cpu.als.AlternatingLeastSquares,
    "bpr": implicit.cpu.bpr.BayesianPersonalizedRanking,
}


def measure(path: Path, columns: Columns, name: str, parameters: dict[str, int], threads: int, runs: int) -> None:
    trainer, options = find_trainer(name), RunOptions(threads=threads, device="cpu")
    config = trainer.configure(parameters)
    user_items = read_interactions(path, columns).to_csr()

    def theirs() -> object:
        model: Any = _THEIRS[name](**parameters, num_threads=threads, random_state=0)
        return model.fit(user_items, show_progress=False)

    with tempfile.TemporaryDirectory() as folder:
        repo = Path(folder) / "repo"
        init_repo(repo)

        def whole() -> object:
            return train_model(
                repo, "m", path, columns=columns, trainer=name, parameters=parameters, options=options,
                evaluation=False, align_to=None,
            )  # fmt: skip

        sides: dict[str, Callable[[], object]] = {
            "implicit's fit": theirs,
            "ours": lambda: trainer.train(user_items, config, options),
            "train": whole,
        }
        seconds: dict[str, list[tuple[float, float]]] = {side: [] for side in sides}
        for _ in range(runs):
            for side, call in sides.items():
                start, cpu = time.perf_counter(), time.process_time()
                with threadpool_limits(1, "blas"):  # implicit asks for it
                    call()
                seconds[side].append((time.perf_counter() - start, time.process_time() - cpu))
    told = ", ".join(f"{key} {value}" for key, value in parameters.items())
    for what, place in (("wall time", 0), ("CPU time", 1)):
        base, ours, train = (float(np.median([times[place] for times in each])) for each in seconds.values())
        print(
            f"{name} ({told}, {threads} threads), {what}: implicit's fit {base:.1f} s, ours {ours:.1f} s = "
            f"{ours / base:.2f}, the whole of train {train:.1f} s = {train / base:.2f}   (bar: at most 1.15)",
            flush=True,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interactions", type=Path, required=True)
    parser.add_argument("--user-column", default="user_id")
    parser.add_argument("--item-column", default="item_id")
    parser.add_argument("--trainers", nargs="+", choices=_THEIRS, default=list(_THEIRS))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--factors", type=int, default=64)
    parser.add_argument("--als-iterations", type=int, default=10)
    parser.add_argument("--bpr-iterations", type=int, default=30)
    arguments = parser.parse_args()
    columns = Columns(user=arguments.user_column, item=arguments.item_column)
    iterations_of = {"als": arguments.als_iterations, "bpr": arguments.bpr_iterations}
    for name in arguments.trainers:
        parameters = {"factors": arguments.factors, "iterations": iterations_of[name]}
        measure(arguments.interactions, columns, name, parameters, arguments.threads, arguments.runs)


if __name__ == "__main__":
    main()
