"""The trainer that `train` chooses next to each single trainer with its defaults, on any logs.

    python -m tests.benchmarks.als_defaults --generate FOLDER
    python -m tests.benchmarks.auto gowalla_train.parquet ml-100k_interactions.parquet FOLDER/*.parquet

For each log and trainer it runs `feast-embeddings train --threads 1` as a command, and prints NDCG@20 on what that
holds back, and the CPU seconds of the whole command. NDCG of auto is that of the trainer it chose; what auto itself
reports is lower where a tenth of the users decides the race.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from embedding_trainers import AUTO
from embedding_trainers.trainer import known_trainers
from feast_embeddings.repo import init_repo


def run(repo: Path, log: Path, trainer: str) -> tuple[str, float, float]:
    """Train by the command: who was trained, the NDCG@20 that it reports, and its CPU seconds."""
    arguments = ["--repo", repo, "--model", trainer, "--interactions", log, "--trainer", trainer]
    command = [sys.executable, "-c", "from feast_embeddings.cli import run; run()", "train", *arguments, "--json"]
    with subprocess.Popen([*map(str, command), "--threads", "1"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        found = json.loads(process.stdout.read())
        _, status, used = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return found["trainer"]["name"], found["metrics"]["ndcg@20"], used.ru_utime + used.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("logs", type=Path, nargs="+")
    arguments = parser.parse_args()
    names = known_trainers()
    heads = ["log", *(f"{name}: NDCG@20, CPU s" for name in names)]
    heads += ["auto takes", "reports", "of the best", "CPU s", "of the winner alone"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|", flush=True)
    for log in arguments.logs:
        with tempfile.TemporaryDirectory() as folder:
            repo = init_repo(Path(folder) / "repo").path
            winner, reported, seconds = run(repo, log, AUTO)
            alone = {name: run(repo, log, name)[1:] for name in names}
        best = max(ndcg for ndcg, _ in alone.values())
        cells = [log.stem, *(f"{ndcg:.4f}, {cpu:.1f}" for ndcg, cpu in alone.values()), winner, f"{reported:.4f}"]
        cells += [f"{alone[winner][0] / best:.1%}", f"{seconds:.1f}", f"{seconds / alone[winner][1]:.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
