"""What checks look at, what they find, and how they are kept apart."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from feast import RepoConfig

from feast_embeddings._feast import table_id
from feast_embeddings.artifact import ENTITIES, Entity, trained_models
from feast_embeddings.engine import Engine
from feast_embeddings.online_store import QdrantEmbeddingOnlineStore
from feast_embeddings.points import PointCodec
from feast_embeddings.repo import Repo

if TYPE_CHECKING:
    from feast import FeatureStore, FeatureView

__all__ = ["Check", "Finding", "Level", "MissingError", "Patient", "Registered", "Report", "first_line", "run_checks"]

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """One thing that a check found.

    Attributes:
        check: its name.
        level: ``ok``; ``warning``, which can wait; ``problem``, which cannot.
        message: what is the case.
        mend: a shell command that mends it, or begins to; empty when ok. What is in capitals is to be filled in.
        model: the model that it is about, if it is about one.
    """

    check: str
    level: Level
    message: str
    mend: str = ""
    model: str = ""


@dataclass(frozen=True)
class Report:
    """All findings, and which checks could not be made, with the check that says why."""

    findings: list[Finding]
    skipped: dict[str, str]

    @property
    def worst(self) -> Level:
        """The worst level of all findings."""
        levels = {finding.level for finding in self.findings}
        return "problem" if "problem" in levels else "warning" if "warning" in levels else "ok"


class MissingError(Exception):
    """A check needs what another one has found to be missing or broken."""

    def __init__(self, check: str) -> None:
        super().__init__(check)
        self.check = check


@dataclass(frozen=True)
class Registered:
    """One side of a model, as registered: its view, how it is stored, and the name that queries use."""

    view: FeatureView
    codec: PointCodec
    alias: str


@dataclass
class Patient:
    """A repo, and what the checks before have found of it; None is what they have not."""

    repo: Repo
    key_file: Path | None
    max_age: timedelta
    config: RepoConfig | None = None
    views: dict[str, FeatureView] | None = None
    engine: Engine | None = None

    @property
    def path(self) -> str:
        """For a shell."""
        return shlex.quote(str(self.repo.path))

    @cached_property
    def models(self) -> list[str]:
        """The models on disk, and those that are registered."""
        return sorted({*trained_models(self.repo.data), *self.registered_models()})

    def registered_models(self) -> list[str]:
        """The models of the registry; none where that cannot be read."""
        from feast_embeddings.views import MODEL_TAG

        return sorted({view.tags[MODEL_TAG] for view in (self.views or {}).values() if MODEL_TAG in view.tags})

    def need_config(self) -> RepoConfig:
        """The parsed feature_store.yaml."""
        if self.config is None:
            raise MissingError("configuration")
        return self.config

    def need_engine(self) -> Engine:
        """The vector store, which answers."""
        if self.engine is None:
            raise MissingError("store")
        return self.engine

    def feature_store(self) -> FeatureStore:
        """Feast's handle on the repo; its registry is not to be asked before it is known to be there."""
        from feast import FeatureStore

        self.need_config()
        # Not made of the parsed settings: then Feast would look for files from the current folder on.
        return FeatureStore(repo_path=str(self.repo.path))

    def sides(self, model: str) -> dict[Entity, Registered] | None:
        """Both sides of a model; None when they are not registered."""
        from feast_embeddings.views import view_name

        config = self.need_config()
        if self.views is None:
            raise MissingError("registry")
        found: dict[Entity, Registered] = {}
        for entity in ENTITIES:
            view = self.views.get(view_name(model, entity))
            if view is None:
                return None
            codec = QdrantEmbeddingOnlineStore().codec(config, view)
            found[entity] = Registered(view, codec, table_id(config, view))
        return found

    def command(self, name: str, model: str = "", *more: str) -> str:
        """One of this package's commands, for this repo."""
        named = ["--model", model] if model else []
        return shlex.join(["feast-embeddings", name, "--repo", str(self.repo.path), *named, *more])

    def feast(self, *arguments: str) -> str:
        """One of Feast's commands, for this repo."""
        return shlex.join(["feast", "-c", str(self.repo.path), *arguments])


Check = Callable[[Patient], Iterable[Finding]]


def run_checks(checks: Iterable[Check], patient: Patient) -> Report:
    """Make each check, whatever the others find."""
    report = Report([], {})
    for check in checks:
        name = check.__name__
        try:
            for finding in check(patient):
                report.findings.append(finding)
        except MissingError as missing:
            report.skipped[name] = missing.check
        except Exception as error:  # whatever is broken is a finding
            again = f"FEAST_EMBEDDINGS_TRACEBACK=1 {patient.command('versions')}"
            report.findings.append(Finding(name, "problem", f"this check failed: {first_line(error)}", again))
    return report


def first_line(error: BaseException) -> str:
    """What an error says, without what would not fit a line."""
    text = str(error).strip().partition("\n")[0][:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
