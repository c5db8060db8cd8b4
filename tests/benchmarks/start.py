"""How long a command takes to start: what `import feast` costs, and a command that needs Feast.

    python -m tests.benchmarks.start

Each is run in fresh processes, in turn; the medians of their CPU seconds and wall seconds are printed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from feast_embeddings.repo import init_repo


def seconds(command: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of one run, whatever its exit code."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=False, capture_output=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repo = init_repo(Path(folder) / "repo")
        cli = [sys.executable, "-c", "from feast_embeddings.cli import run; run()"]
        # Asks the registry, which needs Feast, and ends there: there is no such model.
        sides = {
            "import feast": [sys.executable, "-c", "import feast"],
            "feast-embeddings --help": [*cli, "--help"],
            "feast-embeddings item-embedding": [
                *cli,
                "item-embedding",
                "no-such",
                "--repo",
                str(repo.path),
                "--model",
                "x",
            ],
        }
        times = [{name: seconds(command) for name, command in sides.items()} for _ in range(options.runs)]
    for name in sides:
        cpu, wall = np.median([run[name] for run in times], axis=0)
        print(f"{name:28} {cpu:5.2f} CPU s, {wall:5.2f} s")


if __name__ == "__main__":
    main()
