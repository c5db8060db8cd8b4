"""Publish: load an artifact into new collections, verify them, then switch users and items in one step.

Queries see no change until the switch, and the switch is one atomic operation of the engine. So no query mixes
vectors of two versions, and a run that dies leaves the live version unchanged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from feast import FeatureStore, FeatureView

from feast_embeddings.artifact import Artifact
from feast_embeddings.codec.columns import encode_batches
from feast_embeddings.engines.dropped import is_gone
from feast_embeddings.engines.engine import Engine, PointBatch
from feast_embeddings.engines.server.failures import patiently
from feast_embeddings.errors import EngineError
from feast_embeddings.model.sides import qdrant_store
from feast_embeddings.model.versions import artifact_store_of
from feast_embeddings.online.settings import OnlineStoreSettings
from feast_embeddings.publish.carry import carry_attributes, carry_rows, readable
from feast_embeddings.publish.checks import check_room
from feast_embeddings.publish.gates import GateResult, Gates, refuse_failed
from feast_embeddings.publish.history import History, history_tables, write_history
from feast_embeddings.publish.plan import KEEP, live_sides, plan_publish, superseded
from feast_embeddings.publish.redundancy import lack_of_redundancy, naming_dead_nodes, wait_for_replicas
from feast_embeddings.publish.steps import STEPS, Steps
from feast_embeddings.publish.target import Target
from feast_embeddings.publish.verify import rank_queries, verify_loaded

__all__ = ["KEEP", "STEPS", "PublishResult", "publish_artifact", "register"]

_TRIES = 3
# How long to wait for a server once there is work to lose: longer than a restart takes.
_PATIENCE_SECONDS = 60.0


@dataclass(frozen=True)
class PublishResult:
    """What a publish did.

    Attributes:
        changed: False when the version was live already.
        previous: the version that was live before.
        n_late: rows carried over from older versions, written while this one was loaded, or since its training.
        n_attributes: attributes carried over, set without a training since this version's training.
        n_history: rows written to the tables of the repo's offline store; see `publish_artifact`.
        recall: per side and searched vector, the share of the 10 nearest that searches find, over a sample.
        search_ef: per side, the candidates that searches keep for that recall; 0: as in the settings.
        gates: the results of the gates.
        warnings: what does not stop a publish, but will hurt: collections that cannot be read, too few replicas.
        seconds: wall time, in total and per step.
    """

    model: str
    version: str
    changed: bool
    n_users: int
    n_items: int
    previous: str | None = None
    n_late: int = 0
    n_attributes: int = 0
    n_history: int = 0
    recall: dict[str, dict[str, float]] = field(default_factory=dict)
    search_ef: dict[str, int] = field(default_factory=dict)
    gates: list[GateResult] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    seconds: float = 0.0
    step_seconds: dict[str, float] = field(default_factory=dict)


def publish_artifact(
    feature_store: FeatureStore,
    artifact: Artifact,
    *,
    gates: Gates | None = None,
    wait_replicas: float | None = None,
    history: History = None,
    progress: Callable[[int], object] | None = None,
    on_step: Callable[[str], object] | None = None,
) -> PublishResult:
    """Make one version of a model the live one, for queries and for Feast's online reads.

    Publishing the same version again only finishes what an earlier run did not finish after its switch. On a
    server, a run that died while loading is resumed.

    Args:
        gates: when to refuse a version; see `Gates`.
        wait_replicas: seconds to wait before the switch for all replicas of a server's collections; if they are not
            active by then, the live version stays. By default one replica of each part is enough.
        history: ``feast`` writes the version to the tables of its views' sources before it goes live, ``none`` does
            not. By default the views that `embedding_views` got a source for are written.
        progress: called with the number of points written since its last call.
        on_step: called with the name of each of `STEPS` as it begins.

    Raises:
        GateError: the version looks worse than the live one.
        InputError: the model's feature views are not registered, or were registered for a different schema, or a table
            cannot hold their history.
        ArtifactError: a file of the artifact is damaged, or its vectors cannot be served.
        EmbeddingsError: the artifact store failed. The live version is untouched.
        EngineError: Qdrant or the offline store failed, or Qdrant does not hold what was sent. The live version is
            untouched.

    Stability: stable, see docs/compatibility.md.
    """
    steps = Steps(on_step)
    steps.begin("check")
    manifest, engine = artifact.manifest, qdrant_store(feature_store).engine(feature_store.config)
    plan, targets = plan_publish(feature_store, artifact, gates)
    tables = history_tables(feature_store, manifest, [(target.side, target.rows) for target in targets], history)
    if (store := artifact_store_of(feature_store)) is not None:
        store.versions(manifest.model)  # fails before anything is loaded if it cannot be reached
    recall: dict[str, dict[str, float]] = {}
    search_ef: dict[str, int] = {}
    n_late = n_history = 0

    def record() -> None:
        nonlocal n_history
        steps.begin("history")
        n_history += write_history(tables, artifact.path.parent)
        steps.begin("store")
        if store is not None:
            # Before it goes live, so that who sees it live finds its files.
            store.push(artifact)

    warnings = [f"{name} cannot be read, and stays as it is: {why}" for name, why in plan.unreadable.items()]
    if plan.changed:
        warnings += _left_behind(engine, targets)
        refuse_failed(manifest.version, plan.gates)
        check_room(feature_store, targets)
    settings = feature_store.config.online_store
    with naming_dead_nodes(engine, settings), patiently(_PATIENCE_SECONDS):
        if plan.changed:
            n_late = _load_and_switch(
                engine, artifact, targets, steps, progress, settings, recall, record, wait_replicas, plan.unreadable
            )
            search_ef = {target.side.entity: engine.describe(target.collection).search_ef for target in targets}
        else:
            record()
        # Late rows may be in any collection that was live until the switch: another publish may have made a third
        # version live since the plan was made.
        steps.begin("carry")
        n_late += sum(
            carry_rows(engine, target, readable(engine.collections(target.side.alias), plan.unreadable))
            for target in targets
        )
        n_attributes = carry_attributes(engine, artifact, targets, warnings)
        steps.begin("register")
        register(feature_store, [target.side.view for target in targets], manifest.as_of)
        steps.begin("clear")
        for target in targets:
            # A concurrent publish may have made another version live since.
            live = engine.aliases().get(target.side.alias, "")
            collections = engine.collections(target.side.alias)
            if live in collections:
                old = superseded(collections, live, collections[live].version)
                # What cannot be read now may have late rows, and be readable at the next publish.
                engine.drop(readable(old, plan.unreadable))
        with contextlib.suppress(EngineError):  # it is live already
            warnings += lack_of_redundancy(engine, [target.collection for target in targets])
        steps.end()
    return PublishResult(
        model=manifest.model,
        version=manifest.version,
        changed=plan.changed,
        n_users=manifest.n_users,
        n_items=manifest.n_items,
        previous=plan.live,
        n_late=n_late,
        n_attributes=n_attributes,
        n_history=n_history,
        recall=recall,
        search_ef=search_ef,
        gates=plan.gates,
        warnings=warnings,
        seconds=sum(steps.seconds.values()),
        step_seconds=steps.seconds,
    )


def _load_and_switch(
    engine: Engine,
    artifact: Artifact,
    targets: list[Target],
    steps: Steps,
    progress: Callable[[int], object] | None,
    settings: OnlineStoreSettings,
    recall: dict[str, dict[str, float]],
    record: Callable[[], None],
    wait_replicas: float | None,
    unreadable: Collection[str],
) -> int:
    """Make the new collections live, and return how many late rows were carried into them first."""
    for attempt in range(_TRIES):
        try:
            for target in targets:
                _load(engine, target, steps, progress)
                steps.begin("verify")
                _verify(engine, target, targets, settings, recall)
            record()
            # Carry the late rows so far first, so that no query misses them after the switch.
            aliases = engine.aliases()
            n_late = sum(
                carry_rows(engine, target, readable([aliases.get(target.side.alias, "")], unreadable))
                for target in targets
            )
            carry_attributes(engine, artifact, targets, [])
            if wait_replicas is not None:
                wait_for_replicas(engine, [target.collection for target in targets], wait_replicas)
            steps.begin("switch")
            engine.switch({target.side.alias: target.collection for target in targets})
            return n_late
        except EngineError:
            # Another publish may have dropped the new collections as an old version.
            if attempt == _TRIES - 1 or not any(is_gone(engine, t.side.alias, t.collection) for t in targets):
                raise
    raise AssertionError("the last try returns or raises")


def _load(engine: Engine, target: Target, steps: Steps, progress: Callable[[int], object] | None) -> None:
    existing = engine.collections(target.side.alias).get(target.collection)
    whole = existing is not None and existing.same_content(target.spec)
    if whole and engine.count(target.collection) >= target.rows.num_rows:
        steps.begin("index")
        engine.wait_until_indexed(target.collection)
        return

    def batches() -> Iterator[PointBatch]:
        for batch in encode_batches(target.side.codec, map(target.side.renamed, target.rows.batches())):
            yield batch
            if progress:
                progress(len(batch))
        steps.begin("index")

    steps.begin("load")
    engine.create(target.collection, target.spec, batches())


def _verify(
    engine: Engine,
    target: Target,
    targets: list[Target],
    settings: OnlineStoreSettings,
    recall: dict[str, dict[str, float]],
) -> None:
    """Verify the loaded collection, and record in it that it is verified, and how to search it."""
    if target.is_loaded(engine):
        return
    queries = {}
    embedding = target.side.codec.fields["embedding"]
    users = next((other.rows for other in targets if other.side.entity == "user"), None)
    if target.side.entity == "item" and embedding.bias is not None and users is not None:
        # The vector with the bias ranks items for a user.
        queries[embedding.name] = rank_queries(users)
    check = verify_loaded(
        engine, target, queries, settings.search_ef, min_recall=settings.min_recall, rescored=settings.rescore
    )
    recall[target.side.entity] = check.recall
    checked = {"verified": True, "search_ef": check.search_ef, "enough_ef": check.enough_ef}
    engine.annotate(target.collection, engine.describe(target.collection).model_copy(update=checked))


def _left_behind(engine: Engine, targets: list[Target]) -> list[str]:
    """Warn if the live rows have another join key than the views have now: their ids derive from its name."""
    sides = {target.side.entity: target.side for target in targets}
    return [
        f"the live {entity}s were loaded under another join key than {sides[entity].id_name!r}: rows pushed since "
        f"version {spec.version} are not carried over; push them again"
        for entity, (_, spec) in live_sides(engine, sides).items()
        if not sides[entity].fits(spec)
    ]


def register(feature_store: FeatureStore, views: Iterable[FeatureView], as_of: datetime) -> None:
    """Tell Feast that the views can be served, and how fresh they are."""
    for view in views:
        if (as_of, as_of) not in view.materialization_intervals[-1:]:
            feature_store.registry.apply_materialization(view, feature_store.project, as_of, as_of)
