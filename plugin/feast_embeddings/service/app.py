"""The app: its own, or mounted on Feast's feature server."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware

from feast_embeddings.repo import Repo
from feast_embeddings.service.calls import PROBLEMS, Calls
from feast_embeddings.service.gate import Gate
from feast_embeddings.service.keys import KeyRing
from feast_embeddings.service.models import Models
from feast_embeddings.service.neighbour_routes import add_neighbour_routes
from feast_embeddings.service.operation_routes import operation_routes
from feast_embeddings.service.page_routes import page_routes
from feast_embeddings.service.permissions import feast_auth
from feast_embeddings.service.problems import add_handlers
from feast_embeddings.service.quick_paths import QuickPaths
from feast_embeddings.service.settings import ServiceSettings
from feast_embeddings.service.vector_routes import add_vector_routes
from feast_embeddings.service.version_routes import add_version_routes

__all__ = ["create_app", "mount"]

_DESCRIPTION = (
    "Vectors of users and items, and the nearest-neighbour answers that they give. "
    "Every answer is of one version of the model. Ids that the version does not know are data, not errors. "
    "Errors are problem details (RFC 9457). "
    "Where API keys are asked for, send yours as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
)


def create_app(settings: ServiceSettings, keys: KeyRing | None = None) -> FastAPI:
    """The service of one repo, as an ASGI app.

    Args:
        keys: who may ask; by default those of `settings.key_file` and of the environment, and everybody without any.

    Raises:
        InputError: there is no repo, its online store is not ours, or a key file cannot be used.
    """
    models = Models(Repo.open(settings.repo).feature_store())
    app = FastAPI(
        title="feast-embeddings",
        version=version("feast-embeddings"),
        description=_DESCRIPTION,
        docs_url=None,  # these two load their scripts from elsewhere
        redoc_url=None,
    )
    model_routes = APIRouter(
        prefix="/v1/models",
        dependencies=feast_auth(models.feature_store),
        responses=PROBLEMS,
    )
    calls = Calls(models, settings)
    # Matched in this order, so those that are asked most come first.
    for add_routes in (add_vector_routes, add_neighbour_routes, add_version_routes):
        add_routes(model_routes, calls)
    app.include_router(model_routes)
    app.include_router(operation_routes(models))
    app.include_router(page_routes())
    add_handlers(app)
    # The one that is added last is the first to see a request.
    app.add_middleware(QuickPaths, router=model_routes, service=app)
    app.add_middleware(Gate, settings=settings, keys=KeyRing(settings.key_file) if keys is None else keys)
    if settings.cors_origins:
        # Outside the gate: a browser asks without a key whether it may ask at all.
        app.add_middleware(
            CORSMiddleware, allow_origins=list(settings.cors_origins), allow_methods=["*"], allow_headers=["*"]
        )
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def mount(app: FastAPI, repo: Path | str, path: str = "/embeddings", **settings: Any) -> None:
    """Answer for a repo under a path of another app, such as Feast's feature server.

    Without API keys in the environment or `key_file` it is as open as that app.

    Args:
        settings: of `ServiceSettings`, by name.
    """
    app.mount(path, create_app(ServiceSettings(repo=Path(repo), **settings)))


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schema["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer"},
            "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
        }
        schema["security"] = [{"bearer": []}, {"key": []}]
        app.openapi_schema = schema
    return app.openapi_schema
