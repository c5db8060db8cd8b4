"""Train with one trainer in this process, so that its CPU time and its highest memory are of that trainer alone.

``python -P -m embedding_trainers.comparison.process FOLDER NAME`` reads the split and ``NAME.request.json`` in FOLDER,
and writes ``NAME.answer.json`` and the metrics of each test user, ``NAME.npy``. `runs` starts it.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedding_trainers.evaluation.report import score_users
from embedding_trainers.extra import import_extra
from embedding_trainers.trainer import RunOptions, TrainingLog, find_trainer
from feast_embeddings.errors import EmbeddingsError, InputError, MissingExtraError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["cpu_seconds", "main", "peak_memory"]


def peak_memory() -> int:
    """The most memory that this process held, in bytes."""
    try:
        status = Path("/proc/self/status").read_text("utf-8")
    except OSError:
        highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return highest if sys.platform == "darwin" else highest * 1024
    # On Linux ru_maxrss would start with what the process that started this one held.
    [line] = [line for line in status.splitlines() if line.startswith("VmHWM:")]
    return int(line.split()[1]) * 1024


def main() -> None:
    """The program."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    folder, name = Path(sys.argv[1]), sys.argv[2]
    try:
        answer = _run(folder, name)
    except InputError as error:
        answer = {"error": str(error), "kind": "input"}
    except MissingExtraError as error:
        answer = {"error": str(error), "kind": "missing"}
    except EmbeddingsError as error:
        answer = {"error": str(error), "kind": "failure"}
    except Exception as error:  # of a trainer, which may be anyone's
        answer = {"error": f"{type(error).__name__}: {error}", "kind": "failure"}
    (folder / f"{name}.answer.json").write_text(json.dumps(answer), "utf-8")


def _run(folder: Path, name: str) -> dict[str, Any]:
    request = json.loads((folder / f"{name}.request.json").read_text("utf-8"))
    trainer = find_trainer(request["trainer"])
    config = trainer.configure(request["parameters"])
    options = RunOptions(**request["options"])
    train = _matrix(folder / "train.npz")
    log = TrainingLog.load(path) if (path := folder / "log.arrow").is_file() and trainer.needs_log(config) else None
    before = cpu_seconds()
    factors = trainer.fit(train, config, options, log)
    taken = cpu_seconds() - before
    memory = peak_memory()
    test = _matrix(folder / "test.npz")
    masked = type(train)(train.shape, dtype=np.float32) if request["include_seen"] else train
    with import_extra("threadpoolctl").threadpool_limits(options.threads or None):
        values = score_users(factors, masked, test)
    np.save(folder / f"{name}.npy", values, allow_pickle=False)
    return {"cpu_seconds": taken, "memory": memory}


def cpu_seconds() -> float:
    """User and system time of this process, and of those that it started and that ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _matrix(path: Path) -> csr_matrix:
    matrix: csr_matrix = import_extra("scipy.sparse").load_npz(path)
    matrix.sort_indices()
    return matrix


def _end_with_the_parent() -> None:
    """Standard input is a pipe in which nothing is written; it ends when the parent does, however that ended."""
    os.read(0, 1)
    os._exit(1)


if __name__ == "__main__":
    main()
