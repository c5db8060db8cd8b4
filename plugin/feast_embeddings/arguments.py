"""Check and normalize arguments of queries: lists of ids, and numbers of results."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from operator import index
from typing import Any

import numpy as np

from feast_embeddings.errors import InputError

__all__ = ["Id", "Interactions", "at_least", "at_least_one", "history", "id_list"]

Id = str | int
# Interactions of a visitor: items, one entry per interaction, or items with weights.
Interactions = Iterable[Id] | Mapping[Any, float]


def id_list(ids: Iterable[Id], name: str) -> list[Id]:
    """Convert any iterable of ids, including generators, to a list; NumPy values become Python's.

    Raises:
        InputError: it is a single id, or not a list of ids; `name` is the caller's name for it.
    """
    if isinstance(ids, str | bytes | bytearray):
        raise InputError(f"{name} takes a list of ids, got the single {ids!r:.80}; write [{ids!r:.80}]")
    if getattr(ids, "ndim", 1) != 1:
        raise InputError(f"{name} takes a list of ids, got {type(ids).__name__} of {ids.ndim} dimensions")  # type: ignore[attr-defined]
    try:
        return [id.item() if isinstance(id, np.generic) else id for id in ids]
    except TypeError:
        raise InputError(f"{name} takes a list of ids, got {ids!r:.80} ({type(ids).__name__})") from None


def history(interactions: Interactions, name: str) -> dict[Id, float]:
    """Return the weight of each item of a visitor's interactions; raises as `id_list` does."""
    if isinstance(interactions, Mapping):
        return dict(zip(id_list(interactions, name), interactions.values(), strict=True))
    ids = id_list(interactions, name)
    try:
        return dict(Counter(ids))
    except TypeError:
        raise InputError(f"{name} takes ids, or a mapping of ids to weights, got {ids!r:.80}") from None


def at_least_one(n: int, name: str) -> int:
    """Check a number of results; raises as `at_least` does."""
    return at_least(1, n, name)


def at_least(least: int, n: int, name: str) -> int:
    """Check a whole number.

    Raises:
        InputError: it is not a whole number from `least` to 2**63 - 1; `name` is the caller's name for it.
    """
    try:
        plain = index(n)
    except TypeError:
        plain = 2**63
    if isinstance(n, bool) or plain >= 2**63:
        raise InputError(f"{name} must be a whole number of at least {least} and below 2**63, got {n!r:.40}")
    if plain < least:
        raise InputError(f"{name} must be at least {least}, got {n!r:.40}")
    return plain
