"""The service's answer about the versions of a model."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from feast_embeddings.artifact.manifest import Manifest
from feast_embeddings.publish.versions import list_versions
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import Repo

__all__ = ["VersionsAnswer", "versions_answer"]


class Training(BaseModel):
    """How a version was trained, and how good it is."""

    trainer: str
    created_at: datetime
    dim: int
    n_users: int
    n_items: int
    n_interactions: int
    metrics: dict[str, float] = Field(
        description="Ranking quality on held-out interactions; `popular_…` is the quality of the most popular items. "
        "Empty if not evaluated."
    )
    evaluated_on: str = Field(description="Which interactions were held out; empty if none were.")
    text_columns: list[str] = Field(description="Columns of items that a search by text reads; empty if it has none.")

    @classmethod
    def of(cls, manifest: Manifest) -> Training:
        """Convert the manifest of a version."""
        fields = {name: getattr(manifest, name) for name in cls.model_fields if name != "trainer"}
        return cls(trainer=manifest.trainer.name, **fields)


class VersionRow(BaseModel):
    version: str
    live: bool
    loaded: bool = Field(description="Whether it is in the vector store, so that rollback needs no loading.")
    as_of: str
    space: str
    training: Training | None = Field(description="null if the files of the version are not on the service's disk.")


class VersionsAnswer(BaseModel):
    model: str
    live_version: str | None
    versions: list[VersionRow]


def versions_answer(store: EmbeddingStore) -> dict[str, Any]:
    """Return a `VersionsAnswer`, newest first."""
    data = Repo.open(store.feature_store.repo_path or ".").data
    answer = VersionsAnswer(
        model=store.model,
        live_version=store.live_version(),
        versions=[
            VersionRow(
                version=found.version,
                live=found.live,
                loaded=found.kept,
                as_of=found.as_of,
                space=found.space,
                training=None if found.manifest is None else Training.of(found.manifest),
            )
            for found in reversed(list_versions(store.feature_store, data, store.model))
        ],
    )
    return answer.model_dump()
