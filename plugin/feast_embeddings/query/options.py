"""The options of the queries, as keywords."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from feast_embeddings.arguments import Id
from feast_embeddings.model.sides import Filter

__all__ = ["AudienceOptions", "FoldInOptions", "QueryOptions", "RankOptions", "VersionOptions"]


class QueryOptions(TypedDict, total=False):
    """Options of every query.

    Attributes:
        filter: condition on the attributes of the answers, e.g. ``"category = 'Books' AND price < 20"``, or a Feast
            filter; by default none.
        attributes: whether to return the attributes with each answer; true by default, false is faster.
    """

    filter: Filter | None
    attributes: bool


class AudienceOptions(QueryOptions, total=False):
    """Options of queries that know which items a user has seen.

    Attributes:
        exclude_seen: whether to leave out items that the user interacted with in training, or users that did so with
            the item; by default they are left out.
    """

    exclude_seen: bool


class RankOptions(AudienceOptions, total=False):
    """Options of rankings of items.

    Attributes:
        item_ids: rank only these items; those that the version does not know are in `missing`.
    """

    item_ids: Iterable[Id] | None


class VersionOptions(TypedDict, total=False):
    """Which versions training rows get their vectors from; see `feast_embeddings.offline.training_frame`."""

    version: str | None
    space: str | None
    allow_mixed_spaces: bool


class FoldInOptions(TypedDict, total=False):
    """Options of fold-in; see `feast_embeddings.query.fold_in`."""

    version: str | None
    push: bool
    update: bool
    seed: int
