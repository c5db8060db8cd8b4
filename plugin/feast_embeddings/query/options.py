"""The options of the queries, as keywords."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypedDict

from feast_embeddings.arguments import Id
from feast_embeddings.model.sides import Filter

__all__ = [
    "AudienceOptions",
    "Boost",
    "By",
    "Fallback",
    "FoldInOptions",
    "QueryOptions",
    "RankOptions",
    "RankingOptions",
    "ShapingOptions",
    "SimilarOptions",
    "VersionOptions",
]

Fallback = Literal["popular", "recent", "none"]
By = Literal["blend", "behaviour", "content"]


class QueryOptions(TypedDict, total=False):
    """Options of every query.

    Attributes:
        filter: condition on the attributes of the answers, e.g. ``"category = 'Books' AND price < 20"``, or a Feast
            filter; by default none.
        attributes: whether to return the attributes with each answer, or a list of those to return; true by default,
            fewer are faster.
    """

    filter: Filter | None
    attributes: bool | Sequence[str]


class AudienceOptions(QueryOptions, total=False):
    """Options of queries that know which items a user has seen.

    Attributes:
        exclude_seen: whether to leave out items that the user interacted with in training, or users that did so with
            the item; by default they are left out.
    """

    exclude_seen: bool


class Boost(TypedDict):
    """What is added to the score of those that pass a filter.

    Attributes:
        filter: as in `QueryOptions`.
        weight: in units of the score, from -1,000,000 to 1,000,000: below 0 it lowers.
    """

    filter: Filter
    weight: float


class ShapingOptions(TypedDict, total=False):
    """Options that turn a ranking into an answer; see `feast_embeddings.query.shaping`.

    Attributes:
        exclude_ids: users or items to leave out; those that the version does not know change nothing.
        boosts: at most 8. The final score is ``score + the sum of the weights of the boosts that it passes``, also with
            a fallback. It is the score of the answer, and the one that `max_per` and `diversity` go by. Who passes none
            stays in the ranking.
        offset: how many of the first to skip, for pages: ``k=10, offset=10`` is the second half of ``k=20``.
        max_per: attribute -> at most how many of one value, e.g. ``{"category": 2}``; a list counts for each of its
            elements, and those without a value are not limited.
        diversity: from 0, in order of score, to 1: how much less one counts the more it is like those before it. It
            reorders the first `feast_embeddings.query.shaping.CANDIDATES`.
    """

    exclude_ids: Iterable[Id] | None
    boosts: Sequence[Boost] | None
    offset: int
    max_per: Mapping[str, int] | None
    diversity: float


class SimilarOptions(QueryOptions, ShapingOptions, total=False):
    """Options of queries for similar users or items.

    Attributes:
        by: ``"blend"``, by default, compares the vectors as they are. ``"behaviour"`` does so among rows with
            interactions. ``"content"`` compares what attributes alone say, by a scan, and needs a version with content.
    """

    by: By


class RankingOptions(QueryOptions, ShapingOptions, total=False):
    """Options of rankings of items, whoever they are for.

    Attributes:
        item_ids: rank only these items; those that the version does not know are in `missing`.
        fallback: what someone without a vector gets: ``"none"``, by default, or ``"popular"``: items by their number
            of interactions in training, which is then their score; or ``"recent"``: first the items of recorded events,
            the newest first, whose score is the time in hours since 1970, then popular ones, below 1.
    """

    item_ids: Iterable[Id] | None
    fallback: Fallback


class RankOptions(AudienceOptions, RankingOptions, total=False):
    """Options of rankings for someone with a history.

    Attributes:
        explain: whether each result says `because`: the items of the user or visitor that add most to its score, at
            most 3, by the exact sum of the trainer. What all items add sums to the score of the vector folded in from
            them, without the bias of the result, and before boosts; the result never speaks for itself. Items that take
            away from the score, and hidden ones, are not named; with a fallback none are.
    """

    explain: bool


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
