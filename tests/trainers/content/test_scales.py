"""How much each column counts in the map, against the equations in NumPy."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.content.ridge import Ridge
from embedding_trainers.content.scales import Rows, choose_map, fit_scaled


def some_rows(n: int, seed: int) -> tuple[Rows, npt.NDArray[np.float64]]:
    """Three features that say what a vector is, less noise, and 40 that say nothing."""
    rng = np.random.default_rng(seed)
    said = rng.standard_normal((n, 3))
    of_features = np.random.default_rng(9).standard_normal((3, 4))
    vectors = said @ of_features + rng.standard_normal((n, 4))
    features = np.hstack([said, rng.standard_normal((n, 40))])
    return Rows(csr_matrix(features.astype(np.float32)), vectors.astype(np.float32), np.ones(n)), said @ of_features


def test_scaled_is_a_penalty_for_each_column() -> None:
    """Features times s are the same as λ ÷ s² for them, and the map takes them as they are."""
    rows, _ = some_rows(60, 1)
    x, v = rows.features.toarray().astype(float), rows.vectors.astype(float)
    x, centred = x - x.mean(axis=0), v - v.mean(axis=0)
    penalties = np.diag(np.repeat([3 / 1**2, 3 / 0.5**2], [3, 40]))

    (found,) = fit_scaled(rows, (3, 40), (1.0, 0.5), [3.0])

    expected = x @ np.linalg.solve(x.T @ x + penalties, x.T @ centred) + v.mean(axis=0)
    np.testing.assert_allclose(found.predict(rows.features), expected, atol=1e-4)


def test_noise_counts_less() -> None:
    """The column that says nothing is the one scaled, and new rows are mapped better for it."""
    rows, _ = some_rows(80, 2)
    held, _ = some_rows(80, 3)
    new, truth = some_rows(500, 4)

    def error(ridge: Ridge) -> float:
        return float(((ridge.predict(held.features) - held.vectors) ** 2).mean())

    chosen, single = (choose_map(rows, error, widths) for widths in ((3, 40), (43,)))

    assert chosen.scales[0] == 1
    assert chosen.scales[1] < 1
    assert chosen.error < single.error
    fitted = [next(fit_scaled(rows, each.widths, each.scales, [each.penalty])) for each in (chosen, single)]
    errors = [((ridge.predict(new.features) - truth) ** 2).mean() for ridge in fitted]
    assert errors[0] < errors[1]


@pytest.mark.parametrize("widths", [(43,), (3, 0, 40)])
def test_scales_are_of_columns(widths: tuple[int, ...]) -> None:
    """One for each column, also for one without features; a single column has λ alone."""
    rows, _ = some_rows(30, 5)

    chosen = choose_map(rows, lambda ridge: float((ridge.weights**2).sum()), widths)

    assert len(chosen.scales) == len(widths)
    assert len(widths) > 1 or chosen.scales == (1.0,)
