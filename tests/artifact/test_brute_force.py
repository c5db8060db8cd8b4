"""Exact search against a full sort by numpy in float64."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from feast_embeddings.artifact.brute_force import kth_best_scores
from feast_embeddings.artifact.table_files import table_files, write_parts


@pytest.mark.parametrize("cosine", [False, True], ids=["dot-with-bias", "cosine"])
def test_the_kth_best_score_is_that_of_a_full_sort(rng: np.random.Generator, tmp_path: Path, cosine: bool) -> None:
    """Over more rows than are looked at together, without the row that each query is of, which may be anywhere."""
    n, dim, k = 10_000, 8, 10
    vectors = rng.standard_normal((n, dim), dtype=np.float32)
    bias = None if cosine else rng.standard_normal(n, dtype=np.float32)
    points = vectors if bias is None else np.column_stack([vectors, bias])
    skip = np.array([0, 1, 4095, 4096, 9999])
    table = pa.table({"embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)})
    if bias is not None:
        table = table.append_column("bias", pa.array(bias))
    # In three files, whose ends are not where the blocks end.
    parts = [table.slice(0, 5_000), table.slice(5_000, 123), table.slice(5_123)]
    write_parts(tmp_path, "users", [[part] for part in parts])
    files = table_files(sorted(tmp_path.iterdir()))

    found = kth_best_scores(
        files,
        points[skip],
        k,
        None if bias is None else "bias",
        cosine=cosine,
        datatype="float32",
        skip=skip,
    )

    exact = points.astype(np.float64)
    if cosine:
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    scores = exact[skip] @ exact.T
    scores[np.arange(len(skip)), skip] = -np.inf
    np.testing.assert_allclose(found, np.sort(scores, axis=1)[:, -k], rtol=1e-5)
