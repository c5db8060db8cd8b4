"""Train several trainers on one split, each in its own process."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from embedding_trainers.comparison.paired import Scored
from embedding_trainers.extra import import_extra
from embedding_trainers.interactions import Split
from embedding_trainers.trainer import LogShape, RunOptions, find_trainer
from feast_embeddings.errors import EmbeddingsError, InputError

__all__ = ["Contender", "train_each"]


@dataclass(frozen=True)
class Contender:
    """A trainer with hyper-parameters.

    Attributes:
        name: of its row in the table.
        trainer: see `find_trainer`.
        parameters: those that differ from the defaults.
    """

    name: str
    trainer: str
    parameters: Mapping[str, Any]

    def config(self, log: LogShape | None = None) -> dict[str, Any]:
        """All hyper-parameters, including the ones derived from the log if it is given.

        Raises:
            InputError: there is no such trainer, or it does not take one of the parameters.
        """
        trainer = find_trainer(self.trainer)
        config = trainer.configure(self.parameters)
        values: dict[str, Any] = (config if log is None else trainer.complete(config, log)).model_dump(mode="json")
        return values

    @property
    def reads_log(self) -> bool:
        """Whether it reads more than the matrix, see `Trainer.reads_log`."""
        trainer = find_trainer(self.trainer)
        return trainer.needs_log(trainer.configure(self.parameters))


class NotInstalledError(EmbeddingsError):
    """A contender needs a package that is not installed."""


def train_each(
    contenders: Sequence[Contender], split: Split, options: RunOptions
) -> tuple[list[Scored], dict[str, EmbeddingsError]]:
    """Train one after the other on the training part, and score the test users.

    Each runs in a new process, which ends with this one; those that read the log get that of the split. What it
    measures is documented in `Scored`.

    Returns:
        Those that were trained; and why the others were not, by name: an `InputError` where a contender cannot be
        trained with its hyper-parameters on this log, a `NotInstalledError` where a package is missing.
    """
    sparse = import_extra("scipy.sparse")
    scored = []
    failed: dict[str, EmbeddingsError] = {}
    log = LogShape.of(split.train)
    with tempfile.TemporaryDirectory(prefix="feast-embeddings-compare-") as name:
        folder = Path(name)
        sparse.save_npz(folder / "train.npz", split.train, compressed=False)
        sparse.save_npz(folder / "test.npz", split.test, compressed=False)
        if split.log is not None:
            split.log.save(folder / "log.arrow")
        bar = tqdm(contenders, desc="compare", unit="trainer", disable=not options.progress)
        for number, contender in enumerate(bar):
            bar.set_postfix_str(contender.name)
            try:
                scored.append(_train(folder, str(number), contender, log, split.include_seen, options))
            except EmbeddingsError as error:  # hours of the others are not lost for one
                failed[contender.name] = error
    return scored, failed


def _train(
    folder: Path, name: str, contender: Contender, log: LogShape, include_seen: bool, options: RunOptions
) -> Scored:
    config = contender.config(log)
    run = {"seed": options.seed, "threads": options.threads, "device": options.device}
    request = {"trainer": contender.trainer, "parameters": config, "options": run, "include_seen": include_seen}
    (folder / f"{name}.request.json").write_text(json.dumps(request), "utf-8")
    status = _run("-P", "-m", "embedding_trainers.comparison.process", str(folder), name)
    try:
        answer = json.loads((folder / f"{name}.answer.json").read_text("utf-8"))
    except (OSError, ValueError):
        how = f"signal {-status} ({signal.strsignal(-status)})" if status < 0 else f"exit code {status}"
        hint = "; it may have run out of memory" if status == -signal.SIGKILL else ""
        raise EmbeddingsError(f"the training of {contender.name} ended with {how}{hint}") from None
    if "error" in answer:
        kinds = {"input": InputError, "missing": NotInstalledError, "failure": EmbeddingsError}
        raise kinds[answer["kind"]](f"{contender.name}: {answer['error']}")
    values = np.load(folder / f"{name}.npy", allow_pickle=False)
    return Scored(contender.name, values, contender.trainer, config, answer["cpu_seconds"], answer["memory"] / 2**20)


def _run(*arguments: str) -> int:
    """Run Python to its end; what it prints goes to standard error."""
    # Its own session: Ctrl-C reaches this process, which then ends the other and all that it started.
    with subprocess.Popen(
        [sys.executable, *arguments], stdin=subprocess.PIPE, stdout=2, start_new_session=True
    ) as process:
        try:
            return process.wait()
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
