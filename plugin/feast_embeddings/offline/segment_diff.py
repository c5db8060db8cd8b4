"""How far groups of users or items moved between two versions of one space."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.artifact import Artifact, Entity
from feast_embeddings.errors import InputError
from feast_embeddings.offline.moves import cosines_of, neighbour_overlaps, sample_rows
from feast_embeddings.offline.version_pair import Kept, Pair, pair_of

__all__ = ["SegmentMove", "SegmentMoves", "diff_segments"]

_Floats = npt.NDArray[np.float64]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SegmentMove:
    """How far one group moved.

    Attributes:
        name: its value.
        size: members that are in both versions; all other values are about them.
        move: mean cosine distance, 0 to 2, between a member's old and new vector; 1 if one of them has length 0.
        move_p95: the 95th percentile of these distances.
        mean_move: the distance, 0 to 2, between the means of the old and of the new vectors, each at length 1.
        neighbour_overlap: share of the k nearest by cosine, among all ids of both versions, that stayed; mean over
            `n_sampled` members. None if none of them is in the sample.
    """

    name: str
    size: int
    move: float
    move_p95: float
    mean_move: float
    neighbour_overlap: float | None
    n_sampled: int


@dataclass(frozen=True)
class SegmentMoves:
    """What `diff_segments` found.

    Attributes:
        by: what the groups are.
        segments: those that moved most first.
        without: ids of both versions that are in no group.
    """

    entity: Entity
    by: str
    segments: list[SegmentMove]
    without: int


def diff_segments(
    old: Artifact,
    new: Artifact,
    entity: Entity,
    by: str,
    labels_of: Callable[[Kept], pa.Array],
    *,
    k: int = 10,
    sample: int = 2000,
    seed: int = 0,
) -> SegmentMoves:
    """Measure how far each group moved.

    Args:
        by: what the groups are called.
        labels_of: returns the group of each kept id of the new version as text, null for none, shape (n_kept,).
        k: neighbours to compare.
        sample: how many users or items to compare the neighbours of, at most.
        seed: seed of the sample.

    Raises:
        InputError: the versions share no space or no id, or no id is in a group.
        MissingSideError: the model has no such side.
        ArtifactError: a file is missing or damaged.
    """
    before, after = old.manifest, new.manifest
    if before.space_id != after.space_id:
        raise InputError(
            f"the spaces differ, {before.space_id} of {before.version} and {after.space_id} of {after.version}: a "
            "vector cannot be compared with its successor, so no group moved from there to here; compare versions of "
            "one space, or leave out --segment"
        )
    pair = pair_of(entity, old, new)
    if not pair.n_kept:
        raise InputError(f"{before.version} and {after.version} share no {entity}, so no group of them moved")
    encoded = labels_of(pair.new).dictionary_encode()
    if not len(encoded.dictionary):
        raise InputError(f"--segment {by}: no {entity} of both versions is in a group")
    groups = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    chosen = sample_rows(np.random.default_rng(seed), pair.n_kept, sample)
    overlaps = neighbour_overlaps(pair, chosen, k)
    overlap = np.full(pair.n_kept, np.nan)
    overlap[chosen[: len(overlaps)]] = overlaps
    moves = np.clip(1 - cosines_of(pair).astype(np.float64), 0, 2)  # a cosine may be rounded to more than 1
    found = [
        _segment(name, np.flatnonzero(groups == code), pair, moves, overlap)
        for code, name in enumerate(encoded.dictionary.to_pylist())
    ]
    return SegmentMoves(
        entity=entity,
        by=by,
        segments=sorted(found, key=lambda each: (-each.move, each.name)),
        without=int((groups < 0).sum()),
    )


def _segment(
    name: str,
    rows: _Ints,
    pair: Pair,
    moves: _Floats,
    overlap: _Floats,
) -> SegmentMove:
    means = [_unit_mean(side, rows) for side in (pair.old, pair.new)]
    looked_at = overlap[rows][~np.isnan(overlap[rows])]
    return SegmentMove(
        name=name,
        size=len(rows),
        move=float(moves[rows].mean()),
        move_p95=float(np.quantile(moves[rows], 0.95)),
        mean_move=float(np.linalg.norm(means[1] - means[0])),
        neighbour_overlap=float(looked_at.mean()) if len(looked_at) else None,
        n_sampled=len(looked_at),
    )


def _unit_mean(side: Kept, rows: _Ints) -> _Floats:
    norms = side.norms[rows]
    return np.asarray((side.vectors[rows] / np.where(norms > 0, norms, 1)[:, None]).mean(axis=0, dtype=np.float64))
