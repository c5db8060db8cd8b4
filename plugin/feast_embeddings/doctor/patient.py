"""The repo that checks look at, and what earlier checks found."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from feast import FeatureStore, FeatureView, RepoConfig

from feast_embeddings.artifact import ENTITIES, Entity, trained_models
from feast_embeddings.engines.engine import CollectionSpec, Engine
from feast_embeddings.errors import is_refused_write
from feast_embeddings.model.sides import Side
from feast_embeddings.model.views import MODEL_TAG, view_name
from feast_embeddings.online.open_engine import embedded_folder
from feast_embeddings.online.store import QdrantEmbeddingOnlineStore
from feast_embeddings.online.table_names import table_id
from feast_embeddings.publish.plan import live_sides
from feast_embeddings.repo import Repo

__all__ = ["MissingError", "Patient"]


class MissingError(Exception):
    """A check needs something that another check found missing or broken."""

    def __init__(self, check: str) -> None:
        super().__init__(check)
        self.check = check


@dataclass
class Patient:
    """A repo, and what earlier checks found; None where they found nothing."""

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
        """The models on disk, and the registered ones if the registry can be read."""
        registered = {view.tags[MODEL_TAG] for view in (self.views or {}).values() if MODEL_TAG in view.tags}
        return sorted({*trained_models(self.repo.data), *registered})

    def need_config(self) -> RepoConfig:
        """Return the parsed feature_store.yaml."""
        if self.config is None:
            raise MissingError("configuration")
        return self.config

    @property
    def has_artifact_store(self) -> bool:
        """Whether versions that this disk lacks are pulled from elsewhere."""
        return self.config is not None and getattr(self.config.online_store, "artifact_store", None) is not None

    def need_engine(self) -> Engine:
        """Return the vector store, if it answers."""
        if self.engine is None:
            raise MissingError("store")
        return self.engine

    def feature_store(self) -> FeatureStore:
        """Feast's handle on the repo; do not use its registry before it is known to exist."""
        self.need_config()
        # Not made from the parsed settings: Feast would then look for files relative to the current folder.
        return FeatureStore(repo_path=str(self.repo.path))

    def sides(self, model: str) -> dict[Entity, Side] | None:
        """Return the registered sides of a model; None if there are none."""
        config = self.need_config()
        if self.views is None:
            raise MissingError("registry")
        found: dict[Entity, Side] = {}
        for entity in ENTITIES:
            if view := self.views.get(view_name(model, entity)):
                codec = QdrantEmbeddingOnlineStore().codec(config, view)
                found[entity] = Side(entity, codec, table_id(config, view))
        return found or None

    def registered(self) -> Iterator[tuple[str, dict[Entity, Side]]]:
        """Yield the registered models."""
        for model in self.models:
            if sides := self.sides(model):
                yield model, sides

    def live(self, sides: dict[Entity, Side]) -> dict[Entity, tuple[str, CollectionSpec]]:
        """Return the live collections of a model; `EngineError` if they cannot be read."""
        return live_sides(self.need_engine(), sides)

    def load_again(self, error: Exception) -> str:
        """Return a command that moves the embedded engine's folder aside and publishes every model again.

        If the folder only cannot be written, on a full or read-only disk, its data is good, and pushed rows are
        nowhere else: then the command only shows the disk.
        """
        if is_refused_write(error):
            return self.look_at_disk()
        settings = self.need_config().online_store
        commands = [self.command("publish", model) for model in self.models]
        if settings.url is None:
            folder = embedded_folder(settings, self.repo.path)
            commands.insert(0, shlex.join(["mv", str(folder), f"{folder}.broken"]))
        return " && ".join(commands)

    def look_at_disk(self) -> str:
        """Return a command that shows the disk of the embedded engine's folder, and how full it is."""
        return shlex.join(["df", "-h", str(embedded_folder(self.need_config().online_store, self.repo.path))])

    def command(self, name: str, model: str = "", *more: str) -> str:
        """Return one of this package's commands, for this repo."""
        named = ["--model", model] if model else []
        return shlex.join(["feast-embeddings", name, "--repo", str(self.repo.path), *named, *more])

    def feast(self, *arguments: str) -> str:
        """Return one of Feast's commands, for this repo."""
        return shlex.join(["feast", "-c", str(self.repo.path), *arguments])
