"""What weights of other sizes do to the vectors: zeros, equations that cannot be solved, and what is learned.

    python -m tests.benchmarks.weights

The same random matrix, its weights times a power of ten. "told apart" is the share of users to whom items that they
have look better, on average, than items that they have not.
"""

from __future__ import annotations

import argparse
import warnings

import numpy as np
import numpy.typing as npt
from scipy import sparse

from embedding_trainers.trainer import RunOptions, find_trainer

_POWERS = (-30, -12, -6, -2, 0, 1, 2, 4, 6, 7, 8, 12, 20, 30)


def told_apart(scores: npt.NDArray[np.float32], has: npt.NDArray[np.bool_]) -> float:
    users = np.flatnonzero(has.any(axis=1) & ~has.all(axis=1))
    return float(np.mean([scores[u][has[u]].mean() > scores[u][~has[u]].mean() for u in users]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trainer", nargs="+", default=["als", "svd", "softmax"])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    spread = np.random.default_rng(0).lognormal(0, 1.2, 200 * 60)
    for name in options.trainer:
        trainer = find_trainer(name)
        for power in _POWERS:
            matrix = sparse.random(200, 60, 0.12, format="csr", dtype=np.float32, random_state=0)
            matrix.data = (spread[: matrix.nnz] * 10.0**power).astype(np.float32)
            try:
                factors = trainer.train(
                    matrix, trainer.configure({"factors": 8}), RunOptions(threads=1, progress=False)
                )
            except Exception as error:  # each library has its own
                print(f"{name} 10^{power}: {type(error).__name__}")
                continue
            zeros = int((~factors.user_factors.any(axis=1)).sum())
            apart = told_apart(factors.user_factors @ factors.item_factors.T, matrix.toarray() > 0)
            print(f"{name} 10^{power}: {zeros} of 200 users have a vector of zeros, told apart {apart:.2f}")


if __name__ == "__main__":
    main()
