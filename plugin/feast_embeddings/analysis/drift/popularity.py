"""How far the popularity of items now is from their popularity in training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from feast_embeddings.analysis.drift.live_rows import TrainedRows

__all__ = ["PopularityShift", "popularity_shift"]

_DRAWS = 99


@dataclass(frozen=True)
class PopularityShift:
    """The distance between the shares of items among new interactions and among the training's.

    Attributes:
        distance: Jensen–Shannon distance, the root of the divergence in bits: 0 for the same shares, 1 for no item in
            common (Lin, IEEE Trans. Inf. Theory 37(1), 1991; Endres & Schindelin, ibid. 49(7), 2003).
        chance: the distance that 95 % of as many random interactions with the shares of the training stay below.
    """

    distance: float
    chance: float


def popularity_shift(
    trained: TrainedRows, items: pd.Series[str] | pd.Series[int], *, seed: int
) -> PopularityShift | None:
    """Compare the items of new interactions with `n_interactions` of the version.

    Args:
        items: the item of each new interaction; those that the version does not know have share 0 in training.

    Returns:
        None if there are no new interactions, or training counted none.
    """
    if not len(items) or not trained.counts.sum():
        return None
    now = items.value_counts()
    places = trained.places.get_indexer(now.index)
    known = np.zeros(len(trained.places))
    known[places[places >= 0]] = now.to_numpy()[places >= 0]
    unknown = now.to_numpy()[places < 0]
    before = trained.counts / trained.counts.sum()
    rng = np.random.default_rng(seed)
    draws = (rng.multinomial(len(items), before) for _ in range(_DRAWS))
    chance = [_distance(draw / len(items), before) for draw in draws]
    shares = np.concatenate([known, unknown]) / len(items)
    return PopularityShift(_distance(shares, np.pad(before, (0, len(unknown)))), float(np.quantile(chance, 0.95)))


def _distance(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> float:
    middle = (p + q) / 2

    def divergence(shares: npt.NDArray[np.float64]) -> float:
        there = shares > 0
        return float((shares[there] * np.log2(shares[there] / middle[there])).sum())

    return float(np.sqrt(max(0.0, (divergence(p) + divergence(q)) / 2)))
