"""Gates: reasons not to replace the live version of a model, each with a flag that overrides it.

They compare manifests, so they cost nothing, and they run before anything is loaded.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from feast_embeddings.artifact import Entity, Manifest
from feast_embeddings.errors import GateError
from feast_embeddings.times import is_future

__all__ = ["GateResult", "Gates", "Live", "evaluate_gates", "refuse_failed", "status"]

# Metrics where more is better; the first that both versions have is compared. `popular_…` is of another ranking.
_METRIC = re.compile(r"(ndcg|recall|precision|hit_rate|map|mrr)(@\d+)?")
_USERS = re.compile(r", \d+ users$")
_FLAGS = {
    "metric": "--allow-worse",
    "coverage": "--allow-shrink",
    "space": "--allow-new-space",
    "time": "--allow-future",
    "probe": "--allow-probe-drop",
}


@dataclass(frozen=True)
class Gates:
    """Limits that a version must meet to replace the live one.

    Attributes:
        max_metric_drop: largest relative drop of the ranking metric below the live version's.
        max_shrink: largest relative loss of users or items.
        max_probe_drop: largest relative drop of a probe's score above chance; noise of it is allowed in any case.
        allow_worse, allow_shrink, allow_new_space, allow_future, allow_probe_drop: override that gate.

    Stability: stable, see docs/compatibility.md.
    """

    max_metric_drop: float = 0.05
    max_shrink: float = 0.10
    allow_worse: bool = False
    allow_shrink: bool = False
    allow_new_space: bool = False
    allow_future: bool = False
    max_probe_drop: float = 0.05
    allow_probe_drop: bool = False


@dataclass(frozen=True)
class GateResult:
    """The result of one gate; `detail` holds the values, and the margin."""

    name: Literal["metric", "coverage", "space", "time", "probe"]
    status: Literal["passed", "failed", "overruled", "not comparable"]
    detail: str


@dataclass(frozen=True)
class Live:
    """The live version of a model.

    Attributes:
        versions, spaces: one of each side; two if Feast materialized only one side.
        counts: points of each side.
        manifest: the live version's; None if it is not on disk, or two versions are live.
    """

    versions: frozenset[str]
    spaces: frozenset[str]
    counts: Mapping[Entity, int]
    manifest: Manifest | None


def evaluate_gates(new: Manifest, live: Live | None, gates: Gates) -> list[GateResult]:
    """Return the result of every gate; if nothing is live, only of gates that need no comparison."""
    compared = (
        [] if live is None else [_metric(new, live, gates), _coverage(new, live, gates), _space(new, live, gates)]
    )
    return compared + _time(new, gates)


def refuse_failed(version: str, results: Iterable[GateResult]) -> None:
    """Raise `GateError` if a gate failed, naming every one that did and its flag."""
    failed = [f"{r.detail} ({_FLAGS[r.name]} publishes it anyway)" for r in results if r.status == "failed"]
    if failed:
        raise GateError(f"version {version} was not published, the live version stays: {'; '.join(failed)}")


def _metric(new: Manifest, live: Live, gates: Gates) -> GateResult:
    old = live.manifest
    if old is None:
        return GateResult("metric", "not comparable", "the live version is not on disk, so its metrics are unknown")
    name = next((name for name in new.metrics if name in old.metrics and _METRIC.fullmatch(name)), None)
    if name is None:
        return GateResult("metric", "not comparable", "the two versions were not evaluated with the same metric")
    holdouts = [_USERS.sub("", manifest.evaluated_on) for manifest in (new, old)]
    values = f"{name} is {new.metrics[name]:.4f}, live {old.metrics[name]:.4f}"
    if holdouts[0] != holdouts[1]:
        detail = f"{values}, but on different kinds of holdout: {holdouts[0] or 'unknown'}, {holdouts[1] or 'unknown'}"
        return GateResult("metric", "not comparable", detail)
    lowest = old.metrics[name] * (1 - gates.max_metric_drop)
    detail = f"{values}; expected at least {lowest:.4f}, a drop of {gates.max_metric_drop:.0%}"
    return GateResult("metric", status(new.metrics[name] >= lowest, gates.allow_worse), detail)


def _coverage(new: Manifest, live: Live, gates: Gates) -> GateResult:
    old = live.manifest
    if old is None and not live.counts:
        return GateResult(
            "coverage", "not comparable", "the live version is not on disk, and cannot be counted in Qdrant"
        )
    before = live.counts if old is None else {entity: old.rows(entity) for entity in old.sides}
    fits = all(new.rows(entity) >= before.get(entity, 0) * (1 - gates.max_shrink) for entity in new.sides)
    detail = " and ".join(f"{new.rows(entity)} {entity}s, live {before.get(entity, 0)}" for entity in new.sides)
    return GateResult(
        "coverage",
        status(fits, gates.allow_shrink),
        f"it has {detail}; expected at most {gates.max_shrink:.0%} fewer",
    )


def _space(new: Manifest, live: Live, gates: Gates) -> GateResult:
    if live.spaces == {new.space_id}:
        return GateResult("space", "passed", f"the space is {new.space_id}, as in the live version")
    old = " and ".join(sorted(live.spaces))
    return GateResult(
        "space",
        status(False, gates.allow_new_space),
        f"its vectors are of space {new.space_id}, the live version's of {old}: models trained on the live vectors "
        "do not work with the new ones",
    )


def _time(new: Manifest, gates: Gates) -> list[GateResult]:
    """Fail a version dated in the future: it hides its age, and newer rows would count as older."""
    if not is_future(new.as_of):
        return []
    detail = f"its data reaches to {new.as_of.isoformat()}, which is in the future: a row of the log has a wrong time"
    return [GateResult("time", status(False, gates.allow_future), detail)]


def status(fits: bool, overruled: bool) -> Literal["passed", "failed", "overruled"]:
    """Return the status of a gate that compared something."""
    return "passed" if fits else "overruled" if overruled else "failed"
