"""Publish: load an artifact into new collections, verify them, then switch users and items in one step.

Until the switch nothing that queries see has changed, and the switch is one atomic operation of the engine, so no
query ever meets vectors of two versions, and a run that dies leaves the live version as it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from feast import FeatureStore, FeatureView
from feast.errors import FeatureViewNotFoundException

from feast_embeddings._feast import online_store_of, table_id
from feast_embeddings.artifact import ENTITIES, Artifact, Entity
from feast_embeddings.collection import collection_spec
from feast_embeddings.engine import Engine, PointBatch
from feast_embeddings.errors import EngineError, InputError
from feast_embeddings.online_store import QdrantEmbeddingOnlineStore
from feast_embeddings.points import PointCodec
from feast_embeddings.table_points import encode_table
from feast_embeddings.views import view_name

__all__ = ["KEEP", "PublishResult", "model_view", "publish_artifact", "qdrant_store"]

# Previous versions that stay in Qdrant, so that going back needs no loading.
KEEP = 2
_SAMPLE = 100
_TRIES = 3


@dataclass(frozen=True)
class PublishResult:
    """What a publish did; `changed` is False when the version was live already."""

    model: str
    version: str
    changed: bool
    n_users: int
    n_items: int
    seconds: float


@dataclass(frozen=True)
class _Target:
    """Where one side of the model goes."""

    codec: PointCodec
    alias: str
    collection: str
    table: pa.Table


def qdrant_store(feature_store: FeatureStore) -> QdrantEmbeddingOnlineStore:
    """The repo's online store, if it is ours.

    Raises:
        InputError: the repo uses another online store.
    """
    store = online_store_of(feature_store)
    if not isinstance(store, QdrantEmbeddingOnlineStore):
        raise InputError(
            f"the online store of this repo is {type(store).__name__}; set online_store.type to "
            "feast_embeddings.QdrantEmbeddingOnlineStore in feature_store.yaml and run feast apply"
        )
    return store


def model_view(feature_store: FeatureStore, model: str, entity: Entity) -> FeatureView:
    """The registered feature view of a model's users or items.

    Raises:
        InputError: it is not registered.
    """
    name = view_name(model, entity)
    try:
        return feature_store.get_feature_view(name)
    except FeatureViewNotFoundException:
        raise InputError(
            f"feature view {name!r} is not in the registry of project {feature_store.project!r}; "
            "run feast apply in the repo"
        ) from None


def publish_artifact(
    feature_store: FeatureStore, artifact: Artifact, *, progress: Callable[[int], object] | None = None
) -> PublishResult:
    """Make one version of a model the live one, for queries and for Feast's online reads.

    Args:
        progress: called with the number of points written since its last call.

    Raises:
        InputError: the model's feature views are not registered, or were registered for another schema.
        ArtifactError: a file of the artifact is damaged.
        EngineError: Qdrant failed, or holds something else than what was sent. The live version is untouched.
    """
    started = time.monotonic()
    manifest, store = artifact.manifest, qdrant_store(feature_store)
    engine = store.engine(feature_store.config)
    targets = []
    for entity in ENTITIES:
        view = model_view(feature_store, manifest.model, entity)
        alias = table_id(feature_store.config, view)
        codec = store.codec(feature_store.config, view)
        table = artifact.table(entity)
        _check_schema(view, codec, table, artifact)
        targets.append(_Target(codec, alias, f"{alias}__{manifest.version}", table))
    wanted = {target.alias: target.collection for target in targets}
    live = engine.aliases()
    changed = any(live.get(alias) != collection for alias, collection in wanted.items())
    if changed:
        # Another publish may take what is loaded here for an old version and drop it. Then it is loaded again.
        for _ in range(_TRIES):
            for target in targets:
                _load(engine, target, artifact, progress)
            if all(target.collection in engine.collections(target.alias) for target in targets):
                break
        for target in targets:
            _verify(engine, target)
        engine.switch(wanted)
        for target in targets:
            # Tells Feast that the view can be served, and how fresh it is.
            feature_store.registry.apply_materialization(
                target.codec.view, feature_store.project, manifest.as_of, manifest.as_of
            )
            _drop_old(engine, target.alias)
    return PublishResult(
        model=manifest.model,
        version=manifest.version,
        changed=changed,
        n_users=manifest.n_users,
        n_items=manifest.n_items,
        seconds=time.monotonic() - started,
    )


def _check_schema(view: FeatureView, codec: PointCodec, table: pa.Table, artifact: Artifact) -> None:
    missing = [name for name in codec.types if name not in table.column_names]
    extra = set(table.column_names) - set(codec.types) - {"event_timestamp", "created_timestamp"}
    dim = codec.fields["embedding"].dim
    if missing or extra or dim != artifact.manifest.dim:
        raise InputError(
            f"feature view {view.name!r} was registered for another schema than version {artifact.manifest.version} "
            f"has (registered dimension {dim}, artifact {artifact.manifest.dim}; "
            f"columns only in the view: {sorted(missing) or 'none'}, only in the artifact: {sorted(extra) or 'none'}); "
            "run feast apply, and publish the newest version"
        )


def _load(engine: Engine, target: _Target, artifact: Artifact, progress: Callable[[int], object] | None) -> None:
    manifest, codec = artifact.manifest, target.codec
    spec = collection_spec(
        codec.view,
        target.alias,
        codec.fields,
        dict.fromkeys(codec.fields, manifest.dim),
        version=manifest.version,
        space=manifest.space_id,
        as_of=manifest.as_of.isoformat(),
    )
    existing = engine.collections(target.alias).get(target.collection)
    # A version that was live before is still there whole; rows pushed into it since then only add to it.
    if existing == spec and engine.count(target.collection) >= target.table.num_rows:
        return

    def batches() -> Iterator[PointBatch]:
        for batch in encode_table(codec, target.table):
            yield batch
            if progress:
                progress(len(batch))

    engine.create(target.collection, spec, batches())


def _verify(engine: Engine, target: _Target) -> None:
    """Read a sample back and compare it with the artifact, bit for bit."""
    count, expected = engine.count(target.collection), target.table.num_rows
    if count < expected:
        raise EngineError(
            f"{target.collection} holds {count} points after loading {expected}; the live version is untouched"
        )
    rows = np.unique(np.linspace(0, expected - 1, min(_SAMPLE, expected)).astype(np.intp))
    for sample in encode_table(target.codec, target.table.take(rows)):
        version = target.table["version"][0].as_py()
        for name in target.codec.fields:
            matrix, _ = sample.vectors[name]
            stored = engine.retrieve(target.collection, sample.ids, vectors=[name])
            for id, vector, point in zip(sample.ids, matrix, stored, strict=True):
                newer = point is not None and point.payload["version"] != version
                if point is None or (not newer and not np.array_equal(point.vectors[name], vector)):
                    raise EngineError(
                        f"{target.collection} does not give back the vector of point {id} as written; "
                        "the live version is untouched"
                    )


def _drop_old(engine: Engine, alias: str) -> None:
    live = engine.aliases().get(alias)  # perhaps another one since, by a publish at the same time
    others = sorted((name for name in engine.collections(alias) if name != live), reverse=True)
    engine.drop(others[KEEP:])
