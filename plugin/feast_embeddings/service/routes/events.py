"""The endpoints that change a model without a training: what users did, new items, attributes, whom to forget
or to hide."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

from fastapi import Response

from feast_embeddings.arguments import Id
from feast_embeddings.changes import Visibility
from feast_embeddings.errors import InputError
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.service import answers, write_requests
from feast_embeddings.service.access import GuardedRouter
from feast_embeddings.service.calls import Calls, Model
from feast_embeddings.service.terms import terms

__all__ = ["add_event_routes"]


def add_event_routes(router: GuardedRouter, calls: Calls) -> None:
    """Add these endpoints to the router of the models."""

    @router.post("/{model}/interactions", responses={200: {"model": answers.AddedAnswer}})
    @terms("write")
    async def add_interactions(model: Model, request: write_requests.EventsRequest) -> Response:
        """Record what users did; the next `rank` takes it into account, also for users newer than the training.

        They are on disk when the answer comes. Needs a key of scope write.
        """

        def add(store: EmbeddingStore) -> dict[str, Any]:
            given = [each.model_dump(exclude_none=True) for each in request.interactions]
            return {"model": model, **store.add_interactions(given)._asdict()}

        return answers.json_response(await calls.write(model, add))

    @router.post("/{model}/items", responses={200: {"model": answers.NewItemsAnswer}})
    @terms("write", timed=False)
    async def add_items(model: Model, request: write_requests.NewItemsRequest) -> Response:
        """Make items searchable that the training did not know, by their attributes; needs `train --items`.

        Their vectors come from their content. Needs a key of scope write.
        """

        def add(store: EmbeddingStore) -> dict[str, Any]:
            items = {item.item_id: item.metadata for item in request.items}
            if len(items) < len(request.items):
                raise InputError("items has an item_id twice; send each item once")
            folded = store.add_items(items)
            version = folded.table["version"][0].as_py()
            return {"model": model, "version": version, "added": folded.table.num_rows}

        return answers.json_response(await calls.write(model, add))

    @router.patch("/{model}/items", responses={200: {"model": answers.AttributesSetAnswer}})
    @terms("write", timed=False)
    async def set_item_attributes(model: Model, request: write_requests.ChangedItemsRequest) -> Response:
        """Set attributes of live items, such as price and stock; everything else stays as it is.

        Unknown ids are counted, and the rest is set. The next publish keeps the values. Needs a key of scope write.
        """
        return await set_attributes(model, "items", [(item.item_id, item.metadata) for item in request.items])

    @router.patch("/{model}/users", responses={200: {"model": answers.AttributesSetAnswer}})
    @terms("write", timed=False)
    async def set_user_attributes(model: Model, request: write_requests.ChangedUsersRequest) -> Response:
        """Set attributes of live users; see `set_item_attributes`. Needs a key of scope write."""
        return await set_attributes(model, "users", [(user.user_id, user.metadata) for user in request.users])

    async def set_attributes(model: str, field: str, given: list[tuple[Id, dict[str, Any]]]) -> Response:
        def change(store: EmbeddingStore) -> dict[str, Any]:
            changes = dict(given)
            if len(changes) < len(given):
                raise InputError(f"{field} has an id twice; send each id once")
            items, users = (changes, None) if field == "items" else (None, changes)
            return dataclasses.asdict(store.set_attributes(items, users))

        return answers.json_response(await calls.write(model, change))

    @router.post("/{model}/forget", responses={200: {"model": answers.ForgottenAnswer}})
    @terms("write", timed=False)
    async def forget(model: Model, request: write_requests.ForgetRequest) -> Response:
        """Remove users and items from all versions, live, kept and on disk, and from the recorded interactions.

        It cannot be undone, and can be repeated: ids that are nowhere are not an error. Needs a key of scope write.
        """

        def forget(store: EmbeddingStore) -> dict[str, Any]:
            return dataclasses.asdict(store.forget(users=request.user_ids or (), items=request.item_ids or ()))

        return answers.json_response(await calls.write(model, forget))

    @router.post("/{model}/hide", responses={200: {"model": answers.VisibilityAnswer}})
    @terms("write", timed=False)
    async def hide(model: Model, request: write_requests.HiddenRequest) -> Response:
        """Leave users and items out of all answers until `unhide`, whatever is published; they keep their vectors.

        Only `retrieve` still has them, and says so. Needs a key of scope write.
        """
        return await set_hidden(model, EmbeddingStore.hide, request)

    @router.post("/{model}/unhide", responses={200: {"model": answers.VisibilityAnswer}})
    @terms("write", timed=False)
    async def unhide(model: Model, request: write_requests.HiddenRequest) -> Response:
        """Show hidden users and items again. Needs a key of scope write."""
        return await set_hidden(model, EmbeddingStore.unhide, request)

    async def set_hidden(model: str, change: Callable[..., Visibility], r: write_requests.HiddenRequest) -> Response:
        def changed(store: EmbeddingStore) -> dict[str, Any]:
            return dataclasses.asdict(change(store, users=r.user_ids or (), items=r.item_ids or ()))

        return answers.json_response(await calls.write(model, changed))
