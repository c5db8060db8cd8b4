"""All measures of drift of a live version, next to the limits beyond which it is time to train again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from feast_embeddings.analysis.drift.live_rows import LiveRows, compare_rows, trained_rows
from feast_embeddings.analysis.drift.neighbours import neighbour_overlap
from feast_embeddings.analysis.drift.new_interactions import NewInteractions
from feast_embeddings.analysis.drift.popularity import PopularityShift, popularity_shift
from feast_embeddings.analysis.drift.quality import RANKS, Quality, measure_quality
from feast_embeddings.artifact import ENTITIES, Artifact, Entity
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from feast_embeddings.query.live import LiveModel

__all__ = ["Drift", "Limits", "Measure", "measure_drift"]

SAMPLE = 1000
FEWEST = 10
"""New interactions, and users among them, below which their shares and ranking have no limit."""


@dataclass(frozen=True)
class Limits:
    """What is still no reason to train again; each may be reached, but not passed.

    Attributes:
        max_age: of the newest interaction behind the version.
        max_unknown_users, max_unknown_items: share of the new interactions whose user or item the live version does
            not know.
        max_later: share of the live users, and of the items, that came after the training.
        min_neighbour_overlap: share of an item's 10 nearest in the version's files that are its nearest live.
        min_recall_ratio: recall@20 on the new interactions ÷ that on the version's own holdout.
        max_popularity_shift: Jensen–Shannon distance of the shares of items.
    """

    max_age: timedelta = timedelta(days=30)
    max_unknown_users: float = 0.3
    max_unknown_items: float = 0.1
    max_later: float = 0.2
    min_neighbour_overlap: float = 0.7
    min_recall_ratio: float = 0.8
    max_popularity_shift: float = 0.5


@dataclass(frozen=True)
class Measure:
    """One number.

    Attributes:
        name: what it is of; see docs/refresh.md.
        value: None if it cannot be measured.
        limit: the most or the least that it may be; None if it is only told.
        bound: which of both the limit is.
        beyond: whether it is time to train again because of it.
        low, high: the ends of a 95 % interval, of an estimate.
    """

    name: str
    value: float | None
    limit: float | None = None
    bound: Literal["most", "least"] = "most"
    beyond: bool = False
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Drift:
    """What has changed since a version was trained.

    Attributes:
        as_of: the newest interaction behind the version.
        since: the first instant of the new interactions; None if they have no times.
        n_interactions: how many are new.
        n_new_ids: by side, the distinct ids among them that the live version does not know.
        n_users: sampled users that the quality is of.
        n_items: sampled items that the overlap of neighbours is of.
        holdout: what the version scored when it was trained, on a part of its log.
        measures: all of them, in a fixed order.
    """

    version: str
    as_of: datetime
    since: datetime | None
    n_interactions: int
    n_older: int
    n_bad: int
    n_new_ids: dict[Entity, int]
    n_users: int
    n_items: int
    holdout: dict[str, float]
    measures: list[Measure]

    @property
    def beyond(self) -> list[Measure]:
        """The measures beyond their limits: reasons to train again."""
        return [measure for measure in self.measures if measure.beyond]


def measure_drift(
    live: LiveModel,
    artifact: Artifact,
    new: NewInteractions,
    limits: Limits | None = None,
    *,
    sample: int = SAMPLE,
    seed: int = 0,
    now: datetime | None = None,
) -> Drift:
    """Compare a live version with its files, and with what users did since.

    Without new interactions only the age has a limit: live rows then differ from the files because someone wanted
    it to.

    Args:
        artifact: the version that is live.
        sample: the most users and items, for quality and neighbours.
        seed: of the samples, the bootstrap and the chance of a shift.
        now: the end of the age; by default now.

    Raises:
        InputError: the artifact is of another version than the live one.
        ArtifactError: a file of it is missing, or was changed.
        NotPublishedError, EngineError, VersionMismatchError: as in the queries.
    """
    manifest, limits = artifact.manifest, limits or Limits()
    if live.spec.version != manifest.version:
        raise InputError(f"version {live.spec.version} is live, so it cannot be compared with {manifest.version}")
    if sample < 1:
        raise InputError(f"sample must be at least 1, got {sample}")
    trained = {entity: trained_rows(artifact, entity) for entity in manifest.sides}
    rows = {entity: compare_rows(live, entity, trained[entity]) for entity in manifest.sides}
    n_new_ids: dict[Entity, int] = {}
    age = (now or datetime.now(UTC)) - manifest.as_of
    days = timedelta(days=1)
    measures = [Measure("age_days", age / days, limits.max_age / days, beyond=age > limits.max_age)]
    judged = len(new) > 0
    for entity in manifest.sides:
        ids = new.ids[entity].to_pandas()
        unknown = ~ids.isin(rows[entity].ids)
        n_new_ids[entity] = int(ids[unknown].nunique())
        limit = limits.max_unknown_users if entity == "user" else limits.max_unknown_items
        measures.append(
            _most(f"unknown_{entity}s", float(unknown.mean()) if len(new) else None, limit, judged=len(new) >= FEWEST)
        )
    for entity, own in rows.items():
        measures += _of_rows(entity, own, limits, judged=judged)
    n_items = 0
    if "item" in rows:
        ids = rows["item"].ids
        overlap, n_items = neighbour_overlap(live, "item", trained["item"], ids, sample=sample, seed=seed)
        least = limits.min_neighbour_overlap
        low = judged and overlap is not None and overlap < least
        measures.append(Measure("neighbour_overlap", overlap, least, "least", beyond=low))
    quality = None
    if len(rows) == len(ENTITIES):
        quality = measure_quality(live, trained["item"], rows, new, sample=sample, seed=seed)
        measures += _of_quality(quality, manifest.metrics, limits.min_recall_ratio)
    if "item" in rows:
        shift = popularity_shift(trained["item"], new.ids["item"].to_pandas(), seed=seed)
        measures += _of_shift(shift, limits.max_popularity_shift, judged=len(new) >= FEWEST)
    return Drift(
        version=manifest.version,
        as_of=manifest.as_of,
        since=new.since,
        n_interactions=len(new),
        n_older=new.n_older,
        n_bad=new.n_bad,
        n_new_ids=n_new_ids,
        n_users=0 if quality is None else quality.n_users,
        n_items=n_items,
        holdout=manifest.metrics,
        measures=measures,
    )


def _most(name: str, value: float | None, limit: float, *, judged: bool) -> Measure:
    return Measure(name, value, limit, beyond=judged and value is not None and value > limit)


def _of_rows(entity: Entity, rows: LiveRows, limits: Limits, *, judged: bool) -> list[Measure]:
    return [
        Measure(f"later_{entity}s", rows.later, limits.max_later, beyond=judged and rows.later > limits.max_later),
        Measure(f"changed_{entity}s", rows.changed),
        Measure(f"{entity}_norm_ratio", rows.norm_ratio),
    ]


def _of_quality(quality: Quality | None, own: dict[str, float], least: float) -> list[Measure]:
    name = f"recall@{RANKS}"
    scores = {} if quality is None else quality.scores
    measures = [
        Measure(each, scores[each].value, low=scores[each].low, high=scores[each].high)
        if each in scores
        else Measure(each, None)
        for each in (name, f"ndcg@{RANKS}", f"popular_{name}", f"popular_ndcg@{RANKS}")
    ]
    base = own.get(name, 0.0)
    if not base or name not in scores:
        return [*measures, Measure("recall_ratio", None, least, "least")]
    value, low, high = (score / base for score in (scores[name].value, scores[name].low, scores[name].high))
    # A few unlucky users are no reason, and of very few the interval has no width.
    low_for_all = high < least and quality is not None and quality.n_users >= FEWEST
    return [*measures, Measure("recall_ratio", value, least, "least", low_for_all, low, high)]


def _of_shift(shift: PopularityShift | None, limit: float, *, judged: bool) -> list[Measure]:
    if shift is None:
        return [Measure("popularity_shift", None, limit), Measure("popularity_shift_by_chance", None)]
    # Few interactions are far from any shares.
    beyond = judged and shift.distance > max(limit, shift.chance)
    return [
        Measure("popularity_shift", shift.distance, limit, beyond=beyond),
        Measure("popularity_shift_by_chance", shift.chance),
    ]
