"""The requests of the service: one model per kind."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictStr,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from feast_embeddings.codec.filter_text import MAX_CHARACTERS
from feast_embeddings.query.options import Fallback
from feast_embeddings.query.text import MOST_CHARACTERS

__all__ = [
    "AudienceRequest",
    "BatchAudienceRequest",
    "BatchRankRequest",
    "BatchSimilarItemsRequest",
    "BatchSimilarUsersRequest",
    "ChangedItem",
    "ChangedItemsRequest",
    "ChangedUser",
    "ChangedUsersRequest",
    "Encoding",
    "EventsRequest",
    "Interaction",
    "ItemEmbeddingRequest",
    "NewItem",
    "NewItemsRequest",
    "PublishRequest",
    "Query",
    "RankRequest",
    "Request",
    "RetrieveRequest",
    "SearchRequest",
    "SimilarItemsRequest",
    "SimilarUsersRequest",
    "UserEmbeddingRequest",
    "UserEvent",
    "history",
]

Id = Annotated[StrictStr, Field(max_length=1024)] | Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
# Stops at the first invalid id: an error for each would be longer than the request.
_Ids = Annotated[list[Id], Field(fail_fast=True)]
Encoding = Literal["float", "base64", "arrow", "numpy"]

_Limit = Annotated[int, Field(strict=True, ge=1, description="How many results, best first.", examples=[10])]
_Filter = Annotated[
    StrictStr | None,
    Field(
        max_length=MAX_CHARACTERS,
        description="Condition on attributes, as in SQL: =, !=, <, <=, >, >=, IN, BETWEEN, IS NULL, LIKE 'start%', "
        "CONTAINS 'part', AND, OR, NOT.",
        examples=["category = 'Books' AND price < 20"],
    ),
]
_Metadata = Annotated[StrictBool, Field(description="Whether to return the attributes with each result.")]
_UserId = Annotated[Id, Field(examples=["u-7"])]
_ItemId = Annotated[Id, Field(examples=["sku-1"])]
_UserIds = Annotated[_Ids, Field(min_length=1, examples=[["u-7", "u-8"]])]
_ItemIds = Annotated[_Ids, Field(min_length=1, examples=[["sku-1", "sku-2"]])]
_Encoding = Annotated[
    Encoding | None,
    Field(
        description="Encoding of vectors: lists of numbers, base64 of little-endian float32, or the whole answer "
        "as an Arrow stream or a NumPy file. The default comes from the Accept header, else it is float.",
        examples=["float"],
    ),
]


# At most this many unknown fields are named.
_NAMED = 3
# At most this many attributes limit a ranking.
_ATTRIBUTES = 8


class _Closed(BaseModel):
    """A model that forbids other fields."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _few_unknown(cls, sent: Any) -> Any:
        """Keep only some of the unknown fields for pydantic to name."""
        fields = cls.model_fields
        if not isinstance(sent, dict) or len(sent) <= len(fields):
            return sent
        unknown = (name for name in sent if name not in fields)
        return {name: sent[name] for name in [*(fields.keys() & sent.keys()), *itertools.islice(unknown, _NAMED)]}


class Interaction(_Closed):
    """An interaction of a visitor with an item."""

    item_id: _ItemId
    weight: Annotated[
        float,
        Field(strict=True, ge=1e-6, le=1e6, description="Weight of such an interaction in training.", examples=[3]),
    ] = 1.0


def history(interactions: list[Interaction]) -> dict[Id, float]:
    """Sum the weight of each item over its interactions."""
    weights: dict[Id, float] = {}
    for each in interactions:
        weights[each.item_id] = weights.get(each.item_id, 0) + each.weight
    return weights


_Interactions = Annotated[
    list[Interaction],
    Field(fail_fast=True, min_length=1, examples=[[{"item_id": "sku-1"}, {"item_id": "sku-2", "weight": 3}]]),
]


class Request(_Closed):
    """The part that all requests share."""


class UserEmbeddingRequest(Request):
    user_ids: _UserIds
    encoding: _Encoding = None


class ItemEmbeddingRequest(Request):
    item_ids: _ItemIds
    encoding: _Encoding = None


class Query(Request):
    limit: _Limit = 10
    filter: _Filter = None
    return_metadata: _Metadata = False

    def options(self) -> dict[str, Any]:
        """The keywords of the query in `EmbeddingStore`, here those of all queries."""
        return {"filter": self.filter, "attributes": self.return_metadata}


class SimilarItemsRequest(Query):
    item_id: _ItemId


class SimilarUsersRequest(Query):
    user_id: _UserId


class BatchSimilarItemsRequest(Query):
    item_ids: _ItemIds


class BatchSimilarUsersRequest(Query):
    user_ids: _UserIds


def _few_attributes(sent: Any) -> Any:
    """Refuse too many before each of them is an error of its own."""
    if isinstance(sent, dict) and len(sent) > _ATTRIBUTES:
        raise ValueError(f"at most {_ATTRIBUTES} attributes are allowed, got {len(sent):,}")
    return sent


class _RankQuery(Query):
    exclude_seen: Annotated[
        StrictBool | None,
        Field(
            description="Whether to leave out items that the user interacted with in training, or the visitor did. "
            "True by default, unless `item_ids` is given."
        ),
    ] = None
    item_ids: Annotated[
        _Ids | None, Field(min_length=1, description="Rank only these items.", examples=[["sku-1", "sku-2"]])
    ] = None
    exclude_ids: Annotated[
        _Ids | None, Field(description="Items to leave out, in addition to seen ones.", examples=[["sku-3"]])
    ] = None
    offset: Annotated[
        int, Field(strict=True, ge=0, lt=2**62, description="How many of the first to skip.", examples=[0])
    ] = 0
    max_per: Annotated[
        dict[StrictStr, Annotated[int, Field(strict=True, ge=1, lt=2**62)]] | None,
        Field(
            max_length=_ATTRIBUTES,
            description="Attribute, and at most how many items of one value of it.",
            examples=[{"category": 2}],
        ),
        BeforeValidator(_few_attributes),
    ] = None
    diversity: Annotated[
        float,
        Field(
            strict=True,
            ge=0,
            le=1,
            description="How much less an item counts the more it is like those before it: 0 for the order of score, "
            "1 for likeness alone.",
            examples=[0.3],
        ),
    ] = 0.0
    fallback: Annotated[
        Fallback,
        Field(
            description="What someone without an embedding gets: no results, or items by their number of interactions "
            "in training, which is then their score."
        ),
    ] = "none"

    def options(self) -> dict[str, Any]:
        exclude_seen = self.item_ids is None if self.exclude_seen is None else self.exclude_seen
        shaping = {name: getattr(self, name) for name in ("offset", "max_per", "diversity", "fallback")}
        return (
            super().options()
            | shaping
            | {
                "exclude_seen": exclude_seen,
                "item_ids": self.item_ids,
                "exclude_ids": self.exclude_ids,
            }
        )


class RankRequest(_RankQuery):
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["user_id"]}, {"required": ["interactions"]}],
            "examples": [
                {"user_id": "u-7", "limit": 10},
                {"interactions": [{"item_id": "sku-1"}, {"item_id": "sku-2", "weight": 3}], "limit": 10},
            ],
        }
    )

    user_id: Annotated[Id | SkipJsonSchema[None], Field(description="The user to rank for.")] = None
    interactions: Annotated[
        _Interactions | SkipJsonSchema[None],
        Field(description="Or all interactions of a visitor without an id. Unknown items are in `missing`."),
    ] = None


class BatchRankRequest(_RankQuery):
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["user_ids"]}, {"required": ["interactions"]}],
            "examples": [
                {"user_ids": ["u-7", "u-8"], "limit": 10},
                {"interactions": [[{"item_id": "sku-1"}], [{"item_id": "sku-2"}]], "limit": 10},
            ],
        }
    )

    user_ids: Annotated[_Ids | SkipJsonSchema[None], Field(min_length=1, description="The users.")] = None
    interactions: Annotated[
        Annotated[list[_Interactions], Field(fail_fast=True)] | SkipJsonSchema[None],
        Field(min_length=1, description="Or the interactions of each of many visitors."),
    ] = None


class SearchRequest(Query):
    text: Annotated[
        StrictStr,
        Field(
            min_length=1,
            max_length=MOST_CHARACTERS,
            description="What to look for: at least one word.",
            examples=["warm waterproof jacket"],
        ),
    ]
    user_id: Annotated[Id | None, Field(description="The user to find items for.", examples=["u-7"])] = None


class _AudienceQuery(Query):
    exclude_seen: Annotated[
        StrictBool, Field(description="Whether to leave out users who interacted with the item in training.")
    ] = True

    def options(self) -> dict[str, Any]:
        return super().options() | {"exclude_seen": self.exclude_seen}


class AudienceRequest(_AudienceQuery):
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["item_id"]}, {"required": ["user_ids"]}],
            "examples": [{"item_id": "sku-1", "limit": 10}, {"user_ids": ["u-7", "u-8"], "limit": 10}],
        }
    )

    item_id: Annotated[Id | SkipJsonSchema[None], Field(description="The item to find users for.")] = None
    user_ids: Annotated[
        _Ids | SkipJsonSchema[None], Field(min_length=1, description="Or the users to find similar users for.")
    ] = None


class BatchAudienceRequest(_AudienceQuery):
    item_ids: _ItemIds


class RetrieveRequest(Request):
    entity: Annotated[Literal["user", "item"], Field(examples=["item"])]
    filter: _Filter = None
    limit: _Limit = 100
    cursor: Annotated[StrictStr | None, Field(max_length=1024, description="`next_cursor` of the previous page.")] = (
        None
    )
    return_metadata: _Metadata = True
    return_embeddings: Annotated[StrictBool, Field(description="Whether to return the vectors with each row.")] = False


class UserEvent(_Closed):
    """What a user did."""

    user_id: _UserId
    item_id: _ItemId
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


class NewItem(_Closed):
    """An item that the training did not know."""

    item_id: _ItemId
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


class ChangedItem(_Closed):
    """An item, and the attributes to set."""

    item_id: _ItemId
    metadata: _Changes


class ChangedUser(_Closed):
    """A user, and the attributes to set."""

    user_id: _UserId
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

    user_ids: Annotated[_Ids | SkipJsonSchema[None], Field(min_length=1, description="The users to forget.")] = None
    item_ids: Annotated[_Ids | SkipJsonSchema[None], Field(min_length=1, description="The items to forget.")] = None


class PublishRequest(Request):
    version: Annotated[StrictStr | None, Field(max_length=64, description="The version to make live.")] = None
