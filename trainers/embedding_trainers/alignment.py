"""Alignment: a new version in the vector space of an earlier one, so that what was trained on its vectors goes on.

Factors are learned up to a rotation: turn all users and items by one orthogonal matrix and every score stays what it
was. Each training ends in a rotation of its own. The orthogonal Procrustes problem (Schönemann, Psychometrika 31,
1966) picks the one nearest to the earlier version on the ids that both know, as done for word vectors of different
decades (Hamilton et al., ACL 2016, arXiv:1605.09096) and for recommenders (Zielnicki and Hsiao, 2025,
arXiv:2508.07574). Rotations and reflections only: a change of length or of origin would change the scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.artifact import ENTITIES, Alignment, Artifact, EmbeddingTable, Entity, embedding_matrix

__all__ = ["MAX_RESIDUAL", "MIN_SHARED_PER_DIM", "Aligned", "Tables", "align", "count_shared", "residual_of", "too_few"]

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
        alignment: None if it was refused.
        refused: the reason why it was refused; empty if it was not.
    """

    tables: Tables
    alignment: Alignment | None
    refused: str


def align(previous: Artifact, tables: Tables) -> Aligned:
    """Rotate users and items by the one orthogonal matrix that brings shared ids nearest to an earlier version.

    The squared distance of an id counts by n·m / (n + m), with n and m its interactions in either version: the
    variance of a vector falls with 1 / n, and this is one over the variance of the difference.

    `residual_of` says what it refuses.

    Args:
        previous: with as many dimensions.
        tables: the new version's.

    Raises:
        ArtifactError: a table of `previous` is damaged.
    """
    shared = _shared(previous, tables)
    counts = {entity: int((shared.entity == entity).sum()) for entity in ENTITIES}
    dim = shared.new.shape[1]
    if reason := too_few(previous, counts, dim):
        return Aligned(tables, None, reason)
    residual = _residual(shared)
    if residual > MAX_RESIDUAL:
        return Aligned(
            tables,
            None,
            f"the vectors of the {len(shared.new):,} ids shared with version {previous.manifest.version} are too far "
            f"from it under any rotation: residual {residual:.2f}, at most {MAX_RESIDUAL:g}",
        )
    rotation = _rotation(shared)
    rotated = {
        entity: replace(table, embedding=(table.embedding.astype(np.float64) @ rotation).astype(np.float32))
        for entity, table in tables.items()
    }
    alignment = Alignment(
        version=previous.manifest.version,
        space_id=previous.manifest.space_id,
        residual=residual,
        shared_users=counts["user"],
        shared_items=counts["item"],
        cosine_before=_mean_cosine(shared, np.eye(dim)),
        cosine=_mean_cosine(shared, rotation),
    )
    return Aligned(rotated, alignment, "")


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
    return _residual(_shared(previous, tables))


def count_shared(previous: Artifact, ids: Mapping[Entity, pa.Array]) -> dict[Entity, int]:
    """How many of these users and items an earlier version knows.

    Raises:
        ArtifactError: a table of it is damaged.
    """
    return {
        entity: len(ids[entity]) - _rows_in(previous.table(entity)[f"{entity}_id"], ids[entity]).null_count
        for entity in ENTITIES
    }


def too_few(previous: Artifact, counts: Mapping[Entity, int], dim: int) -> str:
    """Why so few shared ids determine no rotation; empty if they do."""
    needed = MIN_SHARED_PER_DIM * dim
    if sum(counts.values()) >= needed:
        return ""
    return (
        f"only {counts['user']:,} users and {counts['item']:,} items are shared with version "
        f"{previous.manifest.version}; {dim} dimensions need {needed:,} together"
    )


@dataclass(frozen=True)
class _Shared:
    """The n shared ids: their vectors in both versions, their weight, and whether they are users or items."""

    new: _Matrix
    old: _Matrix
    weight: _Matrix
    entity: npt.NDArray[np.str_]

    def take(self, rows: npt.NDArray[np.bool_]) -> _Shared:
        return _Shared(self.new[rows], self.old[rows], self.weight[rows], self.entity[rows])


def _shared(previous: Artifact, tables: Tables) -> _Shared:
    parts = []
    for entity, table in tables.items():
        before = previous.table(entity)
        rows = _rows_in(before[f"{entity}_id"], table.ids)
        new = np.flatnonzero(rows.is_valid())
        old = rows.drop_null().to_numpy()
        n, m = table.n_interactions[new], before["n_interactions"].to_numpy()[old]
        weight = n * m / np.maximum(n + m, 1)
        parts.append(
            _Shared(
                table.embedding[new].astype(np.float64),
                embedding_matrix(before)[old],
                weight,
                np.full(len(new), entity),
            )
        )
    return _Shared(
        np.concatenate([part.new for part in parts]),
        np.concatenate([part.old for part in parts]).astype(np.float64),
        np.concatenate([part.weight for part in parts]),
        np.concatenate([part.entity for part in parts]),
    )


def _rows_in(known: pa.ChunkedArray, ids: pa.Array) -> pa.Array:
    """For each id its row among the known ones, null where it is not; text and whole numbers are never equal."""
    return pc.index_in(ids, value_set=known) if known.type == ids.type else pa.nulls(len(ids), pa.int32())


def _rotation(shared: _Shared) -> _Matrix:
    """The orthogonal matrix R that makes the weighted distance between new · R and old smallest."""
    products = (shared.new * shared.weight[:, None]).T @ shared.old
    left, singular, right = np.linalg.svd(products)
    # Nothing gained: then the vectors keep their bits, so that equal trainings write equal bytes.
    if np.trace(products) >= singular.sum() * (1 - 1e-12):
        return np.eye(len(products))
    return np.asarray(left @ right)


def _residual(shared: _Shared) -> float:
    half = np.arange(len(shared.new)) % 2 == 0
    rotated = np.empty_like(shared.new)
    for fitted, measured in ((half, ~half), (~half, half)):
        rotated[measured] = shared.new[measured] @ _rotation(shared.take(fitted))
    new, old = (_centred(vectors, shared) for vectors in (rotated, shared.old))
    weight = shared.weight[:, None]
    lengths = (weight * new * new).sum() * (weight * old * old).sum()
    agreement = max(0.0, (weight * new * old).sum()) / np.sqrt(lengths) if lengths > 0 else 0.0
    return float(np.sqrt(max(0.0, 1 - agreement**2)))


def _centred(vectors: _Matrix, shared: _Shared) -> _Matrix:
    centred = vectors.copy()
    for entity in ENTITIES:
        rows = shared.entity == entity
        if shared.weight[rows].sum() > 0:
            centred[rows] -= np.average(vectors[rows], axis=0, weights=shared.weight[rows])
    return centred


def _mean_cosine(shared: _Shared, rotation: _Matrix) -> float:
    new = shared.new @ rotation
    lengths = np.linalg.norm(new, axis=1) * np.linalg.norm(shared.old, axis=1)
    cosine = (new * shared.old).sum(axis=1) / np.where(lengths > 0, lengths, 1)
    return float(np.average(cosine, weights=shared.weight))
