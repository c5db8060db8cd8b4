"""How long a command and the service take to start, next to `import feast`, and the memory of the service.

    python -m tests.benchmarks.start

Each is run in fresh processes, in turn; the medians of their CPU seconds and wall seconds are printed. The service has
a model of 1,000 items, and is asked 40 questions before its memory (PSS, of all its processes together) is looked at.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx
import numpy as np

from feast_embeddings import embedding_views
from feast_embeddings.publish.run import publish_artifact
from feast_embeddings.repo import Repo, init_repo

from .load import BIN, free_port, make_version, serving


def seconds(command: list[str]) -> tuple[float, float]:
    """CPU and wall seconds of one run."""
    before, start = os.times(), time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    after = os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return cpu, time.perf_counter() - start


def service(repo: Repo, workers: int) -> tuple[float, float, float]:
    """CPU and wall seconds until it is ready, and MiB after some questions."""
    port, start = free_port(), time.perf_counter()
    command = [BIN / "feast-embeddings", "serve", "--repo", repo.path, "--port", port, "--workers", workers]
    with serving(command, port, "/readyz") as process:
        wall, every = time.perf_counter() - start, [process, *process.children(recursive=True)]
        cpu = sum(each.cpu_times().user + each.cpu_times().system for each in every)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
            for user in range(40):
                client.post("/v1/models/shop/rank", json={"user_id": user}).raise_for_status()
        return cpu, wall, sum(each.memory_full_info().pss for each in every) / 2**20


def published(folder: Path) -> Repo:
    """A repo with a small model that is live."""
    repo = init_repo(folder)
    feature_store, version = repo.feature_store(), make_version(repo, 1000, 64, 0)
    feature_store.apply(list(embedding_views("shop", repo.data).by_name().values()))
    publish_artifact(feature_store, version)
    return repo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--runs", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        repo = published(Path(folder) / "repo")
        cli = [sys.executable, "-c", "from feast_embeddings.cli import run; run()"]
        sides = {
            "import feast": [sys.executable, "-c", "import feast"],
            "feast-embeddings --help": [*cli, "--help"],
            "feast-embeddings similar-items --help": [*cli, "similar-items", "--help"],
            "feast-embeddings train --help": [*cli, "train", "--help"],
            "feast-embeddings similar-items": [*cli, "similar-items", "1", "--repo", str(repo.path)],
        }
        times = [{name: seconds(command) for name, command in sides.items()} for _ in range(options.runs)]
        for name in sides:
            cpu, wall = np.median([run[name] for run in times], axis=0)
            print(f"{name:38} {cpu:5.2f} CPU s, {wall:5.2f} s", flush=True)
        for workers in (1, 2):
            found = [service(repo, workers) for _ in range(options.runs)]
            cpu, wall, memory = np.median(found, axis=0)
            print(
                f"{f'service of {workers} workers is ready':38} {cpu:5.2f} CPU s, {wall:5.2f} s; {memory:4.0f} MiB PSS"
            )


if __name__ == "__main__":
    main()
