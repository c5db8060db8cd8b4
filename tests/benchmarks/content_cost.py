"""What content adds to a training: processor seconds of `train` with and without it, in turn.

    python -m tests.benchmarks.content_cost [--interactions 1000000 5000000] [--trainer als] [--repeat 3]

The log is that of `tests.benchmarks.interactions`, with a user for 50 interactions and an item for 250; the catalogue,
of twice as many items, that of `tests.benchmarks.content_scale`: a title, a description, a category and a price.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from tests.benchmarks.content_scale import texts
from tests.benchmarks.interactions import write_log

START = "from feast_embeddings.cli import run; run()"


def write_items(path: Path, n: int) -> None:
    rng = np.random.default_rng(0)
    columns = {
        "item_id": pa.array([f"item-{number:06d}" for number in range(n)]),
        "title": texts(rng, n, 4),
        "description": texts(rng, n, 30),
        "category": pa.array(rng.integers(0, 300, n)).cast(pa.string()),
        "price": rng.lognormal(3, 1, n),
    }
    pq.write_table(pa.table(columns), path)


def cpu_seconds(folder: Path, trainer: str, content: str) -> float:
    """Of one training in a process of its own."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    options = ["--interactions", str(folder / "log.parquet"), "--items", str(folder / "items.parquet")]
    command = [sys.executable, "-c", START, "train", "--repo", str(folder / "repo"), "--model", "m", "--quiet"]
    done = [*command, *options, "--trainer", trainer, "--content", content, "--no-align"]
    subprocess.run(done, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--interactions", type=int, nargs="*", default=[1_000_000, 5_000_000])
    parser.add_argument("--trainer", default="als")
    parser.add_argument("--repeat", type=int, default=3)
    given = parser.parse_args()
    for n in given.interactions:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_log(folder / "log.parquet", n, n // 50, n // 250)
            write_items(folder / "items.parquet", 2 * n // 250)
            subprocess.run([sys.executable, "-c", START, "init", str(folder / "repo")], check=True, capture_output=True)
            seconds: dict[str, list[float]] = {"none": [], "auto": []}
            for _ in range(given.repeat):
                for content, found in seconds.items():
                    found.append(cpu_seconds(folder, given.trainer, content))
            without, with_content = (statistics.median(found) for found in seconds.values())
            print(
                f"{n:,} interactions, {given.trainer}: {without:.1f} CPU s without content, {with_content:.1f} with: "
                f"{with_content / without - 1:+.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
