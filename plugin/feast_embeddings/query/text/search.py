"""Items for a text, by a fusion of several rankings.

The rankings are:

* ``words``: items whose text holds words of the query, by BM25;
* ``content``: items in the direction in which the text moves the vector of an item of which nothing is known, seen from
  there. That vector says what is popular; seen from 0, it would hide the text;
* ``user``: the items of both, by the score for a user. Only these, as half of the answer would else have nothing to do
  with the text.

Reciprocal rank fusion merges them (Cormack, Clarke and Büttcher, SIGIR 2009; k = 60): an item scores the sum of
1 / (60 + place). Qdrant can fuse queries as well, but only what it can rank itself. Words are ranked in this process:
Qdrant has no BM25 over a payload, and sparse vectors of words would have to be loaded, verified and carried over with
each version, for an index that its files already hold. So the first of each ranking are fused here.

Items that were added since the version was trained are found by their vectors, not by their words.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from qdrant_client import models

from feast_embeddings.engines.engine import PointId, ScoredPoint
from feast_embeddings.errors import OptionError
from feast_embeddings.model.sides import Filter
from feast_embeddings.online.text_search import reciprocal_rank_fusion, words
from feast_embeddings.query.answers import Found
from feast_embeddings.query.collection import LiveCollection
from feast_embeddings.query.deadline import check_time
from feast_embeddings.query.ranking import score_query
from feast_embeddings.query.searching.returned import Returned
from feast_embeddings.query.text.version_text import VersionText

__all__ = ["DEPTH", "MOST_CHARACTERS", "search_items"]

# Of each ranking, this many are fused; more if more are wanted.
DEPTH = 100
MOST_CHARACTERS = 1_000
# If too many do not pass the filter, each next try asks for this many times more.
_GROWTH = 4


def search_items(
    items: LiveCollection,
    version: VersionText,
    text: str,
    k: int,
    *,
    user: npt.NDArray[np.float32] | None = None,
    filter: Filter | None = None,
    attributes: bool | Sequence[str] = True,
) -> Found:
    """Find the k items that are best for a text, and for a user if there is one.

    Args:
        version: the items' version.
        user: the user's vector, float32 (dim,), of the items' space.

    Raises:
        OptionError: the text has no word or is too long, or the version cannot be searched by text.
        TextSearchError: the version is not on this disk or is damaged, or its encoder is not installed.
        FilterError: the filter cannot be understood or applied.
    """
    if not isinstance(text, str) or len(text) > MOST_CHARACTERS or not words(text):
        raise OptionError(
            "text",
            f"expected a text with at least one word and at most {MOST_CHARACTERS:,} characters, got {text!r:.80}",
        )
    side, depth = items.side, max(k, DEPTH)
    returned = Returned.of(side, attributes)
    conditions = side.translate(filter)

    def holding_words() -> list[PointId]:
        ids = version.matching(text)
        kept: list[PointId] = []
        start, n = 0, depth
        while start < len(ids) and len(kept) < depth:
            check_time()
            kept += items.passing(side.point_ids(ids[start : start + n].to_pylist()), conditions)
            start, n = start + n, n * _GROWTH
        return kept[:depth]

    rankings = {"words": holding_words()}
    if (vectors := version.vectors(text)) is not None:
        rankings["content"] = _in_direction(items, *vectors, depth, conditions)
    check_time()
    if user is not None:
        both = list(dict.fromkeys(id for ranking in rankings.values() for id in ranking))
        query = score_query(side.field, user)
        hits = items.nearest(side.field.name, query, len(both), filter=None, only=both, payload=[]) if both else []
        rankings["user"] = [hit.id for hit in hits]
    scores = reciprocal_rank_fusion(rankings.values())
    return _answer(items, list(scores.items())[:k], rankings, returned)


def _in_direction(
    items: LiveCollection,
    said: npt.NDArray[np.float32],
    nothing: npt.NDArray[np.float32],
    k: int,
    conditions: models.Filter | None,
) -> list[PointId]:
    """Return the k items whose vectors, from `nothing`, are nearest by cosine to `said`, among the 2k nearest from 0.

    Those nearest to `said` are of items with little but content, those in its direction from `nothing` of the others.
    """
    added, name = said - nothing, items.side.field.search_name
    found: dict[PointId, None] = {}
    for query in (said, added):
        hits = items.nearest_to(query, k, vector_name=name, filter=conditions, payload=[])
        found |= dict.fromkeys(hit.id for hit in hits)
    ids = list(found)
    from_there = items.vectors(ids) - nothing
    lengths = np.linalg.norm(from_there, axis=1)
    cosines = from_there @ added / np.where(lengths > 0, lengths, np.inf)
    return [ids[i] for i in np.argsort(-cosines, kind="stable")[:k]]


def _answer(
    items: LiveCollection,
    best: Sequence[tuple[PointId, float]],
    rankings: dict[str, list[PointId]],
    returned: Returned,
) -> Found:
    places = {name: {id: place for place, id in enumerate(ranking, start=1)} for name, ranking in rankings.items()}
    payloads = items.payloads([id for id, _ in best], returned.payload)
    # One may have been deleted since it was found.
    hits = [
        ScoredPoint(id, score, payload)
        for (id, score), payload in zip(best, payloads, strict=True)
        if payload is not None
    ]
    found = items.neighbours(hits, returned=returned)
    own = [{name: places[name][hit.id] for name in places if hit.id in places[name]} for hit in hits]
    return Found(**vars(found), places=own)
