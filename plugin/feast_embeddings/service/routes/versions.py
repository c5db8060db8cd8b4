"""The endpoints for versions: list them, publish and roll back."""

from __future__ import annotations

from typing import Any

import anyio.to_thread
from fastapi import Response

from feast_embeddings.artifact import LATEST
from feast_embeddings.errors import NotPublishedError
from feast_embeddings.model.versions import versions_of
from feast_embeddings.publish.run import publish_artifact
from feast_embeddings.publish.versions import roll_back
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import Repo
from feast_embeddings.service import answers, write_requests
from feast_embeddings.service.access import GuardedRouter
from feast_embeddings.service.calls import Calls, Model
from feast_embeddings.service.permissions import may_read
from feast_embeddings.service.routes.versions_answer import VersionsAnswer, versions_answer
from feast_embeddings.service.settings import ServiceSettings
from feast_embeddings.service.terms import terms

__all__ = ["add_version_routes"]


def add_version_routes(router: GuardedRouter, calls: Calls, settings: ServiceSettings) -> None:
    """Add these endpoints to the router of the models."""
    models = calls.models

    @router.get("", responses={200: {"model": answers.ModelsAnswer}})
    async def list_models() -> Response:
        """List the models that the caller may read, and which version of each is live."""

        def look() -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = []
            for name in models.names():
                store = models.get(name)
                if not may_read(store):
                    continue
                try:
                    spec = store.live().spec
                    rows.append({"name": name, "live_version": spec.version, "as_of": spec.as_of, "space": spec.space})
                except NotPublishedError:
                    rows.append({"name": name, "live_version": None, "as_of": None, "space": None})
            return rows

        return answers.json_response({"models": await anyio.to_thread.run_sync(look, abandon_on_cancel=True)})

    @router.get("/{model}/versions", responses={200: {"model": VersionsAnswer}})
    async def list_versions(model: Model) -> Response:
        """List the versions of a model: those in the vector store, and those on the service's disk."""
        return answers.json_response(await calls.run(model, versions_answer))

    @router.post("/{model}/publish", responses={200: {"model": answers.PublishAnswer}})
    @terms("write", timed=False)
    async def publish(model: Model, request: write_requests.PublishRequest) -> Response:
        """Make a trained version live, users and items in one step. Needs a key of scope write."""

        def load(store: EmbeddingStore) -> dict[str, Any]:
            artifact = versions_of(store.feature_store, model).load(request.version or LATEST)
            result = publish_artifact(store.feature_store, artifact)
            return {"model": model, "version": result.version, "changed": result.changed}

        return answers.json_response(await calls.write(model, load))

    @router.post("/{model}/rollback", responses={200: {"model": answers.PublishAnswer}})
    @terms("write", timed=False)
    async def rollback(model: Model, request: write_requests.PublishRequest) -> Response:
        """Make an older version live again, by default the one before the live one. Needs a key of scope write."""

        def go_back(store: EmbeddingStore) -> dict[str, Any]:
            result = roll_back(store.feature_store, Repo.open(settings.repo).data, model, request.version)
            return {"model": model, "version": result.version, "changed": result.changed}

        return answers.json_response(await calls.write(model, go_back))
