"""Whether trees gain by few columns of the vectors: churn in the shops of docs/downstream.md, with gradient boosting.

    python -m tests.benchmarks.tree_columns --seeds 5

Runs the first program of the page for each shop, then scikit-learn's HistGradientBoostingClassifier on counts, with the
vectors, with `EmbeddingColumns` of them, and with both. Prints the area under the ROC curve per shop, the mean over the
shops with its 95 % interval (t), and the same of what each adds to the counts and to the counts with vectors.
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
from scipy import stats

_PAGE = Path(__file__).parents[2] / "docs" / "downstream.md"
_PROGRAM = """
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier

from feast_embeddings import EmbeddingColumns

few = EmbeddingColumns(pca=8, centroids=10)
for name, parts in {
    "counts": [("passthrough", counts)],
    "counts, vectors": [("passthrough", counts + vectors)],
    "counts, components": [("passthrough", counts), (EmbeddingColumns(8, 0), vectors)],
    "counts, distances": [("passthrough", counts), (EmbeddingColumns(0, 10), vectors)],
    "counts, components, distances": [("passthrough", counts), (few, vectors)],
    "counts, vectors, components, distances": [("passthrough", counts + vectors), (few, vectors)],
}.items():
    trees = HistGradientBoostingClassifier(learning_rate=0.05, max_leaf_nodes=7, random_state=0)
    model = make_pipeline(make_column_transformer(*parts), trees).fit(train, train["churned"])
    print(f"TREES {name}: {roc_auc_score(test['churned'], model.predict_proba(test)[:, 1])}")
"""


def run(seed: int) -> dict[str, float]:
    """The area of each set of columns, for the shop of a seed."""
    page = re.findall(r"```(bash|python)\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    found: list[tuple[str, str]] = []
    with tempfile.TemporaryDirectory() as folder:
        while not found:
            language, code = page.pop(0)
            program = code.replace("generate_shop()", f"generate_shop({seed})")
            program += _PROGRAM if language == "python" else ""
            command = ["bash", "-euc", program] if language == "bash" else [sys.executable, "-c", program]
            done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=True)
            found = re.findall(r"^TREES (.+): (.+)$", done.stdout, re.MULTILINE)
    return {name: float(area) for name, area in found}


def interval(values: np.ndarray, sign: str = "") -> str:
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    low, high = values.mean() - half, values.mean() + half
    return f"{values.mean():{sign}.3f} ({low:{sign}.3f} to {high:{sign}.3f})".replace("-", "−")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=5, help="how many, at least two")
    runs = []
    for seed in range(parser.parse_args().seeds):
        runs.append(run(seed))
        print(f"seed {seed}: {runs[-1]}", flush=True)
    scores = {name: np.array([each[name] for each in runs]) for name in runs[0]}
    print("\n| features | churn, ROC AUC | added to counts | added to counts, vectors |\n|---|---|---|---|")
    for name, values in scores.items():
        gains = (interval(values - scores[to], "+") for to in ("counts", "counts, vectors"))
        print(f"| {name} | {interval(values)} | {' | '.join(gains)} |")


if __name__ == "__main__":
    main()
