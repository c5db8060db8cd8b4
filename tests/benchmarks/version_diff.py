"""How long the comparison of two large versions takes, and the highest memory.

python -m tests.benchmarks.version_diff
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from tests.benchmarks.training_frame import make_history, peak_gib

from feast_embeddings.artifact import list_artifacts
from feast_embeddings.offline.diff import diff_artifacts
from feast_embeddings.repo import Repo


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=500_000)
    parser.add_argument("--items", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=64)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "repo"
        make_history(folder, 2, options.users, options.items, options.dim)
        start = time.perf_counter()
        found = diff_artifacts(*list_artifacts(Repo.open(folder).data, "shop"))
        seconds = time.perf_counter() - start
    print(
        f"{options.users:,} users and {options.items:,} items, {options.dim} factors, "
        f"{found.sides['item'].n_sampled:,} of each looked at: {seconds:.1f} s, highest memory {peak_gib():.2f} GiB"
    )


if __name__ == "__main__":
    main()
