"""What was tried on the way to configs/gowalla, each on a fifth of each user's training items held back.

    python -m tests.benchmarks.exploration --train gowalla_train.parquet [als] [bpr] [softmax] [svd]

Every line differs from the config in what it says and in nothing else. The test file has no part in it.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import implicit.cpu.als
import implicit.cpu.bpr
import numpy as np
import numpy.typing as npt
from scipy.sparse.linalg import svds
from tests.benchmarks.quality import read_split
from threadpoolctl import threadpool_limits

from embedding_trainers.commands.config_file import read_config
from embedding_trainers.evaluation import evaluate
from embedding_trainers.interactions import Columns, Split
from embedding_trainers.models.bpr import BPRConfig, train_bpr
from embedding_trainers.trainer import Factors, RunOptions, find_trainer

CONFIGS = Path(__file__).parents[2] / "configs" / "gowalla"
OPTIONS = RunOptions(seed=0, threads=1, device="cpu")
PASSES = (100, 200, 300, 400)

Tried = tuple[str, Callable[[], Factors]]


def _parameters(name: str) -> dict[str, Any]:
    """A config without the trainer's name."""
    return {key: value for key, value in read_config(CONFIGS / f"{name}.toml").items() if key != "trainer"}


def varied(split: Split, name: str, variations: list[dict[str, Any]]) -> Iterator[Tried]:
    """A config, and the same with other values."""
    trainer = find_trainer(name.split("-")[0])
    for other in [{}, *variations]:
        config = trainer.configure({**_parameters(name), **other})
        told = ", ".join(f"{key} {value:g}" for key, value in other.items())
        yield f"{name}, {told or 'as configured'}", functools.partial(trainer.train, split.train, config, OPTIONS)


def textbook_svd(split: Split, smoothing: float, power: float) -> Factors:
    """Users U Sᵖ, items (D_i + smoothing)^½ V Sᵖ of R̂ = D_u^-½ R (D_i + smoothing)^-½ ≈ U S Vᵀ."""
    of_users, of_items = (np.asarray(split.train.sum(axis=axis), np.float32).ravel() for axis in (1, 0))
    damped = np.sqrt(of_items + np.float32(smoothing))
    normalised = split.train.multiply(1 / np.sqrt(of_users)[:, None]).multiply(1 / damped).tocsr()
    start = np.random.default_rng(0).random(min(normalised.shape), dtype=np.float32)
    left, singular, right = svds(normalised.astype(np.float32), k=64, v0=start, tol=1e-3)
    users, items = left * singular**power, damped[:, None] * right.T * singular**power
    return Factors(
        np.ascontiguousarray(users, np.float32),
        np.ascontiguousarray(items, np.float32),
        np.zeros(len(items), np.float32),
    )


def implicit_als(split: Split, parameters: dict[str, Any]) -> Factors:
    """implicit's, where all rows share the regularisation that ours has on average over the interactions of a row."""
    alpha = parameters["alpha"]
    mean = split.train.sum() / split.train.shape[0]
    model = implicit.cpu.als.AlternatingLeastSquares(
        factors=parameters["factors"], iterations=parameters["iterations"], num_threads=1, random_state=0,
        regularization=parameters["regularization"] * alpha * mean,
    )  # fmt: skip
    confidence = split.train.copy()
    confidence.data = 1 + np.float32(alpha) * confidence.data
    model.fit(confidence, show_progress=False)
    return Factors(model.user_factors, model.item_factors, np.zeros(len(model.item_factors), np.float32))


def of_als(split: Split) -> Iterator[Tried]:
    yield from varied(
        split, "als-64", [{"iterations": 10}, {"alpha": 40}, {"alpha": 200}, {"regularization": 0.01},
                          {"regularization": 0.03}, {"regularization": 0.1}],
    )  # fmt: skip
    yield "als-64, one regularisation for all rows", functools.partial(implicit_als, split, _parameters("als-64"))


def of_svd(split: Split) -> Iterator[Tried]:
    for smoothing in (0, 50, 100):
        for power in (0.5, 1):
            yield (
                f"svd, singular vectors alone, smoothing {smoothing}, singular values to the power {2 * power:g}",
                functools.partial(textbook_svd, split, smoothing, power),
            )
    yield from varied(
        split, "svd-64",
        [{"refinements": 1}, {"refinements": 2}, {"refinements": 4}, {"refinements": 16}, {"popularity": 0},
         {"popularity": 0.4}, {"alpha": 30}, {"alpha": 300}, {"smoothing": 0}, {"regularization": 0.1}],
    )  # fmt: skip
    yield from varied(split, "svd-256", [{"refinements": 2}])


def of_bpr(split: Split) -> Iterator[Tried]:
    """implicit's training and ours, looked at on the way: a pass alone next to the mean over passes."""
    config = BPRConfig.model_validate({**_parameters("bpr-64"), "popularity_correction": 0})
    popularity = np.log1p(np.bincount(split.train.indices, minlength=split.train.shape[1])).astype(np.float32)
    kept: dict[str, Factors] = {}

    def keep(iteration: int, factors: Callable[[], Factors]) -> bool:
        if iteration in PASSES:
            kept[f"mean of {iteration} passes"] = factors()
        return False

    def last(epoch: int, *_: Any) -> None:
        if epoch + 1 in PASSES:
            users, items = model.user_factors, model.item_factors
            kept[f"pass {epoch + 1} alone"] = Factors(users[:, :-1].copy(), items[:, :-1].copy(), items[:, -1].copy())

    model: Any = implicit.cpu.bpr.BayesianPersonalizedRanking(
        factors=config.factors, iterations=config.iterations, learning_rate=config.learning_rate,
        regularization=config.regularization, num_threads=1, random_state=OPTIONS.seed,
    )  # fmt: skip
    model.fit(split.train, show_progress=False, callback=last)
    train_bpr(split.train, config, dataclasses.replace(OPTIONS, watch=keep))
    for what, found in kept.items():
        for correction in (0, 0.6, 1):
            yield (
                f"bpr-64, {what}, popularity_correction {correction:g}",
                functools.partial(_with_bias, found, np.float32(correction) * popularity),
            )


def of_softmax(split: Split) -> Iterator[Tried]:
    yield from varied(
        split, "softmax-64",
        [{"temperature": 0.07}, {"temperature": 0.14}, {"learning_rate": 0.01}, {"iterations": 40}],
    )  # fmt: skip


def _with_bias(factors: Factors, more: npt.NDArray[np.float32]) -> Factors:
    return dataclasses.replace(factors, item_bias=factors.item_bias + more)


TRIED: dict[str, Callable[[Split], Iterator[Tried]]] = {
    "als": of_als,
    "bpr": of_bpr,
    "softmax": of_softmax,
    "svd": of_svd,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trainers", nargs="*", choices=[*TRIED, []], help="all by default")
    parser.add_argument("--train", type=Path, required=True)
    arguments = parser.parse_args()
    split = read_split(arguments.train, None, Columns())
    print(f"{split.method}: {split.test.nnz:,} pairs of {split.n_test_users:,} users\n")
    print("| tried | Recall@20 | NDCG@20 | CPU s |\n|---|---|---|---|")
    for name in arguments.trainers or TRIED:
        for what, train in TRIED[name](split):
            start = time.process_time()
            with threadpool_limits(1):
                factors = train()
            seconds = time.process_time() - start
            found = evaluate(factors, split.train, split.test)
            print(f"| {what} | {found['recall@20']:.4f} | {found['ndcg@20']:.4f} | {seconds:.1f} |", flush=True)


if __name__ == "__main__":
    main()
