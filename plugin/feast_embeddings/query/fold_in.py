"""Fold-in: vectors for users or items that are newer than the training, and pushing them into the live collection.

The trainers compute them, see `feast_embeddings.model.from_trainers`.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureStore

from feast_embeddings.artifact import Entity, FoldedIn
from feast_embeddings.errors import InputError, VersionMismatchError
from feast_embeddings.model.from_trainers import from_trainers
from feast_embeddings.model.sides import Side, qdrant_store, side_of
from feast_embeddings.model.versions import versions_of

__all__ = ["fold_in", "push_rows"]

_ROWS = 10_000
_SHOWN = 3


def fold_in(
    feature_store: FeatureStore,
    model: str,
    entity: Entity,
    interactions: Any,
    *,
    attributes: Any = None,
    live: str | None,
    version: str | None = None,
    push: bool = False,
    update: bool = False,
    seed: int = 0,
    instead: str,
) -> FoldedIn:
    """Compute vectors for the users or items of a log, against the other side of a version.

    Args:
        interactions: a file, or anything else that the trainers read as a log, with all interactions of each id.
            None if there are only attributes.
        attributes: a file or a table with a row for each; None to go by interactions alone.
        live: the live version; None if there is none.
        version: the version to fold into; None for the live one.
        push: also write the vectors into the live collection, where the newest event timestamp of an id wins.
        update: whether a vector that was learned from more than this log may be replaced: one of the training, or one
            that was folded in with interactions if there are only attributes now.
        seed: seed of any randomness.
        instead: what to advise who would replace one without `update`, in addition to leaving it out.

    Raises:
        InputError: the log cannot be used, the version is not on disk or its trainer cannot fold in; or `push`
            would replace what `update` does not allow.
        VersionMismatchError: `push` is given for a version that is not live.
        ArtifactError: a table of the version is damaged.
        MissingExtraError: the extra ``trainers`` is not installed.
    """
    version = version or live
    if version is None:
        raise InputError(f"no version of model {model!r} is live; publish one, or name the version to fold into")
    if push and version != live:
        raise VersionMismatchError(
            f"vectors of version {version} cannot be pushed: {live or 'none'} is live; fold into the live version"
        )
    artifact = versions_of(feature_store, model).load(version)
    folded: FoldedIn
    if attributes is None:
        folded = from_trainers("fold_in")(artifact, entity, interactions, seed=seed)
    else:
        folded = from_trainers("new_rows")(artifact, entity, attributes, interactions, seed=seed)
    if push:
        side = side_of(feature_store, model, entity)
        if not update:
            _refuse_losses(feature_store, side, folded, version, instead)
        push_rows(feature_store, side, folded.table, version)
    return folded


def push_rows(feature_store: FeatureStore, side: Side, table: pa.Table, version: str) -> None:
    """Write rows of a version's table into the live collection, where the newest event timestamp of an id wins.

    Raises:
        VersionMismatchError: an older version is live.
    """
    qdrant_store(feature_store).online_write_table(
        feature_store.config,
        side.view,
        side.renamed(table).combine_chunks().to_batches(max_chunksize=_ROWS),
        None,
        versions={version: table.num_rows},
    )


def _refuse_losses(feature_store: FeatureStore, side: Side, folded: FoldedIn, version: str, instead: str) -> None:
    """Raise an error if pushing would replace a vector that was learned from more than this log."""
    entity, n = folded.entity, folded.table.num_rows
    if len(folded.known):
        raise InputError(
            f"{len(folded.known):,} of {n:,} {entity}s were in the training of version {version} "
            f"({_first(folded.known)}); vectors from this log alone would replace theirs. Leave them out, or {instead}"
        )
    without = folded.table.filter(pc.equal(folded.table["n_interactions"], 0))[f"{entity}_id"]
    if len(learned := _with_interactions(feature_store, side, without)):
        raise InputError(
            f"{len(learned):,} of {n:,} {entity}s have a vector that was folded in with interactions "
            f"({_first(learned)}); one from attributes alone would replace it, and what they had seen. Leave them out, "
            f"or {instead}"
        )


def _with_interactions(feature_store: FeatureStore, side: Side, ids: pa.ChunkedArray) -> pa.Array:
    """Return the ids whose live vectors were learned from interactions."""
    engine, codec = qdrant_store(feature_store).engine(feature_store.config), side.codec
    collection, counted = engine.aliases()[side.alias], "n_interactions"
    learned: list[bool] = []
    for start in range(0, len(ids) if counted in codec.types else 0, _ROWS):
        points = side.point_ids(ids[start : start + _ROWS].to_pylist())
        stored = engine.retrieve(collection, points, vectors=[], payload=codec.payload_keys(counted))
        learned += [point is not None and (codec.native(counted, point.payload) or 0) > 0 for point in stored]
    return ids.filter(pa.array(learned, pa.bool_())) if learned else pa.array([], ids.type)


def _first(ids: pa.Array | pa.ChunkedArray) -> str:
    return ", ".join(map(repr, ids.slice(0, _SHOWN).to_pylist())) + (", …" if len(ids) > _SHOWN else "")
