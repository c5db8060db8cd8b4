"""How well the trainers rank: on generated tastes with popular and rare items, and on Gowalla where it is present."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from tests.benchmarks.quality import read_split

from embedding_trainers.commands.config_file import read_config
from embedding_trainers.evaluation import evaluate
from embedding_trainers.interactions import Columns
from embedding_trainers.trainer import RunOptions, find_trainer

CONFIGS = Path(__file__).parents[2] / "configs"


@pytest.fixture(scope="module")
def tastes() -> tuple[csr_matrix, csr_matrix]:
    """1,200 users and 600 items of 10 tastes, popularity by a power law; a quarter of the pairs held back.

    By its own probabilities, the best ranking there is has recall@20 0.54 and ndcg@20 0.44; popularity 0.19 and 0.12.
    """
    rng = np.random.default_rng(0)
    popularity = 1 / np.arange(1, 601) ** 0.8
    rng.shuffle(popularity)
    of_user, of_item = rng.integers(10, size=1200), rng.integers(10, size=600)
    chance = popularity * np.where(of_user[:, None] == of_item, 60, 1)
    activity = np.clip(rng.lognormal(3, 0.6, 1200), 6, 150)
    met = rng.random(chance.shape) < 1 - np.exp(-chance / chance.sum(axis=1, keepdims=True) * activity[:, None])
    held = met & (rng.random(met.shape) < 0.25)
    kept = met & ~held
    kept[0], kept[:, 0] = True, True  # no empty row or column
    held &= ~kept
    return csr_matrix(kept.astype(np.float32)), csr_matrix(held.astype(np.float32))


@pytest.mark.parametrize(
    ("name", "metric", "bar"),
    [
        # Measured 0.359. Without the logQ correction it is 0.243, without the mean over passes 0.330.
        ("bpr", "ndcg@20", 0.345),
        # Measured 0.400. Without popularity in the lengths it is 0.251, without a norm for items 0.372.
        ("svd", "ndcg@20", 0.385),
        # Measured 0.393. With a temperature of 0.1 it is 0.300.
        ("softmax", "ndcg@20", 0.378),
        # Measured 0.521. With the same regularisation for all rows it is 0.492.
        ("als", "recall@20", 0.506),
    ],
)
def test_generated_tastes(tastes: tuple[csr_matrix, csr_matrix], name: str, metric: str, bar: float) -> None:
    """Each trainer finds the tastes so well that it needs its corrections for it."""
    trainer = find_trainer(name)
    factors = trainer.train(tastes[0], trainer.config(factors=16), RunOptions(seed=0, threads=1))

    assert bar < evaluate(factors, *tastes)[metric]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*/*.toml")), ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_configs(path: Path) -> None:
    """Each config that is committed is one that its trainer takes."""
    parameters: dict[str, Any] = read_config(path)
    find_trainer(parameters.pop("trainer")).configure(parameters)


@pytest.mark.parametrize(("name", "bar"), [("svd-64", 0.150), ("als-64", 0.155)])
def test_gowalla(real_data: Path, name: str, bar: float) -> None:
    """Recall@20 on the published split of Gowalla is what docs/quality.md says, but for rounding."""
    if not (real_data / "gowalla_test.parquet").is_file():
        pytest.skip(f"no Gowalla in {real_data}")
    split = read_split(real_data / "gowalla_train.parquet", real_data / "gowalla_test.parquet", Columns())
    parameters = read_config(CONFIGS / "gowalla" / f"{name}.toml")
    trainer = find_trainer(parameters.pop("trainer"))
    factors = trainer.train(split.train, trainer.configure(parameters), RunOptions(seed=0, threads=1))

    assert bar <= evaluate(factors, split.train, split.test)["recall@20"]
