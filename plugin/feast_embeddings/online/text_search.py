"""Keyword search over string features, and the fusion of two rankings. Pure.

Both engines can find the rows with a word, but with different definitions of a word, and without the collection
statistics that a score needs. So the texts are read and scored here, with one definition:

* a word is a run of letters, digits and underscores, without regard to case or Unicode form;
* a text scores by BM25 in Lucene's form, without the constant factor ``k1 + 1``, over the rows that pass the filter
  (Robertson and Zaragoza, "The Probabilistic Relevance Framework: BM25 and Beyond", 2009; k1 = 1.2, b = 0.75),
  divided by the limit that endless repetition of every query word would reach: a rank in [0, 1);
* two rankings are merged by reciprocal rank fusion (Cormack, Clarke and Büttcher, 2009; k = 60).
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from feast_embeddings.engines.engine import PointId

__all__ = ["bm25", "rarity", "reciprocal_rank_fusion", "saturation", "words"]

_K1, _B = 1.2, 0.75
_FUSION_K = 60


def words(text: str) -> list[str]:
    """Split a text into its words, normalized for comparison, in order."""
    return re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold())


def rarity(texts: int, holding: int) -> float:
    """Return the weight of a word, given how many of all texts hold it."""
    return math.log(1 + (texts - holding + 0.5) / (holding + 0.5))


def saturation(count: Any, length: Any, texts: int, total: int) -> Any:
    """Return how much a word counts that a text holds so often, in [0, 1): numbers, or arrays of one shape.

    Args:
        count: how often the text holds the word.
        length: how many words the text has.
        texts: how many texts there are.
        total: how many words they have together.
    """
    return count / (count + _K1 * (1 - _B + _B * length * texts / total))


def bm25(texts: Iterable[tuple[PointId, str]], query: str) -> dict[PointId, float]:
    """Rank every text that contains a word of the query, best first; ties in the order of the texts.

    Args:
        texts: id and text of each row; read once, so they need not fit into memory.

    Returns:
        id -> rank, higher is better, above 0 and below 1.
    """
    terms = list(dict.fromkeys(words(query)))
    found: list[tuple[PointId, list[int], int]] = []
    total = rows = 0
    for id, text in texts:
        counts = Counter(words(text))
        length = counts.total()
        rows, total = rows + 1, total + length
        if any(occurrences := [counts[term] for term in terms]):
            found.append((id, occurrences, length))
    if not found:
        return {}
    holding = [sum(occurrences[i] > 0 for _, occurrences, _ in found) for i in range(len(terms))]
    weights = [rarity(rows, n) for n in holding]
    ranks = {
        id: sum(
            weight * saturation(count, length, rows, total) for weight, count in zip(weights, occurrences, strict=True)
        )
        / sum(weights)
        for id, occurrences, length in found
    }
    return dict(sorted(ranks.items(), key=lambda item: -item[1]))


def reciprocal_rank_fusion(rankings: Iterable[Sequence[PointId]]) -> dict[PointId, float]:
    """Merge several rankings of ids, each best first, into one.

    Returns:
        id -> score, best first; ties in the order in which the ids come first.
    """
    scores: dict[PointId, float] = defaultdict(float)
    for ranking in rankings:
        for place, id in enumerate(ranking, start=1):
            scores[id] += 1 / (_FUSION_K + place)
    return dict(sorted(scores.items(), key=lambda item: -item[1]))
