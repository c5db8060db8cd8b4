"""The endpoints. Each is one call into `EmbeddingStore`, so that each answer is of one version."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import anyio.to_thread
from fastapi import APIRouter, Header, Path, Response
from fastapi.params import Depends as Dependency
from feast.permissions.action import AuthzedAction
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse

from feast_embeddings.answers import Embeddings, Id, Neighbours, NeighboursBatch
from feast_embeddings.artifact import Entity, load_artifact
from feast_embeddings.embedding_store import EmbeddingStore
from feast_embeddings.errors import EmbeddingsError, NotPublishedError
from feast_embeddings.publish import publish_artifact
from feast_embeddings.repo import Repo
from feast_embeddings.service import answers, requests
from feast_embeddings.service.answers import ARROW, NUMPY
from feast_embeddings.service.docs_page import docs_page
from feast_embeddings.service.metrics import MISSING, exposition
from feast_embeddings.service.models import Models
from feast_embeddings.service.permissions import assert_may
from feast_embeddings.service.problems import FieldError, Problem, ProblemError
from feast_embeddings.service.settings import ServiceSettings
from feast_embeddings.versions import list_versions, roll_back

__all__ = ["model_routes", "operation_routes"]

Answer = TypeVar("Answer")

# A search for more results than this is not over in a millisecond or two.
_LIGHT = 100
Model = Annotated[str, Path(examples=["shop"], max_length=60, description="Name of the model.")]

_PROBLEMS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/problem+json": {"schema": Problem.model_json_schema()}}}
    for status, text in {
        400: "The body is not JSON.",
        401: "No valid API key was sent.",
        403: "The key, or Feast's permissions, do not allow it.",
        404: "There is no such model.",
        409: "No version is live.",
        413: "Too many ids, too high a limit, or too large a body.",
        422: "A field cannot be used; `errors` names it.",
        500: "An internal error.",
        503: "The vector store does not answer.",
        504: "The answer took longer than the time limit.",
    }.items()
}


class _Calls:
    """Checks requests, and runs the queries that they ask for."""

    def __init__(self, models: Models, settings: ServiceSettings) -> None:
        self._models = models
        self._settings = settings

    def check(self, request: requests.Request, *, queries: str | None = None) -> None:
        """Raise a problem where a request asks for too much.

        Args:
            queries: the field of which each id is a query of its own.
        """
        for name, ids in request.id_lists():
            most = self._settings.max_queries if name == queries else self._settings.max_ids
            if len(ids) > most:
                text = f"{len(ids):,} ids are too many, at most {most:,} are allowed; ask in several requests"
                raise ProblemError(413, f"{name}: {text}", [FieldError(field=name, message=text)])
        limit = getattr(request, "limit", 1)
        if limit > self._settings.max_limit:
            text = f"at most {self._settings.max_limit:,}, got {limit:,}"
            raise ProblemError(422, f"limit: {text}", [FieldError(field="limit", message=text)])

    async def run(
        self, model: str, ask: Callable[[EmbeddingStore], Answer], action: AuthzedAction = AuthzedAction.READ_ONLINE
    ) -> Answer:
        """Ask a model in another thread, so that other requests go on; when time is over nobody waits for it."""
        return await anyio.to_thread.run_sync(self._ask, model, ask, action, abandon_on_cancel=True)

    async def one(self, model: str, light: bool, ask: Callable[[EmbeddingStore], NeighboursBatch]) -> NeighboursBatch:
        """Ask one query, given as a batch of one.

        Args:
            light: takes the embedded engine about a millisecond, so a thread would only add to it.
        """
        if light and self._models.embedded and self._models.known(model) is not None:
            return self._ask(model, ask, AuthzedAction.READ_ONLINE)
        return await self.run(model, ask)

    def _ask(self, model: str, ask: Callable[[EmbeddingStore], Answer], action: AuthzedAction) -> Answer:
        store = self._models.get(model)
        assert_may(store, action)
        return ask(store)


def _single(model: str, found: NeighboursBatch, metadata: bool) -> Response:
    """The answer to the only query of a batch; an unknown id is data, so an answer without results."""
    (answer,) = found.answers
    if answer is None:
        MISSING.labels(model).inc()
        return answers.json_response({"model": model, "version": found.version, "results": [], "missing": found.ids})
    return _answer(model, answer, metadata)


def _answer(model: str, found: Neighbours, metadata: bool) -> Response:
    if found.missing:
        MISSING.labels(model).inc(len(found.missing))
    return answers.neighbours_response(model, found, metadata=metadata)


def _batch(model: str, found: NeighboursBatch, metadata: bool) -> Response:
    if missing := found.missing:
        MISSING.labels(model).inc(len(missing))
    return answers.batch_response(model, found, metadata=metadata)


def model_routes(models: Models, settings: ServiceSettings, dependencies: list[Dependency]) -> APIRouter:
    """Everything under `/v1/models`."""
    router, calls = (
        APIRouter(prefix="/v1/models", dependencies=dependencies, responses=_PROBLEMS),
        _Calls(models, settings),
    )

    async def embeddings(
        model: str, entity: Entity, ids: list[Id], encoding: requests.Encoding | None, accept: str
    ) -> Response:
        def ask(store: EmbeddingStore) -> Embeddings:
            return store.user_embeddings(ids) if entity == "user" else store.item_embeddings(ids)

        found = await calls.run(model, ask)
        if missing := len(ids) - int(found.found.sum()):
            MISSING.labels(model).inc(missing)
        accepted: requests.Encoding = "arrow" if ARROW in accept else "numpy" if NUMPY in accept else "float"
        return answers.embedding_response(model, entity, found, encoding or accepted)

    vectors: dict[int | str, dict[str, Any]] = {
        200: {"model": answers.EmbeddingAnswer, "content": {ARROW: {}, NUMPY: {}}, "description": "The embeddings."}
    }
    neighbours: dict[int | str, dict[str, Any]] = {200: {"model": answers.NeighboursAnswer}}
    batch: dict[int | str, dict[str, Any]] = {200: {"model": answers.BatchAnswer}}

    @router.get("", responses={200: {"model": answers.ModelsAnswer}})
    async def list_models() -> Response:
        """The models of this service, and which version of each is live."""

        def look() -> list[dict[str, Any]]:
            rows: list[dict[str, Any]] = []
            for name in models.names():
                try:
                    spec = models.get(name).live().side("item").spec
                    rows.append({"name": name, "live_version": spec.version, "as_of": spec.as_of, "space": spec.space})
                except NotPublishedError:
                    rows.append({"name": name, "live_version": None, "as_of": None, "space": None})
            return rows

        return answers.json_response({"models": await anyio.to_thread.run_sync(look)})

    @router.get("/{model}/versions", responses={200: {"model": answers.VersionsAnswer}})
    async def list_versions(model: Model) -> Response:
        """The versions of a model: those in the vector store, and those on disk beside it."""
        return answers.json_response(await calls.run(model, lambda store: _versions(models, store)))

    @router.post("/{model}/create_user_embedding", responses=vectors)
    async def create_user_embedding(
        model: Model, request: requests.UserEmbeddingRequest, accept: Annotated[str, Header()] = ""
    ) -> Response:
        """The embeddings of users, in the order of the request."""
        calls.check(request)
        return await embeddings(model, "user", request.user_ids, request.encoding, accept)

    @router.post("/{model}/create_item_embedding", responses=vectors)
    async def create_item_embedding(
        model: Model, request: requests.ItemEmbeddingRequest, accept: Annotated[str, Header()] = ""
    ) -> Response:
        """The embeddings of items, in the order of the request."""
        calls.check(request)
        return await embeddings(model, "item", request.item_ids, request.encoding, accept)

    @router.post("/{model}/similar_items", responses=neighbours)
    async def similar_items(model: Model, request: requests.SimilarItemsRequest) -> Response:
        """The items nearest to an item by cosine, without itself."""
        calls.check(request)
        r = request
        found = await calls.one(
            model,
            r.filter is None and r.limit <= _LIGHT,
            lambda store: store.similar_items_batch(
                [r.item_id], r.limit, filter=r.filter, attributes=r.return_metadata
            ),
        )
        return _single(model, found, r.return_metadata)

    @router.post("/{model}/similar_users", responses=neighbours)
    async def similar_users(model: Model, request: requests.SimilarUsersRequest) -> Response:
        """The users nearest to a user by cosine, without the user."""
        calls.check(request)
        r = request
        found = await calls.one(
            model,
            r.filter is None and r.limit <= _LIGHT,
            lambda store: store.similar_users_batch(
                [r.user_id], r.limit, filter=r.filter, attributes=r.return_metadata
            ),
        )
        return _single(model, found, r.return_metadata)

    @router.post("/{model}/rank", responses=neighbours)
    async def rank(model: Model, request: requests.RankRequest) -> Response:
        """The items with the highest score for a user: user · item + bias. With `item_ids`, these items reranked."""
        calls.check(request)
        r = request
        found = await calls.one(model, False, lambda store: store.rank_batch([r.user_id], r.limit, **r.ranking()))
        return _single(model, found, r.return_metadata)

    @router.post("/{model}/users_for_item", responses=neighbours)
    async def users_for_item(model: Model, request: requests.AudienceRequest) -> Response:
        """An audience: the users with the highest score for an item, or those most like a set of users."""
        calls.check(request)
        r = request
        if (r.item_id is None) == (r.user_ids is None):
            text = "give one of item_id and user_ids"
            raise ProblemError(422, text, [FieldError(field="item_id", message=text)])

        def ask(store: EmbeddingStore) -> Neighbours | NeighboursBatch:
            if r.item_id is not None:
                return store.users_for_item_batch([r.item_id], r.limit, **r.audience())
            return store.lookalike_users(r.user_ids or [], r.limit, filter=r.filter, attributes=r.return_metadata)

        found = await calls.run(model, ask)
        if isinstance(found, NeighboursBatch):
            return _single(model, found, r.return_metadata)
        return _answer(model, found, r.return_metadata)

    @router.post("/{model}/similar_items/batch", responses=batch)
    async def similar_items_batch(model: Model, request: requests.BatchSimilarItemsRequest) -> Response:
        """`similar_items` for each of many items."""
        calls.check(request, queries="item_ids")
        r = request
        found = await calls.run(
            model,
            lambda store: store.similar_items_batch(r.item_ids, r.limit, filter=r.filter, attributes=r.return_metadata),
        )
        return _batch(model, found, r.return_metadata)

    @router.post("/{model}/similar_users/batch", responses=batch)
    async def similar_users_batch(model: Model, request: requests.BatchSimilarUsersRequest) -> Response:
        """`similar_users` for each of many users."""
        calls.check(request, queries="user_ids")
        r = request
        found = await calls.run(
            model,
            lambda store: store.similar_users_batch(r.user_ids, r.limit, filter=r.filter, attributes=r.return_metadata),
        )
        return _batch(model, found, r.return_metadata)

    @router.post("/{model}/rank/batch", responses=batch)
    async def rank_batch(model: Model, request: requests.BatchRankRequest) -> Response:
        """`rank` for each of many users."""
        calls.check(request, queries="user_ids")
        r = request
        found = await calls.run(model, lambda store: store.rank_batch(r.user_ids, r.limit, **r.ranking()))
        return _batch(model, found, r.return_metadata)

    @router.post("/{model}/users_for_item/batch", responses=batch)
    async def users_for_item_batch(model: Model, request: requests.BatchAudienceRequest) -> Response:
        """`users_for_item` for each of many items."""
        calls.check(request, queries="item_ids")
        r = request
        found = await calls.run(model, lambda store: store.users_for_item_batch(r.item_ids, r.limit, **r.audience()))
        return _batch(model, found, r.return_metadata)

    @router.post("/{model}/retrieve", responses={200: {"model": answers.PageAnswer}})
    async def retrieve(model: Model, request: requests.RetrieveRequest) -> Response:
        """A page of the users or items that pass a filter; all pages of one listing are of one version."""
        calls.check(request)
        r = request
        page = await calls.run(
            model,
            lambda store: store.retrieve(
                r.entity, filter=r.filter, limit=r.limit, cursor=r.cursor, vectors=r.return_embeddings
            ),
        )
        return answers.page_response(model, page, metadata=r.return_metadata)

    @router.post("/{model}/publish", responses={200: {"model": answers.PublishAnswer}})
    async def publish(model: Model, request: requests.PublishRequest) -> Response:
        """Make a trained version live, users and items in one step. Needs a key that may write."""

        def load(store: EmbeddingStore) -> dict[str, Any]:
            artifact = load_artifact(Repo.open(settings.repo).data, model, request.version)
            result = publish_artifact(store.feature_store, artifact)
            return {"model": model, "version": result.version, "changed": result.changed}

        return answers.json_response(await calls.run(model, load, AuthzedAction.WRITE_ONLINE))

    @router.post("/{model}/rollback", responses={200: {"model": answers.PublishAnswer}})
    async def rollback(model: Model, request: requests.PublishRequest) -> Response:
        """Make an older version live again, the one before the live one by default. Needs a key that may write."""

        def go_back(store: EmbeddingStore) -> dict[str, Any]:
            result = roll_back(store.feature_store, Repo.open(settings.repo).data, model, request.version)
            return {"model": model, "version": result.version, "changed": result.changed}

        return answers.json_response(await calls.run(model, go_back, AuthzedAction.WRITE_ONLINE))

    return router


def _versions(models: Models, store: EmbeddingStore) -> dict[str, Any]:
    data = Repo.open(models.feature_store.repo_path or ".").data
    return {
        "model": store.model,
        "live_version": store.live_version(),
        "versions": [
            {
                "version": found.version,
                "live": found.live,
                "loaded": found.kept,
                "as_of": found.as_of,
                "space": found.space,
            }
            for found in reversed(list_versions(models.feature_store, data, store.model))
        ],
    }


def operation_routes(models: Models) -> APIRouter:
    """What operators and their tools ask."""
    router = APIRouter()

    @router.get("/healthz")
    async def healthz() -> dict[str, str]:
        """Whether the process answers at all."""
        return {"status": "ok"}

    @router.get("/readyz", responses={503: _PROBLEMS[503]})
    async def readyz() -> dict[str, str]:
        """Whether a version of some model is live, so that there is something to answer from."""

        def is_ready() -> bool:
            try:
                return any(models.get(name).live_version() is not None for name in models.names())
            except EmbeddingsError:
                return False

        if not await anyio.to_thread.run_sync(is_ready):
            raise ProblemError(503, "no version of any model is live yet")
        return {"status": "ready"}

    @router.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus metrics, summed over the workers."""
        text = await anyio.to_thread.run_sync(exposition, models)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")

    @router.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        return HTMLResponse(docs_page(request.app.openapi(), request.scope.get("root_path", "")))

    return router
