"""A map: places in the plane where users or items with like vectors are near, stable from version to version."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from feast_embeddings.analysis.members import Members
from feast_embeddings.errors import InputError, import_extra

__all__ = ["places_of"]

Floats = npt.NDArray[np.float64]

_FEWEST = 10
_PERPLEXITY = 30
# Of the start of a map: small, so that the points can pass each other.
_SPREAD = 1e-4
_THREADS = 2
# Threads of a smaller map wait for each other longer than they work, and interpolation takes longer than a tree.
_FEW = 5000


def places_of(members: Members, *, previous: Mapping[Any, tuple[float, float]] | None = None, seed: int = 0) -> Floats:
    """Return the place of each member, float64, shape (n, 2), by t-SNE of the directions of the vectors.

    Args:
        previous: places of an earlier map, by id. Those ids start there, and a new one at its nearest such neighbour.

    Raises:
        InputError: there are too few members.
        MissingExtraError: the extra ``maps`` is not installed.
    """
    open_tsne = import_extra("openTSNE", "drawing a map", "maps")
    if len(members) < _FEWEST:
        raise InputError(f"a map needs at least {_FEWEST} {members.entity}s, there are {len(members)}")
    known = {} if previous is None else previous
    old = np.array([known.get(id, (np.nan, np.nan)) for id in members.ids.to_pylist()], np.float64)
    has_place: npt.NDArray[np.bool_] = np.asarray(np.isfinite(old).all(axis=1))
    fresh = not has_place.any() or not old[has_place].std()
    options: dict[str, Any] = {} if fresh else {"early_exaggeration_iter": 0, "n_iter": 100, "learning_rate": 100}
    method = open_tsne.TSNE(
        perplexity=min(_PERPLEXITY, (len(members) - 1) / 3),
        # The distances of unit vectors are in the order of their cosines.
        metric="euclidean",
        initialization="pca" if fresh else _start(members, old, has_place),
        random_state=seed,
        n_jobs=_THREADS if len(members) > _FEW else 1,
        negative_gradient_method="fft" if len(members) > _FEW else "bh",
        **options,
    )
    log = logging.getLogger("openTSNE.tsne")
    if not fresh:  # it warns of a start that is spread out, as an earlier map is
        log.setLevel(logging.ERROR)
    try:
        return np.asarray(method.fit(members.unit), np.float64)
    finally:
        log.setLevel(logging.NOTSET)


def _start(members: Members, old: Floats, has_place: npt.NDArray[np.bool_]) -> Floats:
    """Return where to start: the earlier places, a new member next to its nearest neighbour that has one."""
    neighbors = import_extra("sklearn.neighbors", "drawing a map", "maps")
    start = old.copy()
    if not has_place.all():
        search = neighbors.NearestNeighbors(n_neighbors=1).fit(members.unit[has_place])
        nearest = search.kneighbors(members.unit[~has_place], return_distance=False)[:, 0]
        start[~has_place] = old[has_place][nearest]
        # Two at one place would push each other nowhere.
        start[~has_place] += np.random.default_rng(0).normal(0, _SPREAD, ((~has_place).sum(), 2))
    return start
