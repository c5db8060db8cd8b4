"""What a filter reads, and whether a graph has edges for that."""

from __future__ import annotations

from qdrant_client import models

from feast_embeddings.engine import CollectionSpec

__all__ = ["filter_keys", "needs_acorn"]


def filter_keys(filter: models.Filter) -> set[str]:
    """The names of the join keys and features that the filter reads."""
    names: set[str] = set()
    for part in (filter.must, filter.should, filter.must_not):
        for condition in part if isinstance(part, list) else [part]:
            match condition:
                case models.Filter():
                    names |= filter_keys(condition)
                case models.FieldCondition():
                    names.add(condition.key.strip('"'))
    return names


def needs_acorn(spec: CollectionSpec, filter: models.Filter | None) -> bool:
    """Whether the filter takes points out of the graphs of this collection that no edges lead around."""
    return filter is not None and any(spec.payload_indexes.get(key) == "unlinked" for key in filter_keys(filter))
