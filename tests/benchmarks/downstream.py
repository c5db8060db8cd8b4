"""The table of docs/downstream.md over several shops: its program, run as it stands, with other seeds.

    python -m tests.benchmarks.downstream --seeds 5

Prints the numbers of each shop, and per row their mean and standard deviation over the shops; then the same of what
embeddings change, shop by shop, and in how many shops that is for the better.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

_PAGE = Path(__file__).parents[2] / "docs" / "downstream.md"
_ROW = re.compile(r"^\| (.+) \| (\d\.\d+) \| (-?\d\.\d+) \|$", re.MULTILINE)
# With embeddings -> without.
_WITHOUT = {
    "counts, embeddings": "counts",
    "counts, shares, embeddings": "counts, shares of the categories",
}


def run(seed: int) -> dict[str, tuple[float, float]]:
    """The two numbers of each row, for the shop of a seed."""
    blocks = re.findall(r"```(bash|python)\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    rows: list[tuple[str, str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        while not rows:  # up to the program that prints the table
            language, code = blocks.pop(0)
            program = code.replace("generate_shop()", f"generate_shop({seed})")
            command = ["bash", "-euc", program] if language == "bash" else [sys.executable, "-c", program]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
            rows = _ROW.findall(done.stdout)
    return {name: (float(churn), float(spend)) for name, churn, spend in rows}


def spread(values: npt.NDArray[np.float64]) -> str:
    return f"{values.mean():.3f} ± {values.std(ddof=1):.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many, at least two")
    seeds = range(parser.parse_args().seeds)
    runs = []
    # The trainings take one thread each.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for seed, rows in zip(seeds, pool.map(run, seeds), strict=True):
            print(f"seed {seed}: {rows}", flush=True)
            runs.append(rows)
    scores = {name: np.array([rows[name] for rows in runs]) for name in runs[0]}
    print(f"\n{len(runs)} shops\n| features | churn, ROC AUC | spend of 60 days, R² of its logarithm |\n|---|---|---|")
    for name, values in scores.items():
        print(f"| {name} | {spread(values[:, 0])} | {spread(values[:, 1])} |")
    print("\n| embeddings added to | churn, ROC AUC | better in | spend, R² | better in |\n|---|---|---|---|---|")
    for name, without in _WITHOUT.items():
        gain = scores[name] - scores[without]
        churn, spend = (f"{spread(column)} | {(column > 0).sum()} of {len(runs)}" for column in gain.T)
        print(f"| {without} | {churn} | {spend} |")


if __name__ == "__main__":
    main()
