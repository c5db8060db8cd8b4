"""Create the app, or mount it on Feast's feature server."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware.cors import CORSMiddleware

from feast_embeddings.repo import Repo
from feast_embeddings.service.access import Guard, GuardedRoute, GuardedRouter
from feast_embeddings.service.api_keys import KeyRing
from feast_embeddings.service.calls import PROBLEMS, Calls
from feast_embeddings.service.middleware import Gate, KnownHost, OwnOrigin
from feast_embeddings.service.models import Models
from feast_embeddings.service.observing.telemetry import Telemetry, is_wanted
from feast_embeddings.service.permissions import feast_user
from feast_embeddings.service.problems import add_handlers
from feast_embeddings.service.routes.events import add_event_routes
from feast_embeddings.service.routes.maps import add_map_routes
from feast_embeddings.service.routes.neighbours import add_neighbour_routes
from feast_embeddings.service.routes.operation import operation_routes
from feast_embeddings.service.routes.pages import page_routes
from feast_embeddings.service.routes.vectors import add_vector_routes
from feast_embeddings.service.routes.versions import add_version_routes
from feast_embeddings.service.settings import ServiceSettings

__all__ = ["create_app", "mount"]

_DESCRIPTION = (
    "Vectors of users and items, and queries of their nearest neighbours. "
    "Every answer is of one version of the model. Ids that the version does not know are data, not errors. "
    "Errors are problem details (RFC 9457). "
    "If the service requires API keys, send yours as 'Authorization: Bearer KEY' or 'X-API-Key: KEY'."
)


# As in `Host`, without the port.
_THIS_MACHINE = ("localhost", "127.0.0.1", "[::1]", "::1")


def create_app(settings: ServiceSettings, keys: KeyRing | None = None) -> FastAPI:
    """Create the service of one repo, as an ASGI app.

    Args:
        keys: the valid keys; by default from `settings.key_file` and the environment. Without any, no key is
            required.

    Raises:
        InputError: there is no repo, its online store is not ours, or a key file cannot be used.
    """
    models = Models(Repo.open(settings.repo).feature_store())
    keys = KeyRing(settings.key_file) if keys is None else keys
    user = feast_user(models.feature_store)
    app = FastAPI(
        title="feast-embeddings",
        version=version("feast-embeddings"),
        description=_DESCRIPTION,
        # FastAPI's own routes for these have no guard, and its pages load their scripts from elsewhere.
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # would redirect to any host that the request names
    )
    app.router.route_class = GuardedRoute
    app.state.models = models
    app.state.guard = Guard(settings, keys, user)
    model_routes = GuardedRouter(prefix="/v1/models", responses=PROBLEMS)
    calls = Calls(models)
    # Matched in this order, so the most used come first.
    add_vector_routes(model_routes, calls)
    add_neighbour_routes(model_routes, calls)
    add_event_routes(model_routes, calls)
    add_version_routes(model_routes, calls, settings)
    add_map_routes(model_routes, calls, settings)
    for routes in (model_routes, operation_routes(models), page_routes()):
        # Not `include_router`, which would replace them by unguarded routes.
        app.router.routes.extend(routes.routes)
    add_handlers(app)
    # The middleware added last sees a request first.
    hosts = settings.allowed_hosts
    if not keys and user is None:
        app.add_middleware(OwnOrigin, others=settings.cors_origins)
        hosts = _THIS_MACHINE if hosts is None else hosts
    if hosts is not None:
        app.add_middleware(KnownHost, hosts=hosts)
    app.add_middleware(Gate, settings=settings)
    if settings.cors_origins:
        # Outside the gate: a browser sends its preflight requests without a key.
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors_origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["X-Request-ID"],
        )
    if is_wanted():
        app.add_middleware(Telemetry, routes=app.routes)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def mount(app: FastAPI, repo: Path | str, path: str = "/embeddings", **settings: Any) -> None:
    """Serve a repo under a path of another app, such as Feast's feature server.

    Without API keys in the environment or `key_file`, and without Feast's `auth`, it answers only under the names of
    this machine, unless `allowed_hosts` is given, and no one can publish, unless `allow_writes` is set.

    Args:
        settings: fields of `ServiceSettings`, by name.
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
