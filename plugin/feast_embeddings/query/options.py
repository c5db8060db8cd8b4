"""The options of the queries, as keywords."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypedDict

from feast_embeddings.arguments import Id
from feast_embeddings.model.sides import Filter

__all__ = ["AudienceOptions", "FoldInOptions", "QueryOptions", "RankOptions", "VersionOptions"]


class QueryOptions(TypedDict, total=False):
    """Of every query.

    Attributes:
        filter: condition on the attributes of the answers, e.g. ``"category = 'Books' AND price < 20"``, or a Feast
            filter; by default none.
        attributes: whether these come back with each answer, as they do by default; without, it is quicker.
    """

    filter: Filter | None
    attributes: bool


class AudienceOptions(QueryOptions, total=False):
    """Of queries that know what was seen.

    Attributes:
        exclude_seen: whether to leave out items that the user interacted with in training, or users that did so with
            the item; by default they are left out.
    """

    exclude_seen: bool


class RankOptions(AudienceOptions, total=False):
    """Of rankings of items.

    Attributes:
        item_ids: rank these items instead of all; those that the version does not know are in `missing`.
    """

    item_ids: Iterable[Id] | None


class VersionOptions(TypedDict, total=False):
    """Which versions training rows get vectors of; see `feast_embeddings.offline.training_frame`."""

    version: str | None
    space: str | None
    allow_mixed_spaces: bool


class FoldInOptions(TypedDict, total=False):
    """What becomes of folded-in vectors; see `feast_embeddings.query.fold_in`."""

    version: str | None
    push: bool
    update: bool
    seed: int
