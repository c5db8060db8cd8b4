"""Alignment: a new version in the vector space of an earlier one, so that what was trained on its vectors goes on.

Factors are learned up to a rotation: turn all users and items by one orthogonal matrix and every score stays what it
was. Each training ends in a different rotation. The orthogonal Procrustes problem (Schönemann, Psychometrika 31,
1966) picks the one nearest to the earlier version on the ids that both know, as done for word vectors of different
decades (Hamilton et al., ACL 2016, arXiv:1605.09096) and for recommenders (Zielnicki and Hsiao, 2025,
arXiv:2508.07574). Rotations and reflections only: a change of length or of origin would change the scores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.procrustes import Halves, mean_cosine, residual, rotation, sum_up, total
from feast_embeddings.artifact import ENTITIES, Alignment, Artifact, EmbeddingTable, Entity, embedding_matrix

__all__ = [
    "MAX_RESIDUAL",
    "MIN_SHARED_PER_DIM",
    "Aligned",
    "Tables",
    "align",
    "align_by",
    "count_shared",
    "residual_of",
    "too_few",
]

# Each half of the shared ids has to determine a rotation by itself.
MIN_SHARED_PER_DIM = 2
# Between what retrainings on half of the log reach and what trainings that have nothing in common do; the measured
# values are in docs/alignment.md.
MAX_RESIDUAL = 0.8

_Matrix = npt.NDArray[np.float64]
Tables = Mapping[Entity, EmbeddingTable]


@dataclass(frozen=True)
class Aligned:
    """What came of an alignment.

    Attributes:
        tables: users and items; rotated if `alignment` is there, else as they came.
        rotation: by what, float32, shape (dim, dim); None if they were not.
        alignment: None if it was refused.
        refused: the reason why it was refused; empty if it was not.
    """

    tables: Tables
    alignment: Alignment | None
    refused: str
    rotation: npt.NDArray[np.float32] | None = None


def align(previous: Artifact, tables: Tables, blocks: Sequence[int] = ()) -> Aligned:
    """Rotate users and items by the one orthogonal matrix that brings shared ids nearest to an earlier version.

    `residual_of` says what it refuses, `procrustes.sum_up` how much an id counts.

    Args:
        previous: with as many dimensions.
        tables: the new version's.
        blocks: how many neighbouring dimensions each turn by themselves, see `TrainerConfig.blocks`; none for all as
            one. The residual is the largest of the blocks'.

    Raises:
        ArtifactError: a table of `previous` is damaged.
    """
    return align_by(previous, tables, _sides(previous, tables), blocks)


def align_by(previous: Artifact, tables: Tables, sides: Mapping[Entity, Halves], blocks: Sequence[int] = ()) -> Aligned:
    """As `align`, by sums over the shared users and items."""
    rotation, alignment, refused = _judge(previous, sides, blocks)
    if alignment is None:
        return Aligned(tables, None, refused)
    rotated = {
        entity: replace(table, embedding=(table.embedding.astype(np.float64) @ rotation).astype(np.float32))
        for entity, table in tables.items()
    }
    return Aligned(rotated, alignment, "", rotation.astype(np.float32))


def residual_of(previous: Artifact, tables: Tables) -> float:
    """How far a version is from an earlier one under the best rotation.

    The residual is 0 for versions that agree up to a rotation, and 1 for versions that have nothing in common. It is
    the weighted Frobenius distance between rotated and earlier vectors relative to the length of the earlier, at the
    best common scale (the square root of Gower's Procrustes statistic, Psychometrika 40, 1975). Each half of the
    shared ids is measured under the rotation fitted on the other, so that few ids cannot look good by chance, and
    less the mean vector of users and of items, which reflects popularity, not tastes.

    Raises:
        ArtifactError: a table of `previous` is damaged.
    """
    return residual(_sides(previous, tables).values())


def count_shared(previous: Artifact, ids: Mapping[Entity, pa.Array]) -> dict[Entity, int]:
    """How many of these users and items an earlier version knows.

    Raises:
        ArtifactError: a table of it is damaged.
    """
    shared: dict[Entity, int] = {}
    for entity in ENTITIES:
        before = previous.trained_on(entity, previous.table(entity, [f"{entity}_id", "n_interactions"]))
        shared[entity] = len(ids[entity]) - _rows_in(before[f"{entity}_id"], ids[entity]).null_count
    return shared


def too_few(previous: Artifact, counts: Mapping[Entity, int], dim: int) -> str:
    """Why so few shared ids determine no rotation; empty if they do."""
    needed = MIN_SHARED_PER_DIM * dim
    if sum(counts.values()) >= needed:
        return ""
    return (
        f"only {counts['user']:,} users and {counts['item']:,} items are shared with version "
        f"{previous.manifest.version}; {dim} dimensions need {needed:,} together"
    )


def _judge(
    previous: Artifact, sides: Mapping[Entity, Halves], blocks: Sequence[int]
) -> tuple[_Matrix, Alignment | None, str]:
    """Find the rotation into the space of an earlier version, or refuse.

    Args:
        sides: sums over the shared users and items.
        blocks: see `align`.

    Returns:
        The rotation, shape (dim, dim); the alignment, None if it is refused; and why it is.
    """
    counts = {entity: int(sum(half.counts[0] for half in sides.get(entity, ()))) for entity in ENTITIES}
    sums = total(half for halves in sides.values() for half in halves)
    same = np.eye(len(sums.new))
    if reason := too_few(previous, counts, len(same)):
        return same, None, reason
    slices = list(_slices(blocks or [len(same)]))
    far = max(residual([[half.block(dims) for half in halves] for halves in sides.values()]) for dims in slices)
    if far > MAX_RESIDUAL:
        reason = (
            f"the vectors of the {sum(counts.values()):,} ids shared with version {previous.manifest.version} are too "
            f"far from it under any rotation: residual {far:.2f}, at most {MAX_RESIDUAL:g}"
        )
        return same, None, reason
    best = np.zeros_like(same)
    for dims in slices:
        best[dims, dims] = rotation(sums.block(dims))
    alignment = Alignment(
        version=previous.manifest.version,
        space_id=previous.manifest.space_id,
        residual=far,
        shared_users=counts["user"],
        shared_items=counts["item"],
        cosine_before=mean_cosine(sums, same),
        cosine=mean_cosine(sums, best),
    )
    return best, alignment, ""


def _slices(blocks: Sequence[int]) -> Iterator[slice]:
    start = 0
    for length in blocks:
        yield slice(start, start := start + length)


def _sides(previous: Artifact, tables: Tables) -> dict[Entity, Halves]:
    """The sums over the shared ids; every other one is of the second half."""
    sides: dict[Entity, Halves] = {}
    for entity, table in tables.items():
        # Rows of content alone say of the space what the others do.
        before = previous.trained_on(entity, previous.table(entity))
        rows = _rows_in(before[f"{entity}_id"], table.ids)
        new = np.flatnonzero(rows.is_valid())
        old = rows.drop_null().to_numpy()
        # Imported vectors may have no interactions; an id still counts.
        n, m = (np.maximum(count, 1) for count in (table.n_interactions, before["n_interactions"].to_numpy()))
        vectors = embedding_matrix(before)
        halves = [(new[start::2], old[start::2]) for start in (0, 1)]
        sides[entity] = [sum_up(table.embedding[a], vectors[b], n[a], m[b]) for a, b in halves]
    return sides


def _rows_in(known: pa.ChunkedArray, ids: pa.Array) -> pa.Array:
    """For each id its row among the known ones, null where it is not; text and whole numbers are never equal."""
    return pc.index_in(ids, value_set=known) if known.type == ids.type else pa.nulls(len(ids), pa.int32())
