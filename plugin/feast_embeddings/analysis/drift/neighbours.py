"""How many of the nearest by the version's files are still the nearest live."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from feast_embeddings.analysis.drift.live_rows import TrainedRows
from feast_embeddings.artifact import Entity
from feast_embeddings.artifact.brute_force import as_stored, kth_best_scores, unit

if TYPE_CHECKING:
    from feast_embeddings.query.live import LiveModel

__all__ = ["NEIGHBOURS", "neighbour_overlap"]

NEIGHBOURS = 10
# The engine and numpy sum in different orders.
_SLACK = 1e-5


def neighbour_overlap(
    live: LiveModel, entity: Entity, trained: TrainedRows, live_ids: pd.Index, *, sample: int, seed: int
) -> tuple[float | None, int]:
    """Return the share of the 10 nearest live by cosine that are among the 10 nearest in the files, by brute force.

    A neighbour that is as near in the files as the tenth there counts, so that ties do. One that the files do not have
    does not. A hidden one among the ten in the files counts as found: that it is missing is no drift.

    Args:
        sample: how many rows that are in both are asked about at most, chosen by `seed`.

    Returns:
        The mean, None without a row that has a neighbour, and the number of rows that were asked about.
    """
    collection = live.side(entity)
    hidden = trained.places.get_indexer(pd.Index(list(collection.hidden_ids), dtype=trained.places.dtype))
    hidden = hidden[hidden >= 0]
    shared = np.setdiff1d(np.flatnonzero(trained.places.isin(live_ids)), hidden)
    k = min(NEIGHBOURS, len(trained.places) - 1)
    if not len(shared) or k < 1:
        return None, 0
    rows = np.sort(np.random.default_rng(seed).permutation(shared)[:sample])
    datatype = collection.spec.datatype
    asked = trained.vectors[rows]
    least = kth_best_scores(trained.files, asked, k, None, cosine=True, datatype=datatype, skip=rows)
    queries = as_stored(unit(asked), datatype)
    answers = live.similar(entity, trained.places[rows].tolist(), k, attributes=False).answers
    found, out_of_sale = 0, as_stored(unit(trained.vectors[hidden]), datatype)
    for query, score, answer in zip(queries, least, answers, strict=True):
        places = trained.places.get_indexer(pd.Index([] if answer is None else answer.ids, dtype=trained.places.dtype))
        near = as_stored(unit(trained.vectors[places[places >= 0]]), datatype)
        found += min(k, sum(int((each @ query >= score - _SLACK).sum()) for each in (near, out_of_sale)))
    return found / (k * len(rows)), len(rows)
