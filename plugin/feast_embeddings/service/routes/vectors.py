"""The endpoints that return vectors: by id, or page by page for all that pass a filter."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Header, Response

from feast_embeddings.arguments import Id
from feast_embeddings.artifact import Entity
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.service import answers, requests
from feast_embeddings.service.access import GuardedRouter
from feast_embeddings.service.answers import ARROW, NUMPY
from feast_embeddings.service.calls import Calls, Model
from feast_embeddings.service.observing.metrics import MISSING

__all__ = ["add_vector_routes"]

# Reading the vectors of more ids than this takes longer than a millisecond or two.
_LIGHT = 200


def add_vector_routes(router: GuardedRouter, calls: Calls) -> None:
    """Add these endpoints to the router of the models."""

    async def embeddings(
        model: str, entity: Entity, ids: list[Id], asked: requests.Encoding | None, accept: str
    ) -> Response:
        light = len(ids) <= _LIGHT
        encoding = asked or ("arrow" if ARROW in accept else "numpy" if NUMPY in accept else "float")

        def answer(store: EmbeddingStore) -> Response:
            found = (store.user_embeddings if entity == "user" else store.item_embeddings)(ids)
            if found.missing:
                MISSING.labels(model).inc(len(found.missing))
            if encoding == "float" or encoding == "base64":
                return answers.embedding_json(model, found, encoding)
            return answers.embedding_file(model, entity, found, encoding)

        return await calls.one(model, light, answer)

    vectors: dict[int | str, dict[str, Any]] = {
        200: {"model": answers.EmbeddingAnswer, "content": {ARROW: {}, NUMPY: {}}, "description": "The embeddings."}
    }

    @router.post("/{model}/create_user_embedding", responses=vectors)
    async def create_user_embedding(
        model: Model, request: requests.UserEmbeddingRequest, accept: Annotated[str, Header()] = ""
    ) -> Response:
        """Return the embeddings of users, in the order of the request."""
        return await embeddings(model, "user", request.user_ids, request.encoding, accept)

    @router.post("/{model}/create_item_embedding", responses=vectors)
    async def create_item_embedding(
        model: Model, request: requests.ItemEmbeddingRequest, accept: Annotated[str, Header()] = ""
    ) -> Response:
        """Return the embeddings of items, in the order of the request."""
        return await embeddings(model, "item", request.item_ids, request.encoding, accept)

    @router.post("/{model}/retrieve", responses={200: {"model": answers.PageAnswer}})
    async def retrieve(model: Model, request: requests.RetrieveRequest) -> Response:
        """Return a page of the users or items that pass a filter; all pages of a listing are of one version."""
        r = request

        def page(store: EmbeddingStore) -> Response:
            found = store.page(
                r.entity,
                r.limit,
                filter=r.filter,
                cursor=r.cursor,
                vectors=r.return_embeddings,
                attributes=r.attributes,
            )
            return answers.page_response(model, found, metadata=r.metadata)

        return await calls.run(model, page)
