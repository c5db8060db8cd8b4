"""The endpoints that find neighbours: similar items and users, ranked items, items for a text, audiences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastapi import Response

from feast_embeddings.query.answers import Neighbours, NeighboursBatch
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.service import answers, requests
from feast_embeddings.service.access import GuardedRouter
from feast_embeddings.service.calls import Calls, Model
from feast_embeddings.service.observing.metrics import MISSING
from feast_embeddings.service.problems import FieldError, ProblemError
from feast_embeddings.service.terms import terms

__all__ = ["add_neighbour_routes"]

# A search for more results than this takes longer than a millisecond or two.
_LIGHT = 100


def add_neighbour_routes(router: GuardedRouter, calls: Calls) -> None:
    """Add these endpoints to the router of the models."""
    neighbours: dict[int | str, dict[str, Any]] = {200: {"model": answers.NeighboursAnswer}}
    batch: dict[int | str, dict[str, Any]] = {200: {"model": answers.BatchAnswer}}

    async def similar(model: str, r: requests.Shaped, ask: Callable[[EmbeddingStore], NeighboursBatch]) -> Response:
        light = r.filter is None and r.is_one_search and r.limit + r.offset <= _LIGHT
        return await calls.one(model, light, lambda store: _single(model, ask(store), r.metadata))

    async def batches(model: str, r: requests.Query, ask: Callable[[EmbeddingStore], NeighboursBatch]) -> Response:
        return await calls.run(model, lambda store: _batch(model, ask(store), r.metadata))

    @router.post("/{model}/similar_items", responses=neighbours)
    async def similar_items(model: Model, request: requests.SimilarItemsRequest) -> Response:
        """Find the items nearest by cosine to an item, to examples or to a vector, without the item and the examples.

        With `negative` examples the direction is twice the mean of the `positive` unit vectors, less the mean of these.
        """
        r = request
        _only_one("item_id", r.item_id, "positive", r.positive, "vector", r.vector)
        if r.negative is not None and r.positive is None:
            raise ProblemError(422, *_blamed("negative", "give it with positive"))
        if r.item_id is not None:
            id = r.item_id
            return await similar(model, r, lambda store: store.similar_items_batch([id], r.limit, **r.options()))

        def ask(store: EmbeddingStore) -> Response:
            asked = r.options() | {"positive": r.positive, "negative": r.negative, "vector": r.vector}
            return _answer(model, store.similar_items(None, r.limit, **asked), r.metadata)

        return await calls.run(model, ask)

    @router.post("/{model}/similar_users", responses=neighbours)
    async def similar_users(model: Model, request: requests.SimilarUsersRequest) -> Response:
        """Find the users nearest to a user by cosine, without the user."""
        r = request
        return await similar(model, r, lambda store: store.similar_users_batch([r.user_id], r.limit, **r.options()))

    @router.post("/{model}/rank", responses={200: {"model": answers.RankingAnswer}})
    async def rank(model: Model, request: requests.RankRequest) -> Response:
        """Find the items with the highest score for a user: user · item + bias. With `item_ids`, rerank these items.

        With `interactions` instead of a user, rank for a visitor without an id: the version's trainer folds them in.
        Always in this order: `filter`, score, leave out, `boosts`, `max_per`, `diversity`, `offset` and `limit`.
        """
        r = request
        _only_one("user_id", r.user_id, "interactions", r.interactions)

        def ask(store: EmbeddingStore) -> Response:
            if r.user_id is not None:
                found = store.rank_batch([r.user_id], r.limit, **r.options())
            else:
                found = store.rank_visitors([requests.history(r.interactions or [])], r.limit, **r.options())
            return _single(model, found, r.metadata)

        return await calls.run(model, ask)

    @router.post("/{model}/search", responses={200: {"model": answers.SearchAnswer}})
    async def search(model: Model, request: requests.SearchRequest) -> Response:
        """Find items for a text: by its words, by what it says as content, and for a user.

        Training needs a column of text among its content.

        The first search of a version takes longer, as the words of its items are read.
        """
        r = request

        def ask(store: EmbeddingStore) -> Response:
            found = store.search(r.text, r.user_id, r.limit, **r.options())
            if found.missing:
                MISSING.labels(model).inc(len(found.missing))
            return answers.search_response(model, found, metadata=r.metadata)

        return await calls.run(model, ask)

    @router.post("/{model}/users_for_item", responses=neighbours)
    async def users_for_item(model: Model, request: requests.AudienceRequest) -> Response:
        """Find an audience: the users with the highest score for an item, or those most similar to a set of users."""
        r = request
        _only_one("item_id", r.item_id, "user_ids", r.user_ids)

        def ask(store: EmbeddingStore) -> Response:
            metadata = r.metadata
            if r.item_id is not None:
                return _single(model, store.users_for_item_batch([r.item_id], r.limit, **r.options()), metadata)
            seeds = r.user_ids or []
            asked = {name: value for name, value in r.options().items() if name != "exclude_seen"}
            return _answer(model, store.lookalike_users(seeds, r.limit, **asked), metadata)

        return await calls.run(model, ask)

    @router.post("/{model}/similar_items/batch", responses=batch)
    @terms(queries=("item_ids",))
    async def similar_items_batch(model: Model, request: requests.BatchSimilarItemsRequest) -> Response:
        """Run `similar_items` for many items."""
        r = request
        return await batches(model, r, lambda store: store.similar_items_batch(r.item_ids, r.limit, **r.options()))

    @router.post("/{model}/similar_users/batch", responses=batch)
    @terms(queries=("user_ids",))
    async def similar_users_batch(model: Model, request: requests.BatchSimilarUsersRequest) -> Response:
        """Run `similar_users` for many users."""
        r = request
        return await batches(model, r, lambda store: store.similar_users_batch(r.user_ids, r.limit, **r.options()))

    @router.post("/{model}/rank/batch", responses=batch)
    @terms(
        queries=(
            "user_ids",
            "interactions",
        )
    )
    async def rank_batch(model: Model, request: requests.BatchRankRequest) -> Response:
        """Run `rank` for many users, or many visitors, whose ids in the answer are their positions from 0."""
        r = request
        _only_one("user_ids", r.user_ids, "interactions", r.interactions)

        def ask(store: EmbeddingStore) -> NeighboursBatch:
            if r.user_ids is not None:
                return store.rank_batch(r.user_ids, r.limit, **r.options())
            histories = [requests.history(each) for each in r.interactions or []]
            return store.rank_visitors(histories, r.limit, **r.options())

        return await batches(model, r, ask)

    @router.post("/{model}/users_for_item/batch", responses=batch)
    @terms(queries=("item_ids",))
    async def users_for_item_batch(model: Model, request: requests.BatchAudienceRequest) -> Response:
        """Run `users_for_item` for many items."""
        r = request
        return await batches(model, r, lambda store: store.users_for_item_batch(r.item_ids, r.limit, **r.options()))


def _only_one(*fields: Any) -> None:
    """Raise a problem unless exactly one of some fields, given as name, value, name, value, has a value."""
    names, values = fields[::2], fields[1::2]
    given = [name for name, value in zip(names, values, strict=True) if value is not None]
    if len(given) != 1:
        raise ProblemError(422, *_blamed(given[1] if given else names[0], f"give either {' or '.join(names)}"))


def _blamed(field: str, text: str) -> tuple[str, list[FieldError]]:
    return text, [FieldError(field=field, message=text)]


def _single(model: str, found: NeighboursBatch, metadata: bool) -> Response:
    """Answer the only query of a batch; an unknown id is not an error, so its answer has no results."""
    (answer,) = found.answers
    if answer is None:
        missing = found.missing
        MISSING.labels(model).inc(len(missing))
        return answers.json_response(
            {
                "model": model,
                "version": found.version,
                "space": found.space,
                "results": [],
                "missing": missing,
                "fallback": None,
            }
        )
    return _answer(model, answer, metadata)


def _answer(model: str, found: Neighbours, metadata: bool) -> Response:
    if found.missing:
        MISSING.labels(model).inc(len(found.missing))
    return answers.neighbours_response(model, found, metadata=metadata)


def _batch(model: str, found: NeighboursBatch, metadata: bool) -> Response:
    if missing := found.missing:
        MISSING.labels(model).inc(len(missing))
    return answers.batch_response(model, found, metadata=metadata)
