"""The last drift that was measured of a model: a file of the repo, for the services that tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

from feast_embeddings.events.watched import WatchedFile

__all__ = ["MeasuredDrift", "MeasuredDriftFile", "measured_drift_of"]


class MeasuredDrift(NamedTuple):
    """What `feast-embeddings drift` last found.

    Attributes:
        version: that was live.
        measured_at: when it was measured.
        n_interactions: how many were new.
        measures: each with ``name``, ``value``, ``limit`` and ``beyond``; the second and the third may be None.
    """

    version: str
    measured_at: datetime
    n_interactions: int
    measures: Sequence[Mapping[str, Any]]


class MeasuredDriftFile(WatchedFile[MeasuredDrift | None]):
    """The last drift of one model; None until the first is written."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "last drift", _parsed)

    def write(self, drift: MeasuredDrift) -> None:
        """Replace it; when this returns, services of this machine tell it."""
        self.replace_by({**drift._asdict(), "measured_at": drift.measured_at.isoformat()})


def _parsed(found: dict[str, Any]) -> MeasuredDrift | None:
    if not found:
        return None
    return MeasuredDrift(**{**found, "measured_at": datetime.fromisoformat(found["measured_at"])})


@lru_cache(256)  # so that a service reads the file only when it has changed
def measured_drift_of(data: Path, model: str) -> MeasuredDriftFile:
    """Return the last drift of a model in a repo's folder of versions."""
    return MeasuredDriftFile(data / f"{model}.drift.json")
