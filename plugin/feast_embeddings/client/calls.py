"""The requests of the service, defined once: what to send, and how to decode the answer.

`feast_embeddings.client.http` turns them into methods, blocking and async.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, Generic, Literal, TypeVar
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from feast_embeddings.arguments import Id, id_list
from feast_embeddings.client.answers import Embeddings, Found, Neighbours, NeighboursBatch, Rows

__all__ = ["Call"]

T = TypeVar("T")

Interactions = Iterable[Id] | Mapping[Any, float]
Fallback = Literal["popular", "recent", "none"]


@dataclass(frozen=True)
class Call(Generic[T]):
    """A request, and how to decode its answer.

    Attributes:
        repeatable: whether the request is idempotent.
        change: whether it is a PATCH; without a body it is a GET, else a POST.
    """

    path: str
    body: dict[str, Any] | None
    read: Callable[[Any], T]
    repeatable: bool = True
    change: bool = False

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "PATCH" if self.change else "POST"


def _interactions(interactions: Interactions) -> list[dict[str, Any]]:
    ids = id_list(interactions, "interactions")
    if isinstance(interactions, Mapping):
        weights = (float(weight) for weight in interactions.values())
        return [{"item_id": id, "weight": weight} for id, weight in zip(ids, weights, strict=True)]
    return [{"item_id": id} for id in ids]


def _shaping(
    exclude_ids: Iterable[Id] | None,
    boosts: Iterable[Mapping[str, Any]] | None,
    offset: int,
    max_per: Mapping[str, int] | None,
    diversity: float,
    by: str = "blend",
) -> dict[str, Any]:
    """Return the fields that differ from their defaults."""
    return {
        "exclude_ids": None if exclude_ids is None else id_list(exclude_ids, "exclude_ids"),
        "boosts": None if boosts is None else [dict(boost) for boost in boosts],
        "offset": offset or None,
        "max_per": None if max_per is None else dict(max_per),
        "diversity": diversity or None,
        "by": None if by == "blend" else by,
    }


def _call(model: str, name: str, body: dict[str, Any], read: Callable[[Any], T]) -> Call[T]:
    sent = {key: value for key, value in body.items() if value is not None}
    return Call(f"/v1/models/{quote(model, safe='')}/{name}", sent, read)


def _query(
    model: str,
    name: str,
    read: Callable[..., T],
    limit: int,
    filter: str | None,
    return_metadata: bool,
    fields: Iterable[str] | None,
    version: str | None,
    **more: Any,
) -> Call[T]:
    body = {"limit": limit, "filter": filter, **_returned(return_metadata, fields, version), **more}
    metadata = return_metadata or fields is not None
    return _call(model, name, body, lambda answer: read(answer, metadata=metadata))


def _returned(return_metadata: bool, fields: Iterable[str] | None, version: str | None) -> dict[str, Any]:
    """Return the fields that say what comes back, and of which version."""
    names = None if fields is None else list(fields)
    return {"return_metadata": return_metadata, "fields": names, "version": version}


def models() -> Call[list[dict[str, Any]]]:
    """List the models of the service, each with its live version."""
    return Call("/v1/models", None, lambda a: list(a["models"]))


def versions(model: str) -> Call[list[dict[str, Any]]]:
    """List the versions of a model, newest first."""
    return Call(f"/v1/models/{quote(model, safe='')}/versions", None, lambda a: list(a["versions"]))


def map(model: str, entity: Literal["user", "item"]) -> Call[dict[str, Any]]:
    """Return the map of the live version that ``feast-embeddings map --save`` wrote, as the service describes it."""
    return Call(f"/v1/models/{quote(model, safe='')}/map/{quote(entity, safe='')}", None, dict)


def create_user_embedding(model: str, user_ids: Iterable[Id]) -> Call[Embeddings]:
    """Return the embeddings of users, aligned with the ids."""
    return _call(
        model, "create_user_embedding", {"user_ids": id_list(user_ids, "user_ids"), "encoding": "base64"}, Embeddings.of
    )


def create_item_embedding(model: str, item_ids: Iterable[Id]) -> Call[Embeddings]:
    """Return the embeddings of items, aligned with the ids."""
    return _call(
        model, "create_item_embedding", {"item_ids": id_list(item_ids, "item_ids"), "encoding": "base64"}, Embeddings.of
    )


def similar_items(
    model: str,
    item_id: Id | None = None,
    *,
    positive: Iterable[Id] | None = None,
    negative: Iterable[Id] | None = None,
    vector: npt.ArrayLike | None = None,
    exclude_ids: Iterable[Id] | None = None,
    boosts: Iterable[Mapping[str, Any]] | None = None,
    offset: int = 0,
    max_per: Mapping[str, int] | None = None,
    diversity: float = 0.0,
    by: str = "blend",
    limit: int = 10,
    filter: str | None = None,
    return_metadata: bool = False,
    fields: Iterable[str] | None = None,
    version: str | None = None,
) -> Call[Neighbours]:
    """Find the items nearest by cosine to an item, to examples or to a vector; without the item and the examples.

    Args:
        positive: instead of the item, items to be like. Those without an embedding are in `missing`.
        negative: with `positive`, items to be unlike.
        vector: instead, a vector of the version's space, which the answer names.
        exclude_ids, boosts, offset, max_per, diversity: as in `rank`.
        by: the vectors to compare: ``blend``, ``behaviour`` or ``content``.
    """
    more = {
        "item_id": None if item_id is None else id_list([item_id], "item_id")[0],
        "positive": None if positive is None else id_list(positive, "positive"),
        "negative": None if negative is None else id_list(negative, "negative"),
        "vector": None if vector is None else np.asarray(vector, dtype=np.float64).tolist(),
        **_shaping(exclude_ids, boosts, offset, max_per, diversity, by),
    }
    return _query(model, "similar_items", Neighbours.of, limit, filter, return_metadata, fields, version, **more)


def similar_items_batch(
    model: str,
    item_ids: Iterable[Id],
    *,
    exclude_ids: Iterable[Id] | None = None,
    boosts: Iterable[Mapping[str, Any]] | None = None,
    offset: int = 0,
    max_per: Mapping[str, int] | None = None,
    diversity: float = 0.0,
    by: str = "blend",
    limit: int = 10,
    filter: str | None = None,
    return_metadata: bool = False,
    fields: Iterable[str] | None = None,
    version: str | None = None,
) -> Call[NeighboursBatch]:
    """Run `similar_items` for many items."""
    return _query(
        model,
        "similar_items/batch",
        NeighboursBatch.of,
        limit,
        filter,
        return_metadata,
        fields,
        version,
        item_ids=id_list(item_ids, "item_ids"),
        **_shaping(exclude_ids, boosts, offset, max_per, diversity, by),
    )


def similar_users(
    model: str,
    user_id: Id,
    *,
    exclude_ids: Iterable[Id] | None = None,
    boosts: Iterable[Mapping[str, Any]] | None = None,
    offset: int = 0,
    max_per: Mapping[str, int] | None = None,
    diversity: float = 0.0,
    by: str = "blend",
    limit: int = 10,
    filter: str | None = None,
    return_metadata: bool = False,
    fields: Iterable[str] | None = None,
    version: str | None = None,
) -> Call[Neighbours]:
    """Find the users nearest to a user by cosine, without the user."""
    return _query(
        model,
        "similar_users",
        Neighbours.of,
        limit,
        filter,
        return_metadata,
        fields,
        version,
        user_id=id_list([user_id], "user_id")[0],
        **_shaping(exclude_ids, boosts, offset, max_per, diversity, by),
    )


def similar_users_batch(
    model: str,
    user_ids: Iterable[Id],
    *,
    exclude_ids: Iterable[Id] | None = None,
    boosts: Iterable[Mapping[str, Any]] | None = None,
    offset: int = 0,
    max_per: Mapping[str, int] | None = None,
    diversity: float = 0.0,
    by: str = "blend",
    limit: int = 10,
    filter: str | None = None,
    return_metadata: bool = False,
    fields: Iterable[str] | None = None,
    version: str | None = None,
) -> Call[NeighboursBatch]:
    """Run `similar_users` for many users."""
    return _query(
        model,
        "similar_users/batch",
        NeighboursBatch.of,
        limit,
        filter,
        return_metadata,
        fields,
        version,
        user_ids=id_list(user_ids, "user_ids"),
        **_shaping(exclude_ids, boosts, offset, max_per, diversity, by),
    )


def rank(
    model: str,
    user_id: Id | None = None,
    *,
    interactions: Interactions | None = None,
    item_ids: Iterable[Id] | None = None,
    exclude_seen: bool | None = None,
    exclude_ids: Iterable[Id] | None = None,
    boosts: Iterable[Mapping[str, Any]] | None = None,
    offset: int = 0,
    max_per: Mapping[str, int] | None = None,
    diversity: float = 0.0,
    fallback: Fallback = "none",
    explain: bool = False,
    limit: int = 10,
    filter: str | None = None,
    return_metadata: bool = False,
    fields: Iterable[str] | None = None,
    version: str | None = None,
) -> Call[Neighbours]:
    """Find the items with the highest score for a user, or for a visitor without an id; with `item_ids`, rerank these.

    Args:
        interactions: instead of the user, a visitor's interactions: items, or items with weights. Unknown items are
            in `missing`.
        exclude_seen: leave out items that the user interacted with in training, or the visitor did; by default
            unless `item_ids` is given.
        exclude_ids: items to leave out, in addition to seen ones.
        boosts: such as ``{"filter": "category = 'Books'", "weight": 0.3}``, which adds to the score of who passes.
        offset: how many of the first to skip, for pages.
        max_per: attribute -> at most how many items of one value.
        diversity: from 0, in order of score, to 1: how much less an item counts the more it is like those before it.
        fallback: what someone without an embedding gets: ``popular`` items, items of ``recent`` interactions, or none.
        explain: also return which of their items add most to each score; it needs a version of a trainer that can say,
            such as als or svd.
    """
    more = {
        "user_id": None if user_id is None else id_list([user_id], "user_id")[0],
        "interactions": None if interactions is None else _interactions(interactions),
        "item_ids": None if item_ids is None else id_list(item_ids, "item_ids"),
        "exclude_seen": exclude_seen,
        "fallback": None if fallback == "none" else fallback,
        "explain": explain or None,
        **_shaping(exclude_ids, boosts, offset, max_per, diversity),
    }
    read = partial(Neighbours.of, explain=explain)
    return _query(model, "rank", read, limit, filter, return_metadata, fields, version, **more)


def rank_batch(
    model: str,
    user_ids: Iterable[Id] | None = None,
    *,
    interactions: Iterable[Interactions] | None = None,
    item_ids: Iterable[Id] | None = None,
    exclude_seen: bool | None = None,
    exclude_ids: Iterable[Id] | None = None,
    boosts: Iterable[Mapping[str, Any]] | None = None,
    offset: int = 0,
    max_per: Mapping[str, int] | None = None,
    diversity: float = 0.0,
    fallback: Fallback = "none",
    limit: int = 10,
    filter: str | None = None,
    return_metadata: bool = False,
    fields: Iterable[str] | None = None,
    version: str | None = None,
) -> Call[NeighboursBatch]:
    """Run `rank` for many users, or many visitors, whose ids in the answer are their positions from 0."""
    more = {
        "user_ids": None if user_ids is None else id_list(user_ids, "user_ids"),
        "interactions": None if interactions is None else [_interactions(each) for each in interactions],
        "item_ids": None if item_ids is None else id_list(item_ids, "item_ids"),
        "exclude_seen": exclude_seen,
        "fallback": None if fallback == "none" else fallback,
        **_shaping(exclude_ids, boosts, offset, max_per, diversity),
    }
    return _query(model, "rank/batch", NeighboursBatch.of, limit, filter, return_metadata, fields, version, **more)


def search(
    model: str,
    text: str,
    *,
    user_id: Id | None = None,
    limit: int = 10,
    filter: str | None = None,
    return_metadata: bool = False,
    fields: Iterable[str] | None = None,
    version: str | None = None,
) -> Call[Found]:
    """Find items for a text: by its words, by what it says as content, and for a user.

    Args:
        user_id: whom to find items for; one without an embedding is in `missing`.
    """
    body = {
        "text": text,
        "user_id": None if user_id is None else id_list([user_id], "user_id")[0],
        "limit": limit,
        "filter": filter,
        **_returned(return_metadata, fields, version),
    }
    return _call(model, "search", body, lambda a: Found.of(a, metadata=body["fields"] is not None or return_metadata))


def users_for_item(
    model: str,
    item_id: Id,
    *,
    exclude_seen: bool = True,
    limit: int = 10,
    filter: str | None = None,
    return_metadata: bool = False,
    fields: Iterable[str] | None = None,
    version: str | None = None,
) -> Call[Neighbours]:
    """Find the users with the highest score for an item."""
    more = {"item_id": id_list([item_id], "item_id")[0], "exclude_seen": exclude_seen}
    return _query(model, "users_for_item", Neighbours.of, limit, filter, return_metadata, fields, version, **more)


def users_for_item_batch(
    model: str,
    item_ids: Iterable[Id],
    *,
    exclude_seen: bool = True,
    limit: int = 10,
    filter: str | None = None,
    return_metadata: bool = False,
    fields: Iterable[str] | None = None,
    version: str | None = None,
) -> Call[NeighboursBatch]:
    """Run `users_for_item` for many items."""
    more = {"item_ids": id_list(item_ids, "item_ids"), "exclude_seen": exclude_seen}
    return _query(
        model, "users_for_item/batch", NeighboursBatch.of, limit, filter, return_metadata, fields, version, **more
    )


def lookalike_users(
    model: str,
    user_ids: Iterable[Id],
    *,
    limit: int = 10,
    filter: str | None = None,
    return_metadata: bool = False,
    fields: Iterable[str] | None = None,
    version: str | None = None,
) -> Call[Neighbours]:
    """Find the users most similar to these users, without them."""
    return _query(
        model,
        "users_for_item",
        Neighbours.of,
        limit,
        filter,
        return_metadata,
        fields,
        version,
        user_ids=id_list(user_ids, "user_ids"),
    )


def retrieve(
    model: str,
    entity: str,
    *,
    filter: str | None = None,
    limit: int = 100,
    cursor: str | None = None,
    return_metadata: bool = True,
    fields: Iterable[str] | None = None,
    return_embeddings: bool = False,
) -> Call[Rows]:
    """Return a page of the users or items that pass a filter.

    Args:
        entity: ``user`` or ``item``.
        cursor: `next_cursor` of the previous page.
        fields: the attributes to return with each row; by default all.
    """
    body = {
        "entity": entity,
        "filter": filter,
        "limit": limit,
        "cursor": cursor,
        "return_metadata": return_metadata,
        "fields": None if fields is None else list(fields),
        "return_embeddings": return_embeddings,
    }
    metadata = return_metadata or fields is not None
    return _call(model, "retrieve", body, lambda a: Rows.of(a, metadata=metadata, vectors=return_embeddings))


def add_interactions(model: str, interactions: Iterable[Mapping[str, Any]]) -> Call[int]:
    """Record what users did, and return how many events were new. The next `rank` takes them into account.

    Args:
        interactions: dictionaries with ``user_id`` and ``item_id``, and if wanted ``weight``, ``timestamp`` (a time
            with a zone, or text in ISO 8601), ``event``, a type that the training weighs, and ``event_id``. Those
            without an id get one, so that a retry adds none twice.
    """

    def sent(interaction: Mapping[str, Any]) -> dict[str, Any]:
        event = {"event_id": uuid.uuid4().hex, **interaction}
        if isinstance(moment := event.get("timestamp"), datetime):
            event["timestamp"] = moment.isoformat()
        return event

    return _call(
        model, "interactions", {"interactions": [sent(each) for each in interactions]}, lambda a: int(a["added"])
    )


def add_items(model: str, items: Mapping[Id, Mapping[str, Any]]) -> Call[int]:
    """Make items searchable that the training did not know, and return how many: ids with their attributes."""
    ids = id_list(items, "items")
    sent = [{"item_id": id, "metadata": dict(metadata)} for id, metadata in zip(ids, items.values(), strict=True)]
    return _call(model, "items", {"items": sent}, lambda a: int(a["added"]))


def set_item_attributes(model: str, items: Mapping[Id, Mapping[str, Any]]) -> Call[dict[str, Any]]:
    """Set attributes of live items, such as ``{"sku-1": {"price": 9.5}}``; None sets a null.

    Unknown ids are counted in the answer, and the rest is set. It needs a key of scope write.
    """
    return _changes(model, "item", items)


def set_user_attributes(model: str, users: Mapping[Id, Mapping[str, Any]]) -> Call[dict[str, Any]]:
    """Set attributes of live users; see `set_item_attributes`."""
    return _changes(model, "user", users)


def _changes(model: str, entity: str, given: Mapping[Id, Mapping[str, Any]]) -> Call[dict[str, Any]]:
    ids = id_list(given, f"{entity}s")
    sent = [
        {f"{entity}_id": id, "metadata": {name: _sent(value) for name, value in attributes.items()}}
        for id, attributes in zip(ids, given.values(), strict=True)
    ]
    call: Call[dict[str, Any]] = _call(model, f"{entity}s", {f"{entity}s": sent}, dict)
    return replace(call, change=True)


def _sent(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def forget(
    model: str, *, user_ids: Iterable[Id] | None = None, item_ids: Iterable[Id] | None = None
) -> Call[dict[str, Any]]:
    """Remove users and items from all versions and the recorded interactions; needs a key of scope write.

    It cannot be undone. Ids that are nowhere are not an error, so it can be repeated.
    """
    return _of_ids(model, "forget", user_ids, item_ids)


def hide(
    model: str, *, user_ids: Iterable[Id] | None = None, item_ids: Iterable[Id] | None = None
) -> Call[dict[str, Any]]:
    """Leave users and items out of all answers until `unhide`; needs a key of scope write.

    They keep their vectors, and stay hidden whatever is published.
    """
    return _of_ids(model, "hide", user_ids, item_ids)


def unhide(
    model: str, *, user_ids: Iterable[Id] | None = None, item_ids: Iterable[Id] | None = None
) -> Call[dict[str, Any]]:
    """Show hidden users and items again; needs a key of scope write."""
    return _of_ids(model, "unhide", user_ids, item_ids)


def _of_ids(
    model: str, name: str, user_ids: Iterable[Id] | None, item_ids: Iterable[Id] | None
) -> Call[dict[str, Any]]:
    body = {
        "user_ids": None if user_ids is None else id_list(user_ids, "user_ids"),
        "item_ids": None if item_ids is None else id_list(item_ids, "item_ids"),
    }
    return _call(model, name, body, dict)


def publish(model: str, version: str | None = None) -> Call[dict[str, Any]]:
    """Make a version live, by default the newest; needs a key of scope write."""
    return _call(model, "publish", {"version": version}, dict)


def rollback(model: str, version: str | None = None) -> Call[dict[str, Any]]:
    """Make an older version live again, by default the one before the live one; needs a key of scope write."""
    call: Call[dict[str, Any]] = _call(model, "rollback", {"version": version}, dict)
    return replace(call, repeatable=False)
