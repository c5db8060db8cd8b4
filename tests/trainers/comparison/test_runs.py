"""Each trainer in its own process: its cost is its own, and the error says how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix
from tests.conftest import Command

from embedding_trainers.comparison.runs import Contender, train_each
from embedding_trainers.evaluation.report import score_users
from embedding_trainers.interactions import Interactions, Split, split_by_user
from embedding_trainers.models.svd import SVD
from embedding_trainers.trainer import RunOptions
from feast_embeddings.errors import EmbeddingsError, InputError

ONE = RunOptions(threads=1)
TRAINERS = """
import os, signal, subprocess, sys, time
import numpy as np
from embedding_trainers.trainer import Factors, Trainer, TrainerConfig
from feast_embeddings.errors import InputError

class Config(TrainerConfig):
    burn: float = 0
    burn_in_child: float = 0
    hold_mib: int = 0
    fate: str = ""

BURN = "import time\\nwhile time.process_time() < {}: pass"

def train(matrix, config, options):
    start = time.process_time()
    while time.process_time() - start < config.burn:
        pass
    if config.burn_in_child:
        subprocess.run([sys.executable, "-c", BURN.format(config.burn_in_child)], check=True)
    held = np.ones(config.hold_mib << 17)
    del held
    if config.fate == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if config.fate == "exit":
        os._exit(3)
    if config.fate == "bug":
        raise KeyError("missing")
    if config.fate == "input":
        raise InputError("too odd a log")
    if config.fate == "print":
        print("printed by the trainer")
    if config.fate.startswith("fifo:"):
        with open(config.fate[5:], "w") as pipe:
            pipe.write("training\\n")
            pipe.flush()
            signal.pause()
    users, items = (np.ones((n, config.factors), np.float32) for n in matrix.shape)
    return Factors(users, items, np.zeros(len(items), np.float32))

ODD = Trainer(Config, train)
"""


@pytest.fixture(autouse=True)
def odd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package of someone else with a trainer ``odd``."""
    (tmp_path / "odd_trainers.py").write_text(TRAINERS)
    info = tmp_path / "odd-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: odd\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[embedding_trainers]\nodd = odd_trainers:ODD\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))


@pytest.fixture
def split(checkerboard: csr_matrix) -> Split:
    users, items = checkerboard.nonzero()
    user_ids, item_ids = (pa.array([f"{n:03}" for n in range(size)]) for size in checkerboard.shape)
    return split_by_user(Interactions(user_ids, item_ids, users.astype(np.int32), items.astype(np.int32)), seed=0)


def test_cost_is_of_that_trainer_alone(split: Split) -> None:
    """Neither CPU nor memory of another trainer, or of the process that compares, counts."""
    own = np.ones(600 << 17)  # 600 MiB, held while the others train
    start = time.process_time()
    while time.process_time() - start < 0.5:
        pass
    (idle, busy, parent, large, after), failed = train_each(
        [
            Contender("idle", "odd", {}),
            Contender("busy", "odd", {"burn": 1.5}),
            Contender("parent", "odd", {"burn_in_child": 1.5}),
            Contender("large", "odd", {"hold_mib": 300}),
            Contender("after", "odd", {}),
        ],
        split,
        ONE,
    )
    assert failed == {}
    assert own.nbytes == 600 << 20
    for light in (idle, large, after):
        assert light.cpu_seconds is not None
        assert light.cpu_seconds < 1.5
    for heavy in (busy, parent):
        assert heavy.cpu_seconds is not None
        assert 1.5 <= heavy.cpu_seconds < 3
    memory = {each.name: each.memory_mib or 0 for each in (idle, busy, large, after)}
    assert memory["large"] == pytest.approx(memory["idle"] + 300, abs=40)
    assert memory["after"] == pytest.approx(memory["idle"], abs=40)
    assert memory["idle"] < 600


def test_scores_are_those_of_this_process(split: Split, capfd: pytest.CaptureFixture[str]) -> None:
    """The same trainer here gives each user the same; what a trainer prints does not spoil standard output."""
    contenders = [Contender("s", "svd", {"factors": 4}), Contender("o", "odd", {"fate": "print"})]
    (svd, odd), _ = train_each(contenders, split, ONE)
    config = SVD.configure({"factors": 4})
    here = score_users(SVD.train(split.train, config, ONE), split.train, split.test)

    np.testing.assert_array_equal(svd.values, here)
    assert (svd.trainer, svd.config) == ("svd", config.model_dump())
    assert odd.values.shape == here.shape
    printed = capfd.readouterr()
    assert (printed.out, "printed by the trainer" in printed.err) == ("", True)


@pytest.mark.parametrize(
    ("fate", "kind", "message"),
    [
        ("killed", EmbeddingsError, "the training of x ended with signal 9 (Killed); it may have run out of memory"),
        ("exit", EmbeddingsError, "the training of x ended with exit code 3"),
        ("bug", EmbeddingsError, "x: KeyError: 'missing'"),
        ("input", InputError, "x: too odd a log"),
    ],
)
def test_a_training_that_fails(split: Split, fate: str, kind: type[EmbeddingsError], message: str) -> None:
    """However it ends, the error names the trainer and is bad input only if the trainer says so; the next goes on."""
    contenders = [Contender("x", "odd", {"fate": fate}), Contender("y", "odd", {})]
    scored, failed = train_each(contenders, split, ONE)
    assert [each.name for each in scored] == ["y"]
    assert {name: (type(error), str(error)) for name, error in failed.items()} == {"x": (kind, message)}


@pytest.mark.parametrize("fates", [["", "bug", "input"], ["input", "bug"], ["input", "input"], ["input"]])
def test_the_command_shows_the_rows_of_those_that_were_trained(
    tmp_path: Path, command: Command, fates: list[str]
) -> None:
    """The table has them, one line on standard error names all others; the exit code is 1, or 2 if all is bad input."""
    log, target = tmp_path / "log.csv", tmp_path / "found.json"
    log.write_text("user_id,item_id\n" + "".join(f"u{i % 7},i{i % 11}\n" for i in range(77)))
    arguments: list[object] = []
    for number, fate in enumerate(fates):
        config = tmp_path / f"{number}.toml"
        config.write_text(f'trainer = "odd"\nfactors = 2\nfate = "{fate}"\n')
        arguments += ["--config", config]
    errors = {"bug": "KeyError: 'missing'", "input": "too odd a log"}
    failed = {str(number): f"{number}: {errors[fate]}" for number, fate in enumerate(fates) if fate}

    answer = command("compare", "--interactions", log, *arguments, "--quiet", "--json", "--output", target)

    summary = "" if len(fates) == 1 else f"{len(failed)} of {len(fates)} trainers failed: "
    assert answer.err == f"error: {summary}{'; '.join(failed.values())}\n"
    assert answer.code == (2 if set(fates) == {"input"} else 1)
    if "" in fates:
        assert target.read_text() == answer.out
        found = json.loads(answer.out)
        assert ([row["name"] for row in found["compared"]], found["failed"]) == (["0"], failed)
    else:
        assert (answer.out, target.exists()) == ("", False)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGINT])
def test_a_training_ends_with_the_command(tmp_path: Path, ending: signal.Signals) -> None:
    """Killed or interrupted, the command leaves no training behind that nothing waits for."""
    log, fifo, config = tmp_path / "log.csv", tmp_path / "fifo", tmp_path / "waits.toml"
    log.write_text("user_id,item_id\n" + "".join(f"u{i % 7},i{i % 11}\n" for i in range(77)))
    config.write_text(f'trainer = "odd"\nfate = "fifo:{fifo}"\n')
    os.mkfifo(fifo)
    command = ["compare", "--interactions", str(log), "--config", str(config), "--quiet"]
    with subprocess.Popen(
        [sys.executable, "-c", "from feast_embeddings.cli import run; run()", *command],
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        with fifo.open() as pipe:
            assert pipe.readline() == "training\n"
            process.send_signal(ending)
            # The end of the pipe is that of the process that writes in it.
            assert pipe.read() == ""
        _, error = process.communicate()
    expected = (130, "interrupted") if ending is signal.SIGINT else (-signal.SIGKILL, "")
    assert (process.returncode, error.strip()) == expected
