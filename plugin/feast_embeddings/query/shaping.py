"""How a ranking becomes the answer.

The order is always the same: filter, score, leave out, boosts, limits of a value, diversity, page. The first
three are one search, which `shape` asks for as many as the others need.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import Any

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from feast_embeddings.arguments import Id, at_least
from feast_embeddings.engines.engine import PointId, ScoredPoint
from feast_embeddings.errors import OptionError
from feast_embeddings.model.sides import Filter, Side
from feast_embeddings.query.boosts import Lift, Search, boosted, lifts
from feast_embeddings.query.deadline import check_time
from feast_embeddings.query.options import Boost

__all__ = ["CANDIDATES", "Shaping", "diversified", "shape"]

# Diversity reorders this many. A fixed number, so that all pages are of one order.
CANDIDATES = 200
# If too many are of one value, each next try asks for this many times more.
_GROWTH = 4

Directions = Callable[[Sequence[PointId]], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Shaping:
    """The page of a ranking that is wanted, and what it may look like; see `ShapingOptions`.

    Raises:
        InputError: a number is out of range.
        OptionError: `max_per` names something else than an attribute of these items, or a boost cannot be used.
        FilterError: the filter cannot be understood or applied.
        IdTypeError: an id to leave out is one that the model cannot have.
    """

    side: Side
    k: int
    filter: Filter | None = None
    exclude_ids: Iterable[Id] | None = None
    offset: int = 0
    max_per: Mapping[str, int] | None = None
    diversity: float = 0.0
    boosts: Sequence[Boost] | None = None

    def __post_init__(self) -> None:
        at_least(1, self.k, "k")
        at_least(0, self.offset, "offset")
        at_least(1, self.until, "k + offset")
        given = self.diversity
        # `not` also refuses NaN.
        if isinstance(given, bool) or not isinstance(given, float | int | np.number) or not 0 <= given <= 1:
            raise OptionError("diversity", f"diversity must be a number from 0 to 1, got {given!r:.40}")
        if not isinstance(self.max_per or {}, Mapping):
            raise OptionError(
                "max_per", f"max_per must be attributes with numbers, as {{'category': 2}}, got {self.max_per!r:.80}"
            )
        for name, most in (self.max_per or {}).items():
            if name not in self.side.attribute_names:
                there_are = ", ".join(self.side.attribute_names) or "none"
                raise OptionError(
                    "max_per", f"max_per: {self.side.entity}s have no attribute {name!r:.80}; there are {there_are}"
                )
            at_least(1, most, f"max_per of {name!r}")
        # Refused here, and not by the first search.
        _ = self.lifts, self.conditions, self.left_out

    @cached_property
    def lifts(self) -> list[Lift]:
        """The boosts, for the engine."""
        return lifts(self.side, self.boosts)

    @cached_property
    def conditions(self) -> models.Filter | None:
        """The filter, for the engine."""
        return self.side.translate(self.filter)

    @cached_property
    def left_out(self) -> list[PointId]:
        """The points of `exclude_ids`."""
        return self.side.point_ids(self.exclude_ids or ())

    @property
    def until(self) -> int:
        """Where the page ends in the whole ranking."""
        return index(self.offset) + index(self.k)

    @property
    def payload(self) -> list[str]:
        """The payload keys that it reads."""
        return [key for name in self.max_per or () for key in self.side.codec.payload_keys(name)]


def shape(search: Search, shaping: Shaping, directions: Directions) -> list[ScoredPoint]:
    """Return the wanted page of a ranking; fewer than k only if there are no more.

    Args:
        search: leaves out excluded and seen ids.
        directions: returns unit vectors of points, shape (n, dim).
    """

    def best(n: int) -> list[ScoredPoint]:
        return boosted(search, shaping.lifts, shaping.conditions, n)

    until = shaping.until
    wanted = max(until, CANDIDATES) if shaping.diversity else until
    hits = _limited(best, wanted, shaping) if shaping.max_per else best(wanted)
    if shaping.diversity:
        head = hits[:CANDIDATES]
        scores = np.array([hit.score for hit in head], dtype=np.float64)
        order = diversified(scores, directions([hit.id for hit in head]), float(shaping.diversity), until)
        # Only those before `until` are ordered, and no others are shown.
        hits = [*(head[i] for i in order), *hits[CANDIDATES:]]
    return hits[index(shaping.offset) : until]


def _limited(best: Callable[[int], list[ScoredPoint]], wanted: int, shaping: Shaping) -> list[ScoredPoint]:
    """Return the first that stay within `max_per`, taken greedily, best first."""
    n = _GROWTH * wanted
    while True:
        check_time()
        found = best(n)
        counts = {name: Counter[Any]() for name in shaping.max_per or ()}
        kept: list[ScoredPoint] = []
        for hit in found:
            values = {name: _values(shaping.side.codec.native(name, hit.payload)) for name in counts}
            if all(counts[name][v] < most for name, most in (shaping.max_per or {}).items() for v in values[name]):
                for name, own in values.items():
                    counts[name].update(own)
                kept.append(hit)
                if len(kept) == wanted:
                    return kept
        if len(found) < n:
            return kept
        n *= _GROWTH


def _values(value: Any) -> Iterable[Any]:
    """Return the distinct values of an attribute: none, one, or the elements of a list."""
    return () if value is None else set(value) if isinstance(value, list) else (value,)


def diversified(
    scores: npt.NDArray[np.float64], directions: npt.NDArray[np.float64], diversity: float, k: int
) -> list[int]:
    """Return the k first rows in the order of maximal marginal relevance (Carbonell and Goldstein, SIGIR 1998).

    An item gains its score, scaled to [0, 1] over the rows, and loses its largest cosine to a row before it; the loss
    has the weight `diversity`, the score the rest. Qdrant's own query of this name would take the product of two items,
    biases included, for their likeness, and knows no `max_per`.

    Args:
        scores: shape (n,), descending.
        directions: unit vectors, shape (n, dim).
    """
    if not len(scores):
        return []
    spread = scores[0] - scores[-1]
    relevance = (1 - diversity) * ((scores - scores[-1]) / spread if spread > 0 else np.zeros(len(scores)))
    cosines = directions @ directions.T
    order, likeness = [0], cosines[0].copy()
    left = np.ones(len(scores), dtype=np.bool_)
    left[0] = False
    while len(order) < min(k, len(scores)):
        gain = np.where(left, relevance - diversity * likeness, -np.inf)
        order.append(int(gain.argmax()))
        left[order[-1]] = False
        np.maximum(likeness, cosines[order[-1]], out=likeness)
    return order
