"""What models of one version's vectors score on the next, on MovieLens 100K: gender, age and occupation of users.

    python -m tests.benchmarks.probes --data DIR

The first version has the older ninety percent of the ratings, the second all; once aligned to the first, and once not.
DIR has ml-100k_interactions.parquet and ml-100k_users.parquet.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.parquet as pq

from embedding_trainers.probes import score_probes
from embedding_trainers.train import Training, train_model
from embedding_trainers.trainer import RunOptions

_OLDER = 0.9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path())
    parser.add_argument("--trainers", nargs="+", default=["als", "softmax", "svd", "bpr"])
    arguments = parser.parse_args()
    log = pq.read_table(arguments.data / "ml-100k_interactions.parquet").sort_by("timestamp")
    users = arguments.data / "ml-100k_users.parquet"
    probes = {name: f"{users}:{name}" for name in ("gender", "age", "occupation")}
    print(
        "| trainer | probe | before | after, aligned | after, not aligned | trained again |\n|---|---|---|---|---|---|"
    )
    for trainer in arguments.trainers:
        with TemporaryDirectory() as folder:
            repo = Path(folder)
            (repo / "feature_store.yaml").touch()

            def version(part: float, align_to: str | None, trainer: str = trainer, repo: Path = repo) -> Training:
                return train_model(
                    repo,
                    "m",
                    log.slice(0, int(len(log) * part)),
                    trainer=trainer,
                    options=RunOptions(threads=1),
                    evaluation=False,
                    align_to=align_to,
                    probes=probes,
                )

            first, second = version(_OLDER, None).artifact, version(1, "latest")
            apart, _ = score_probes(version(1, None).artifact, first)
            for found, other in zip(second.probes, apart, strict=True):
                print(
                    f"| {trainer} | {found.name}, {found.metric} | {found.before:.3f} | {found.after:.3f} ± "
                    f"{found.margin:.3f} | {other.after:.3f} | {found.again:.3f} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
