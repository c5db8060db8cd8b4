"""Plan a publish: where each side of the version goes, the results of the gates, and what will be dropped."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from feast import FeatureStore

from feast_embeddings.artifact import Artifact, Entity, Manifest, load_artifact
from feast_embeddings.artifact.seen import NEXT_TO_SEEN
from feast_embeddings.codec.collection import collection_spec
from feast_embeddings.engines.dropped import ask_live, count_unless_dropped, live_collections, why_unreadable
from feast_embeddings.engines.engine import CollectionSpec, Engine
from feast_embeddings.errors import ArtifactError, InputError
from feast_embeddings.model.sides import Side, qdrant_store, sides_of
from feast_embeddings.online.table_names import collection_name
from feast_embeddings.publish.gates import GateResult, Gates, Live, evaluate_gates
from feast_embeddings.publish.probes import probe_gates
from feast_embeddings.publish.target import Target
from feast_embeddings.publish.verify import check_vectors

__all__ = ["KEEP", "PublishPlan", "SidePlan", "live_sides", "plan_publish", "schema_difference", "superseded"]

# Versions in addition to the live one that stay in Qdrant, so that rollback needs no loading.
KEEP = 2


@dataclass(frozen=True)
class SidePlan:
    """What a publish would do for the users or the items."""

    entity: Entity
    collection: str
    points: int
    to_load: int
    """Points that are not in Qdrant yet; 0 if the version is still kept there."""


@dataclass(frozen=True)
class PublishPlan:
    """What a publish would do.

    Attributes:
        live: the version that it would replace; None when none is live.
        changed: False when the version is live already.
        gates: empty if the version is live; if nothing is live, only the gate on its time, if that fails.
        drop: collections that would be deleted afterwards.
        unreadable: collections of the model that cannot be read, as with shards on a dead node -> why.
    """

    model: str
    version: str
    live: str | None
    changed: bool
    gates: list[GateResult]
    sides: list[SidePlan]
    drop: list[str]
    unreadable: dict[str, str]


def plan_publish(
    feature_store: FeatureStore, artifact: Artifact, gates: Gates | None = None
) -> tuple[PublishPlan, list[Target]]:
    """Read and check a version, and plan how to make it live. Changes nothing.

    Raises:
        InputError: the model's feature views are not registered, or were registered for a different schema.
        ArtifactError: a file of the artifact is damaged, or its vectors cannot be served.
    """
    manifest, engine = artifact.manifest, qdrant_store(feature_store).engine(feature_store.config)
    targets = []
    unreadable: dict[str, str] = {}
    registered = sides_of(feature_store, manifest.model)
    if set(registered) != set(manifest.sides):
        has, views = (" and ".join(f"{entity}s" for entity in sides) for sides in (manifest.sides, registered))
        raise InputError(
            f"version {manifest.version} has {has}, but the registry has feature views of {views} for model "
            f"{manifest.model!r}; run feast apply, and publish the newest version"
        )
    for entity, side in registered.items():
        rows = artifact.verified(entity)
        check_vectors(artifact, entity, rows, feature_store.config.online_store.datatype)
        _check_schema(side, rows.schema.names, manifest)
        spec = collection_spec(
            side.view,
            side.alias,
            side.codec.fields,
            dict.fromkeys(side.codec.fields, manifest.dim),
            added=side.codec.added,
            version=manifest.version,
            space=manifest.space_id,
            as_of=manifest.as_of.isoformat(),
        ).model_copy(update={"fingerprint": manifest.hash_of(entity), "verified": False})
        collections = engine.collections(side.alias)
        reasons = {name: why_unreadable(engine, name) for name in collections}
        unreadable |= {name: reason for name, reason in reasons.items() if reason}
        live = engine.aliases().get(side.alias, "")
        collection = _collection(side, manifest.version, collections, live, unreadable)
        targets.append(Target(side, collection, spec, rows))
    sides = {target.side.entity: target.side for target in targets}
    live_now, compared = ask_live(
        lambda: live_sides(engine, sides),
        lambda sides: (sides, _live(engine, sides, artifact, unreadable) if sides else None),
    )
    changed = any(target.collection != live_now.get(target.side.entity, ("",))[0] for target in targets)
    gates = gates or Gates()
    results = evaluate_gates(manifest, compared, gates) + probe_gates(artifact, compared, gates) if changed else []
    plan = PublishPlan(
        model=manifest.model,
        version=manifest.version,
        live=" and ".join(sorted({spec.version for _, spec in live_now.values()})) or None,
        changed=changed,
        gates=results,
        sides=[_side(engine, target) for target in targets],
        drop=[
            name
            for target in targets
            for name in superseded(engine.collections(target.side.alias), target.collection, manifest.version)
            if name not in unreadable
        ],
        unreadable=unreadable,
    )
    return plan, targets


def _collection(
    side: Side,
    version: str,
    collections: Mapping[str, CollectionSpec],
    live: str,
    unreadable: Collection[str],
) -> str:
    """Return the collection to load a version into.

    Never one that cannot be read, whose node may return; nor one whose rows have another join key, from before the
    view got its entity.
    """
    usable = {name for name, spec in collections.items() if name not in unreadable and side.fits(spec)}
    copies = (collection_name(side.alias, version, copy) for copy in count())
    first = next(name for name in copies if name not in collections or name in usable)
    is_live = live in usable and collections[live].version == version
    return live if is_live else first


def live_sides(engine: Engine, sides: Mapping[Entity, Side]) -> dict[Entity, tuple[str, CollectionSpec]]:
    """Return the live collection of each side, and its spec, from one read of the aliases."""
    live = live_collections(engine, [side.alias for side in sides.values()])
    return {entity: live[side.alias] for entity, side in sides.items() if side.alias in live}


def superseded(collections: dict[str, CollectionSpec], live: str, version: str, keep: int = KEEP) -> list[str]:
    """Return the collections of an alias that are no longer needed once this version is live.

    These are unfinished ones of older publishes, and all but the newest `keep` of the others.
    """
    others = {name: spec for name, spec in collections.items() if name != live}
    unfinished = [name for name, spec in others.items() if not spec.verified and spec.version < version]
    # Not by name: an older release named them differently.
    finished = sorted((name for name, spec in others.items() if spec.verified), key=lambda n: others[n].version)[::-1]
    return unfinished + finished[keep:]


def schema_difference(side: Side, columns: Sequence[str], dim: int) -> str:
    """Describe how a registered view differs from a version's table; empty if they fit."""
    codec, columns = side.codec, side.names(columns)
    own = codec.types.keys() - codec.added.keys()
    missing = own - set(columns)
    extra = set(columns) - own - {*NEXT_TO_SEEN, "event_timestamp", "created_timestamp"}
    registered = codec.fields["embedding"].dim
    found = [f"registered dimension {registered}, artifact {dim}"] if registered != dim else []
    for where, names in (("view", missing), ("artifact", extra)):
        found += [f"columns only in the {where}: {', '.join(sorted(names))}"] if names else []
    return "; ".join(found)


def _check_schema(side: Side, columns: list[str], manifest: Manifest) -> None:
    if difference := schema_difference(side, columns, manifest.dim):
        raise InputError(
            f"feature view {side.view.name!r} was registered for a different schema than version {manifest.version} "
            f"has ({difference}); run feast apply, and publish the newest version"
        )


def _side(engine: Engine, target: Target) -> SidePlan:
    points = target.rows.num_rows
    to_load = 0 if target.is_loaded(engine) else points
    existing = engine.collections(target.side.alias).get(target.collection)
    if to_load and existing is not None and existing.same_content(target.spec):
        to_load = max(0, points - (count_unless_dropped(engine, target.collection, target.side.alias) or 0))
    return SidePlan(target.side.entity, target.collection, points, to_load)


def _live(
    engine: Engine,
    sides: dict[Entity, tuple[str, CollectionSpec]],
    artifact: Artifact,
    unreadable: Collection[str],
) -> Live:
    versions = frozenset(spec.version for _, spec in sides.values())
    return Live(
        versions=versions,
        spaces=frozenset(spec.space for _, spec in sides.values()),
        counts={
            entity: engine.count(collection)
            for entity, (collection, _) in sides.items()
            if collection not in unreadable
        },
        manifest=_manifest(artifact, versions),
    )


def _manifest(artifact: Artifact, versions: Iterable[str]) -> Manifest | None:
    """Return the manifest of the live version, if only one version is live and it is on disk."""
    try:
        (version,) = versions
        return load_artifact(artifact.path.parents[1], artifact.manifest.model, version).manifest
    except (ValueError, InputError, ArtifactError):
        return None
