"""The requests of the service: one model per kind."""

from __future__ import annotations

import itertools
from typing import Annotated, Any, Literal

from pydantic import (
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
from feast_embeddings.query.boosts import LARGEST_WEIGHT, MOST_BOOSTS
from feast_embeddings.query.options import By, Fallback
from feast_embeddings.query.text import MOST_CHARACTERS

__all__ = [
    "AudienceRequest",
    "BatchAudienceRequest",
    "BatchRankRequest",
    "BatchSimilarItemsRequest",
    "BatchSimilarUsersRequest",
    "Boost",
    "Encoding",
    "Interaction",
    "ItemEmbeddingRequest",
    "Query",
    "RankRequest",
    "Request",
    "RetrieveRequest",
    "SearchRequest",
    "Shaped",
    "SimilarItemsRequest",
    "SimilarUsersRequest",
    "StoredId",
    "UserEmbeddingRequest",
    "history",
]

_Number = Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)]
Id = Annotated[StrictStr, Field(max_length=1024)] | _Number
# An id that is stored: a training takes no empty one.
StoredId = Annotated[StrictStr, Field(min_length=1, max_length=1024)] | _Number
# Stops at the first invalid id: an error for each would be longer than the request.
Ids = Annotated[list[Id], Field(fail_fast=True)]
SomeIds = Annotated[list[Id], Field(fail_fast=True, min_length=1)]
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
UserId = Annotated[Id, Field(examples=["u-7"])]
ItemId = Annotated[Id, Field(examples=["sku-1"])]
_UserIds = Annotated[Ids, Field(min_length=1, examples=[["u-7", "u-8"]])]
_ItemIds = Annotated[Ids, Field(min_length=1, examples=[["sku-1", "sku-2"]])]
_Encoding = Annotated[
    Encoding | None,
    Field(
        description="Encoding of vectors: lists of numbers, base64 of little-endian float32, or the whole answer "
        "as an Arrow stream or a NumPy file. The default comes from the Accept header, else it is float.",
        examples=["float"],
    ),
]


_Version = Annotated[
    Annotated[StrictStr, Field(min_length=1, max_length=64)] | SkipJsonSchema[None],
    Field(
        description="A loaded version to ask instead of the live one: its name, `latest` for the newest on the "
        "service's disk, or `previous` for the one before that.",
        examples=["previous"],
    ),
]
_Fields = Annotated[
    Annotated[list[Annotated[StrictStr, Field(max_length=200)]], Field(fail_fast=True, max_length=200)]
    | SkipJsonSchema[None],
    Field(description="The attributes to return with each result.", examples=[["title"]]),
]

# At most this many unknown fields are named.
_NAMED = 3
# At most this many attributes limit a ranking.
_ATTRIBUTES = 8


class Closed(BaseModel):
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


class Interaction(Closed):
    """An interaction of a visitor with an item."""

    item_id: ItemId
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


class Request(Closed):
    """The part that all requests share."""


class UserEmbeddingRequest(Request):
    user_ids: _UserIds
    encoding: _Encoding = None


class ItemEmbeddingRequest(Request):
    item_ids: _ItemIds
    encoding: _Encoding = None


class _Returning(Request):
    """A request whose results come with attributes."""

    return_metadata: _Metadata = False
    fields: _Fields = None

    @property
    def metadata(self) -> bool:
        """Whether attributes come back."""
        return self.return_metadata or self.fields is not None

    @property
    def attributes(self) -> bool | list[str]:
        """Which come back, as `EmbeddingStore` takes it."""
        return self.return_metadata if self.fields is None else self.fields


class Query(_Returning):
    limit: _Limit = 10
    filter: _Filter = None
    version: _Version = None

    def options(self) -> dict[str, Any]:
        """The keywords of the query in `EmbeddingStore`, here the ones that all queries take."""
        return {"filter": self.filter, "attributes": self.attributes, "version": self.version}


class Boost(Closed):
    """What is added to the score of those that pass a condition."""

    filter: Annotated[
        StrictStr, Field(min_length=1, max_length=MAX_CHARACTERS, examples=["category = 'Books' AND price < 20"])
    ]
    weight: Annotated[
        float,
        Field(
            strict=True,
            ge=-LARGEST_WEIGHT,
            le=LARGEST_WEIGHT,
            description="In units of the score; below 0 it lowers.",
            examples=[0.3],
        ),
    ]


def _few_attributes(sent: Any) -> Any:
    """Refuse too many before each of them is a separate error."""
    if isinstance(sent, dict) and len(sent) > _ATTRIBUTES:
        raise ValueError(f"at most {_ATTRIBUTES} attributes are allowed, got {len(sent):,}")
    return sent


class Shaped(Query):
    exclude_ids: Annotated[
        Ids | None, Field(description="Ids to leave out; with `rank` in addition to seen items.", examples=[["sku-3"]])
    ] = None
    boosts: Annotated[
        list[Boost] | None,
        Field(
            fail_fast=True,
            max_length=MOST_BOOSTS,
            description="The final score is the score plus the weights of all boosts that a result passes.",
            examples=[[{"filter": "category = 'Books'", "weight": 0.3}]],
        ),
    ] = None
    offset: Annotated[
        int, Field(strict=True, ge=0, lt=2**62, description="How many of the first to skip.", examples=[0])
    ] = 0
    max_per: Annotated[
        dict[StrictStr, Annotated[int, Field(strict=True, ge=1, lt=2**62)]] | None,
        Field(
            max_length=_ATTRIBUTES,
            description="Attribute, and at most how many of one value of it.",
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
            description="How much less one counts the more it is like those before it: 0 for the order of score, "
            "1 for likeness alone.",
            examples=[0.3],
        ),
    ] = 0.0

    @property
    def is_one_search(self) -> bool:
        """Whether no option needs more than one search of as many results as are asked for."""
        return not (self.boosts or self.max_per or self.diversity or self.exclude_ids)

    def options(self) -> dict[str, Any]:
        shaping = {name: getattr(self, name) for name in ("exclude_ids", "offset", "max_per", "diversity")}
        boosts = [boost.model_dump() for boost in self.boosts or ()]
        return super().options() | shaping | {"boosts": boosts}


class _SimilarQuery(Shaped):
    by: Annotated[
        By,
        Field(
            description="Compare the vectors as they are, only rows with interactions, or vectors from attributes "
            "alone, which needs a version with content."
        ),
    ] = "blend"

    @property
    def is_one_search(self) -> bool:
        # Content has no graph, so that a search of it scans all rows.
        return super().is_one_search and self.by == "blend"

    def options(self) -> dict[str, Any]:
        return super().options() | {"by": self.by}


class SimilarItemsRequest(_SimilarQuery):
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": ["item_id"]}, {"required": ["positive"]}, {"required": ["vector"]}],
            "examples": [
                {"item_id": "sku-1", "limit": 10, "filter": "category = 'Books' AND price < 20"},
                {"positive": ["sku-1", "sku-2"], "negative": ["sku-3"], "limit": 10},
            ],
        }
    )

    item_id: Annotated[Id | SkipJsonSchema[None], Field(description="The item to find similar ones for.")] = None
    positive: Annotated[SomeIds | SkipJsonSchema[None], Field(description="Or items to be like.")] = None
    negative: Annotated[Ids | SkipJsonSchema[None], Field(description="With `positive`, items to be unlike.")] = None
    vector: Annotated[
        Annotated[
            list[Annotated[float, Field(strict=True, allow_inf_nan=False)]],
            Field(fail_fast=True, min_length=1, max_length=65_536),
        ]
        | SkipJsonSchema[None],
        Field(description="Or a vector of the version's space, which the answer names, and of its dimension."),
    ] = None


class SimilarUsersRequest(_SimilarQuery):
    user_id: UserId


class BatchSimilarItemsRequest(_SimilarQuery):
    item_ids: _ItemIds


class BatchSimilarUsersRequest(_SimilarQuery):
    user_ids: _UserIds


class _RankQuery(Shaped):
    exclude_seen: Annotated[
        StrictBool | None,
        Field(
            description="Whether to leave out items that the user interacted with in training, or the visitor did. "
            "True by default, unless `item_ids` is given."
        ),
    ] = None
    item_ids: Annotated[
        Ids | None, Field(min_length=1, description="Rank only these items.", examples=[["sku-1", "sku-2"]])
    ] = None
    fallback: Annotated[
        Fallback,
        Field(
            description="What someone without an embedding gets: no results, or items by their number of interactions "
            "in training, which is then their score."
        ),
    ] = "none"

    def options(self) -> dict[str, Any]:
        exclude_seen = self.item_ids is None if self.exclude_seen is None else self.exclude_seen
        ranking = {"exclude_seen": exclude_seen, "item_ids": self.item_ids, "fallback": self.fallback}
        return super().options() | ranking


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
    explain: Annotated[
        StrictBool,
        Field(
            description="Whether each result says `because`: the items of the user or visitor that add most to its "
            "score. It needs a version of a trainer that can say so exactly, such as als or svd."
        ),
    ] = False

    def options(self) -> dict[str, Any]:
        return super().options() | {"explain": self.explain}


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

    user_ids: Annotated[SomeIds | SkipJsonSchema[None], Field(description="The users.")] = None
    interactions: Annotated[
        Annotated[list[_Interactions], Field(fail_fast=True, min_length=1)] | SkipJsonSchema[None],
        Field(description="Or the interactions of each of many visitors."),
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
        SomeIds | SkipJsonSchema[None], Field(description="Or the users to find similar users for.")
    ] = None


class BatchAudienceRequest(_AudienceQuery):
    item_ids: _ItemIds


class RetrieveRequest(_Returning):
    entity: Annotated[Literal["user", "item"], Field(examples=["item"])]
    filter: _Filter = None
    limit: _Limit = 100
    cursor: Annotated[StrictStr | None, Field(max_length=1024, description="`next_cursor` of the previous page.")] = (
        None
    )
    return_metadata: _Metadata = True
    return_embeddings: Annotated[StrictBool, Field(description="Whether to return the vectors with each row.")] = False
