"""Fold-in: vectors for users or items that are newer than the training, and pushing them into the live collection.

The trainers compute them, see `feast_embeddings.model.from_trainers`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from feast import FeatureStore

from feast_embeddings.artifact import Entity, FoldedIn, load_artifact
from feast_embeddings.errors import InputError, VersionMismatchError
from feast_embeddings.model.from_trainers import from_trainers
from feast_embeddings.model.sides import qdrant_store, side_of

__all__ = ["fold_in"]

_ROWS = 10_000


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
) -> FoldedIn:
    """Compute vectors for the users or items of a log, against the other side of a version.

    Args:
        interactions: a file, or anything else that the trainers read as a log, with all interactions of each id.
            None if there are only attributes.
        attributes: a file or a table with a row for each; None to go by interactions alone.
        live: the live version; None if there is none.
        version: the version to fold into; None for the live one.
        push: also write the vectors into the live collection, where the newest event timestamp of an id wins.
        update: whether ids that the version was trained on may be pushed.
        seed: seed of any randomness.

    Raises:
        InputError: the log cannot be used, the version is not on disk or its trainer cannot fold in; or `push`
            would replace ids that it was trained on, and `update` is false.
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
    artifact = load_artifact(Path(feature_store.config.repo_path or ".") / "data", model, version)
    folded: FoldedIn
    if attributes is None:
        folded = from_trainers("fold_in")(artifact, entity, interactions, seed=seed)
    else:
        folded = from_trainers("new_rows")(artifact, entity, attributes, interactions, seed=seed)
    if push:
        _push(feature_store, model, folded, version, update=update)
    return folded


def _push(feature_store: FeatureStore, model: str, folded: FoldedIn, version: str, *, update: bool) -> None:
    if len(folded.known) and not update:
        first = ", ".join(map(repr, folded.known.slice(0, 3).to_pylist()))
        raise InputError(
            f"{len(folded.known):,} of {folded.table.num_rows:,} {folded.entity}s were in the training of version "
            f"{version} ({first}{', …' if len(folded.known) > 3 else ''}); vectors from this log alone "
            "would replace theirs. Leave them out, or allow it with --update (update=True)"
        )
    side = side_of(feature_store, model, folded.entity)
    qdrant_store(feature_store).online_write_table(
        feature_store.config,
        side.view,
        side.renamed(folded.table).combine_chunks().to_batches(max_chunksize=_ROWS),
        None,
        versions={version: folded.table.num_rows},
    )
