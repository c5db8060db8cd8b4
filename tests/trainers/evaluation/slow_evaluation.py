"""Evaluation a second time: the papers' definitions in loops over lists, for tests to compare with."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence


def rank(scores: Sequence[float], seen: Collection[int], k: int) -> list[int]:
    """Items by score, highest first, of equal ones the lower number, without the seen ones, up to k."""
    unseen = [item for item in range(len(scores)) if item not in seen]
    return sorted(unseen, key=lambda item: (-scores[item], item))[:k]


def user_metrics(
    ranked: Sequence[int], relevant: Collection[int], popularity: Sequence[int], k: int
) -> dict[str, float]:
    """Metrics of one user's list, ranks from 1."""
    first = ranked[:k]
    hits = [number for number, item in enumerate(first, start=1) if item in relevant]
    best = min(k, len(relevant))
    precisions = [sum(hit <= number for hit in hits) / number for number in hits]
    return {
        "recall": len(hits) / len(relevant),
        "ndcg": sum(1 / math.log2(1 + number) for number in hits)
        / sum(1 / math.log2(1 + number) for number in range(1, best + 1)),
        "map": sum(precisions) / best,
        "hr": 1.0 if hits else 0.0,
        "mrr": 1 / hits[0] if hits else 0.0,
        "popularity": sum(popularity[item] for item in first) / len(first),
    }


def list_metrics(
    lists: Sequence[Sequence[int]], relevant: Sequence[Collection[int]], popularity: Sequence[int], k: int
) -> dict[str, float]:
    """Means over users, and what is about all lists together."""
    each = [user_metrics(ranked, own, popularity, k) for ranked, own in zip(lists, relevant, strict=True)]
    means = {name: sum(user[name] for user in each) / len(each) for name in each[0]}
    listed = [item for ranked in lists for item in ranked[:k]]
    n_items = len(popularity)
    shares = sorted(listed.count(item) / len(listed) for item in range(n_items))
    gini = 0.0
    for j, share in enumerate(shares, start=1):
        gini += (2 * j - n_items - 1) * share
    means["coverage"] = len(set(listed)) / n_items
    means["gini"] = gini / (n_items - 1) if n_items > 1 else 0.0
    return means


def cosine(a: Sequence[float], b: Sequence[float]) -> float:
    """0 if a vector is all zeros."""
    norms = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / norms if norms else 0.0


def beyond_accuracy(
    ranked: Sequence[int], vectors: Sequence[Sequence[float]], popularity: Sequence[int], n_users: int, k: int
) -> dict[str, float]:
    """Novelty and diversity of one list."""
    first = ranked[:k]
    cosines = [cosine(vectors[a], vectors[b]) for at, a in enumerate(first) for b in first[at + 1 :]]
    return {
        "novelty": sum(-math.log2(max(popularity[item], 1) / n_users) for item in first) / len(first),
        "diversity": 1 - sum(cosines) / len(cosines) if cosines else 0.0,
    }
