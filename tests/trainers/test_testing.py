"""The conformance tests that ship with the package: they pass for our trainers, and fail for broken ones."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import Field

from embedding_trainers.models.svd import SVD, SVDConfig
from embedding_trainers.testing import TrainerTests
from embedding_trainers.trainer import Factors, Folded, RunOptions, Trainer, find_trainer, known_trainers


class TestEveryTrainer(TrainerTests):
    """Those that come with the package, but for the one that trains with torch: models/sequential/test_sasrec.py."""

    @pytest.fixture(autouse=True, params=[name for name in known_trainers() if name != "sasrec"])
    def _each(self, request: pytest.FixtureRequest) -> None:
        self.trainer = find_trainer(request.param)


def svd(change: Callable[[Any, Factors], Factors]) -> Trainer[Any]:
    def train(user_items: Any, config: SVDConfig, options: RunOptions) -> Factors:
        return change(user_items, SVD.train(user_items, config, options))

    return replace(SVD, train=train)


def forgets_the_seed(_: Any, factors: Factors) -> Factors:
    return replace(factors, item_bias=factors.item_bias + np.random.default_rng().random(dtype=np.float32))


def changes_its_input(user_items: Any, factors: Factors) -> Factors:
    user_items.data[0] = 5
    return factors


def prints(_: Any, factors: Factors) -> Factors:
    print("done")
    return factors


def prints_from_c(_: Any, factors: Factors) -> Factors:
    subprocess.run([sys.executable, "-c", "print('done')"], check=True)
    return factors


def ranks_worst_first(_: Any, factors: Factors) -> Factors:
    return replace(factors, user_factors=-factors.user_factors)


def is_double(_: Any, factors: Factors) -> Factors:
    return replace(factors, user_factors=factors.user_factors.astype(np.float64))


def loses_a_factor(_: Any, factors: Factors) -> Factors:
    return Factors(factors.user_factors[:, 1:].copy(), factors.item_factors[:, 1:].copy(), factors.item_bias)


def cannot_do_one_user(user_items: Any, factors: Factors) -> Factors:
    return factors if user_items.shape[0] > 1 else replace(factors, item_bias=factors.item_bias[:0])


def svd_without_weights() -> Trainer[Any]:
    def train(user_items: Any, config: SVDConfig, options: RunOptions) -> Factors:
        return SVD.train(user_items.sign(), config, options)

    return Trainer(SVDConfig, train)


class BadDefault(SVDConfig):
    smoothing: float = Field(default=0.5, ge=0, json_schema_extra={"search": {"low": 1, "high": 300}})


class BadEdge(SVDConfig):
    smoothing: float = Field(default=50, le=100, json_schema_extra={"search": {"low": 1, "high": 300}})


class Forgiving(SVDConfig, extra="ignore"):
    pass


class ForgivingTrainer(Trainer[SVDConfig]):
    def configure(self, parameters: Any) -> SVDConfig:
        return self.config.model_validate(dict(parameters))


class Lossy(SVDConfig):
    smoothing: float = Field(default=50, ge=0, exclude=True)


def folds_in_nonsense(history: Any, known: Any, config: SVDConfig, options: RunOptions) -> Folded:
    n = history.shape[0]
    return Folded(np.ones((n, known.factors.shape[1]), np.float32), np.zeros(n, np.float32))


def folds_in_without_bias(history: Any, known: Any, config: SVDConfig, options: RunOptions) -> Folded:
    return Folded(history @ known.factors, np.zeros(0, np.float32))


def folds_in_differently(history: Any, known: Any, config: SVDConfig, options: RunOptions) -> Folded:
    return Folded((history @ known.factors) * np.float32(np.random.default_rng().random()), np.zeros(50, np.float32))


BROKEN: dict[str, tuple[Trainer[Any], dict[str, Any], str, str]] = {
    "ranks worst first": (svd(ranks_worst_first), {}, "finds_what_was_withheld", "1 threads"),
    "double": (svd(is_double), {}, "shapes", "user_factors: expected float32, got float64"),
    "loses a factor": (svd(loses_a_factor), {}, "shapes", r"user_factors: expected shape \(40, 8\), got \(40, 7\)"),
    "cannot do one user": (svd(cannot_do_one_user), {}, "tiny", "the scores of"),
    "forgets the seed": (svd(forgets_the_seed), {}, "same_seed_same_bytes", "item_bias differ between two runs"),
    "changes its input": (svd(changes_its_input), {}, "input_is_not_changed", "the input was changed: data"),
    "prints": (svd(prints), {}, "progress", "printed without being asked: 'done"),
    "prints from C": (svd(prints_from_c), {}, "progress", "printed without being asked: 'done"),
    "denies weights": (replace(SVD, uses_weights=False), {}, "weights", "is False, but weights change the factors"),
    "ignores weights": (svd_without_weights(), {}, "weights", "is True, but weights do not change the factors"),
    "forgiving": (ForgivingTrainer(Forgiving, SVD.train), {}, "unknown_parameter_is_refused", "configure took a"),
    "lossy config": (Trainer(Lossy, SVD.train), {"smoothing": 7}, "config_round_trip", "the JSON lost something"),
    "default not searched": (Trainer(BadDefault, SVD.train), {}, "search", r"the default smoothing=0\.5 is not in"),
    "nonsense": (replace(SVD, fold_in=folds_in_nonsense), {}, "fold_in", "against items"),
    "no bias": (
        replace(SVD, fold_in=folds_in_without_bias),
        {},
        "fold_in",
        "folded bias against items: expected shape",
    ),
    "differs": (replace(SVD, fold_in=folds_in_differently), {}, "fold_in_repeats", "folding in differs"),
}


@pytest.mark.parametrize(("trainer", "parameters", "test", "message"), BROKEN.values(), ids=BROKEN)
def test_broken_trainers_fail(trainer: Trainer[Any], parameters: dict[str, Any], test: str, message: str) -> None:
    """Each promise that a trainer breaks is found by the test of that promise, which says what is wrong."""
    tests = TrainerTests()
    tests.trainer = trainer
    tests.parameters = {"factors": 8} | parameters  # type: ignore[misc]

    with pytest.raises((AssertionError, ValueError), match=message):
        getattr(tests, f"test_{test}")()


def test_a_search_that_is_not_allowed_fails() -> None:
    """Both ends of what is searched must be values that the config takes."""
    tests = TrainerTests()
    tests.trainer = Trainer(BadEdge, SVD.train)

    with pytest.raises(Exception, match=r"smoothing=300\.0: Input should be less than or equal to 100"):
        tests.test_search()


def test_pytest_is_not_needed() -> None:
    """The module is imported without pytest, which is not among what users who train install."""
    script = "import sys, embedding_trainers.testing; print('pytest' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)

    assert done.stdout == "False\n"


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package of docs/trainers.md, installed into a folder of its own; and its tests."""
    page = (Path(__file__).parents[2] / "docs" / "trainers.md").read_text()
    code = re.findall(r"<!-- not run: tests/trainers/test_testing.py [^>]*-->\n```\w+\n(.*?)```", page, re.DOTALL)
    folder = tmp_path_factory.mktemp("package")
    for name, text in zip(("pure_svd.py", "pyproject.toml", "test_pure_svd.py"), code, strict=True):
        (folder / name).write_text(text)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-build-isolation", "--no-deps", "--no-index"]
    subprocess.run([*pip, "--target", folder / "site", folder], check=True)
    return folder


def test_a_documented_trainer(documented: Path, repo: Path, log: Path) -> None:
    """The trainer of the documentation is found, passes the tests as documented, and trains."""
    environment = {**os.environ, "PYTHONPATH": str(documented / "site")}
    pytest_run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:schemathesis"]
    done = subprocess.run(
        [*pytest_run, "test_pure_svd.py"], cwd=documented, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert f"{sum(name.startswith('test_') for name in dir(TrainerTests))} passed" in done.stdout

    script = "import sys; from embedding_trainers.commands.train import train; train(sys.argv[1:])"
    arguments = ["--repo", str(repo), "--model", "m", "--interactions", str(log)]
    arguments += ["--trainer", "pure_svd", "--tune", "2", "--json"]
    done = subprocess.run(
        [sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["trainer"]["name"] == "pure_svd"
