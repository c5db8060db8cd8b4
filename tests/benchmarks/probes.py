"""What models of one version's vectors score on the next, for labels of users or items.

    python -m tests.benchmarks.probes ml-100k_interactions.parquet ml-100k_users.parquet:gender,age,occupation
    python -m tests.benchmarks.probes shop/interactions.parquet shop/items.parquet:category,price

The first version has the older ninety percent of the log, the second all with another seed; once aligned to the first,
and once not.
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
    parser.add_argument("log", type=Path, metavar="LOG", help="Parquet with times")
    parser.add_argument("labels", metavar="FILE:COLUMN,…", help="a table with the ids and the labels")
    parser.add_argument("--trainers", nargs="+", default=["als", "softmax", "svd", "bpr"])
    arguments = parser.parse_args()
    log = pq.read_table(arguments.log).sort_by("timestamp")
    file, _, names = arguments.labels.rpartition(":")
    probes = {name: f"{file}:{name}" for name in names.split(",")}
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
                    options=RunOptions(seed=int(part == 1), threads=1),
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
