"""The table of docs/downstream.md over several shops: its programs, run as they stand, with other seeds.

    python -m tests.benchmarks.downstream --seeds 5

Prints, per row, the mean over the shops and how often the row is better than the first, counts alone.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

_PAGE = Path(__file__).parents[2] / "docs" / "downstream.md"
_ROW = re.compile(r"^\| (.+) \| (\d\.\d+) \| (-?\d\.\d+) \|$", re.MULTILINE)


def run(seed: int) -> dict[str, tuple[float, float]]:
    """The two numbers of each row, for the shop of a seed."""
    blocks = re.findall(r"```(bash|python)\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    printed = ""
    with tempfile.TemporaryDirectory() as folder:
        for language, code in blocks:
            program = code.replace("generate_shop()", f"generate_shop({seed})")
            command = ["bash", "-euc", program] if language == "bash" else [sys.executable, "-c", program]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
            printed = done.stdout
    return {name: (float(churn), float(spend)) for name, churn, spend in _ROW.findall(printed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5)
    runs = [run(seed) for seed in range(parser.parse_args().seeds)]
    names = list(runs[0])
    scores = np.array([[one[name] for name in names] for one in runs])
    print(f"| features | churn, ROC AUC | better in | R² of spend | better in | ({len(runs)} shops)")
    print("|---|---|---|---|---|")
    for name, row in zip(names, scores.transpose(1, 0, 2), strict=True):
        better = (row > scores[:, 0]).sum(axis=0)
        mean = row.mean(axis=0)
        print(f"| {name} | {mean[0]:.3f} | {better[0]} | {mean[1]:.3f} | {better[1]} |")


if __name__ == "__main__":
    main()
