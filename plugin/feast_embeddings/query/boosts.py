"""Boosts: weights that are added to the scores of items or users that pass a condition.

The final score is the score plus the weights of all boosts that the item passes, in units of the score. This is how the
documentation of Qdrant boosts, ``$score + weight * condition``, and Elasticsearch with ``boost_mode: sum``. A factor
would be the other way; it turns around for negative scores, which dot products have. Qdrant's own formula rescores only
what another query has found, and would miss what a boost lifts from below. So the items are split by which boosts they
pass, each part is searched, and the parts are merged.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from qdrant_client import models

from feast_embeddings.engines.engine import ScoredPoint
from feast_embeddings.errors import FilterError, OptionError
from feast_embeddings.model.sides import Filter, Side
from feast_embeddings.query.deadline import check_time

__all__ = ["LARGEST_WEIGHT", "MOST_BOOSTS", "Lift", "Search", "boosted", "lifts"]

MOST_BOOSTS = 8
LARGEST_WEIGHT = 1e6
_EXAMPLE = "{'filter': \"category = 'Books'\", 'weight': 0.3}"

Search = Callable[[int, models.Filter | None], list[ScoredPoint]]
"""Returns the n best that pass a filter, best first; fewer only if there are no more."""


class Lift(NamedTuple):
    """A boost as the engine takes it."""

    condition: models.Filter
    weight: float


def lifts(side: Side, boosts: Sequence[Mapping[str, Any]] | None) -> list[Lift]:
    """Translate the boosts of a caller; see `feast_embeddings.query.options.Boost`.

    Raises:
        OptionError: there are too many, or one has no weight or no filter that can be used; the message says which.
    """
    if isinstance(boosts, str | Mapping) or not isinstance(given := () if boosts is None else boosts, Sequence):
        raise OptionError("boosts", f"boosts must be a list, as [{_EXAMPLE}], got {boosts!r:.80}")
    if len(given) > MOST_BOOSTS:
        raise OptionError("boosts", f"at most {MOST_BOOSTS} boosts are possible, got {len(given):,}")
    return [_lift(side, place, boost) for place, boost in enumerate(given)]


def _lift(side: Side, place: int, boost: Any) -> Lift:
    if not isinstance(boost, Mapping) or set(boost) != {"filter", "weight"}:
        raise OptionError("boosts", f"boosts[{place}] must be a filter and a weight, as {_EXAMPLE}, got {boost!r:.80}")
    filter, weight = boost["filter"], boost["weight"]
    # NaN is in no range.
    if (
        isinstance(weight, bool)
        or not isinstance(weight, float | int | np.number)
        or not -LARGEST_WEIGHT <= weight <= LARGEST_WEIGHT
    ):
        raise OptionError(
            "boosts",
            f"boosts[{place}]: the weight must be a number from {-LARGEST_WEIGHT:,.0f} to {LARGEST_WEIGHT:,.0f}, "
            f"got {weight!r:.40}",
        )
    if not isinstance(filter, Filter):
        raise OptionError("boosts", f"boosts[{place}]: the filter must be a condition, got {filter!r:.80}")
    try:
        condition = side.translate(filter)
    except FilterError as error:
        raise OptionError("boosts", f"boosts[{place}]: {error}") from error
    if condition is None:
        raise OptionError("boosts", f"boosts[{place}]: the filter has no condition")
    return Lift(condition, float(weight))


def boosted(search: Search, boosts: Sequence[Lift], filter: models.Filter | None, n: int) -> list[ScoredPoint]:
    """Return the n best by their final scores, best first; fewer only if there are no more.

    It is exact as far as `search` is. A part is split by one boost after the other, the higher half first, and left out
    if not even its best item can get among the n. Equal scores have the same order for any n.
    """
    if not boosts:
        return search(n, filter)
    best: list[ScoredPoint] = []
    # Those with large weights first, because they leave most out.
    order = sorted(boosts, key=lambda boost: -abs(boost.weight))

    def visit(part: list[ScoredPoint], rest: Sequence[Lift], yes: list[Lift], no: list[Lift]) -> None:
        check_time()
        weights = [boost.weight for boost in yes]
        # A correctly rounded sum, as the scores have: no item can exceed it.
        most = [*weights, *(boost.weight for boost in rest if boost.weight > 0)]
        if not part or (len(best) == n and math.fsum([part[0].score, *most]) < best[-1].score):
            return
        if not rest:
            hits = [hit._replace(score=math.fsum([hit.score, *weights])) for hit in part]
            best[:] = sorted([*best, *hits], key=lambda hit: -hit.score)[:n]
            return
        boost, *rest = rest
        halves = [([*yes, boost], no), (yes, [*no, boost])][:: 1 if boost.weight >= 0 else -1]
        higher = search(n, _within(filter, *halves[0]))
        visit(higher, rest, *halves[0])
        if len(part) < n or not higher:
            found = {hit.id for hit in higher}
            lower = [hit for hit in part if hit.id not in found]
        else:
            lower = search(n, _within(filter, *halves[1]))
        visit(lower, rest, *halves[1])

    visit(search(n, filter), order, [], [])
    return best


def _within(filter: models.Filter | None, yes: Sequence[Lift], no: Sequence[Lift]) -> models.Filter:
    return models.Filter(
        must=[*([] if filter is None else [filter]), *(boost.condition for boost in yes)] or None,
        must_not=[boost.condition for boost in no] or None,
    )
