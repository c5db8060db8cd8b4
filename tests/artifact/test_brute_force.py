"""Exact search against a full sort by numpy in float64."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from feast_embeddings.artifact.brute_force import kth_best_scores


@pytest.mark.parametrize("cosine", [False, True], ids=["dot-with-bias", "cosine"])
def test_the_kth_best_score_is_that_of_a_full_sort(rng: np.random.Generator, cosine: bool) -> None:
    """Over more rows than are looked at together, without the row that each query is of, which may be anywhere."""
    n, dim, k = 10_000, 8, 10
    vectors = rng.standard_normal((n, dim), dtype=np.float32)
    bias = None if cosine else rng.standard_normal(n, dtype=np.float32)
    points = vectors if bias is None else np.column_stack([vectors, bias])
    skip = np.array([0, 1, 4095, 4096, 9999])
    table = pa.table({"embedding": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), dim)})

    found = kth_best_scores(table, points[skip], k, bias, cosine=cosine, datatype="float32", skip=skip)

    exact = points.astype(np.float64)
    if cosine:
        exact /= np.linalg.norm(exact, axis=1, keepdims=True)
    scores = exact[skip] @ exact.T
    scores[np.arange(len(skip)), skip] = -np.inf
    np.testing.assert_allclose(found, np.sort(scores, axis=1)[:, -k], rtol=1e-5)
