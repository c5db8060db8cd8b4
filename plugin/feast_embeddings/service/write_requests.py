"""The requests that change something: events, new items, what to forget or hide, what to publish."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AwareDatetime, ConfigDict, Field, StrictStr
from pydantic.json_schema import SkipJsonSchema

from feast_embeddings.service.requests import Closed, ItemId, Request, SomeIds, StoredId, UserId

__all__ = [
    "ChangedItem",
    "ChangedItemsRequest",
    "ChangedUser",
    "ChangedUsersRequest",
    "EventsRequest",
    "ForgetRequest",
    "HiddenRequest",
    "NewItem",
    "NewItemsRequest",
    "PublishRequest",
    "UserEvent",
]


class UserEvent(Closed):
    """What a user did."""

    user_id: Annotated[StoredId, Field(examples=["u-7"])]
    item_id: Annotated[StoredId, Field(examples=["sku-1"])]
    weight: Annotated[float, Field(strict=True, ge=1e-6, le=1e6, description="Weight on the scale of training.")] = 1.0
    timestamp: Annotated[
        AwareDatetime | None,
        Field(description="When, in ISO 8601 with a zone; now by default.", examples=["2026-05-01T12:00:00Z"]),
    ] = None
    event_id: Annotated[
        StrictStr | None,
        Field(
            min_length=1,
            max_length=200,
            description="An event whose id is there already is not added again, so that a retry is safe.",
        ),
    ] = None
    event: Annotated[
        StrictStr | None,
        Field(
            min_length=1,
            max_length=200,
            description="Its type, which has to have a weight in the training of the live version, and multiplies "
            "`weight`. Of a type that weighs 0 nothing is added.",
            examples=["purchase"],
        ),
    ] = None


class EventsRequest(Request):
    interactions: Annotated[
        list[UserEvent],
        Field(
            fail_fast=True,
            min_length=1,
            max_length=10_000,
            examples=[[{"user_id": "u-7", "item_id": "sku-1", "event_id": "click-1"}]],
        ),
    ]


class NewItem(Closed):
    """An item that the training did not know."""

    item_id: ItemId
    metadata: Annotated[
        dict[str, Any],
        Field(
            max_length=200,
            description="Its attributes, under the names and with the types of the training.",
            examples=[{"title": "A warm jacket", "category": "Clothing"}],
        ),
    ]


class NewItemsRequest(Request):
    items: Annotated[
        list[NewItem],
        Field(
            fail_fast=True,
            min_length=1,
            max_length=1_000,
            examples=[[{"item_id": "sku-new", "metadata": {"title": "A warm jacket", "category": "Clothing"}}]],
        ),
    ]


_Changes = Annotated[
    dict[str, Any],
    Field(
        min_length=1,
        max_length=200,
        description="Attributes of the training to set; null sets a null, a time is text in ISO 8601.",
        examples=[{"price": 9.5, "stock": 0}],
    ),
]


class ChangedItem(Closed):
    """An item, and the attributes to set."""

    item_id: ItemId
    metadata: _Changes


class ChangedUser(Closed):
    """A user, and the attributes to set."""

    user_id: UserId
    metadata: _Changes


class ChangedItemsRequest(Request):
    items: Annotated[
        list[ChangedItem],
        Field(
            fail_fast=True,
            min_length=1,
            max_length=10_000,
            examples=[[{"item_id": "sku-1", "metadata": {"price": 9.5}}]],
        ),
    ]


class ChangedUsersRequest(Request):
    users: Annotated[
        list[ChangedUser],
        Field(
            fail_fast=True,
            min_length=1,
            max_length=10_000,
            examples=[[{"user_id": "u-7", "metadata": {"country": "NL"}}]],
        ),
    ]


class ForgetRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": ["user_ids"]}, {"required": ["item_ids"]}],
            "examples": [{"user_ids": ["u-7"]}],
        }
    )

    user_ids: Annotated[SomeIds | SkipJsonSchema[None], Field(description="The users to forget.")] = None
    item_ids: Annotated[SomeIds | SkipJsonSchema[None], Field(description="The items to forget.")] = None


class HiddenRequest(Request):
    model_config = ConfigDict(
        json_schema_extra={
            "anyOf": [{"required": ["user_ids"]}, {"required": ["item_ids"]}],
            "examples": [{"item_ids": ["sku-1"]}],
        }
    )

    user_ids: Annotated[SomeIds | SkipJsonSchema[None], Field(description="The users.")] = None
    item_ids: Annotated[SomeIds | SkipJsonSchema[None], Field(description="The items.")] = None


class PublishRequest(Request):
    version: Annotated[StrictStr | None, Field(max_length=64, description="The version to make live.")] = None
