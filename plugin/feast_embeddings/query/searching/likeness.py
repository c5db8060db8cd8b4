"""By what users or items are alike: all that made their vectors, behaviour alone, or content alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self, get_args

from qdrant_client import models

from feast_embeddings.arguments import Id
from feast_embeddings.artifact.attributes import CONTENT, CONTENT_EMBEDDING, SOURCE
from feast_embeddings.engines.engine import StoredPoint
from feast_embeddings.errors import OptionError
from feast_embeddings.model.sides import Filter
from feast_embeddings.query.collection import LiveCollection
from feast_embeddings.query.options import By

__all__ = ["Likeness"]


@dataclass(frozen=True)
class Likeness:
    """What a search for similar users or items compares.

    Attributes:
        live: the users or items.
        own: the named vector of each that is compared, as it was written.
        searched: the same one, or its normalized copy.
        conditions: who may be found.
        by: as it was asked for.
    """

    live: LiveCollection
    own: str
    searched: str
    conditions: models.Filter | None
    by: By

    @classmethod
    def of(cls, live: LiveCollection, by: By, filter: Filter | None) -> Self:
        """Return what a search compares, among those that pass a filter.

        Raises:
            OptionError: no such comparison, or the version has no content vectors.
            FilterError: the filter cannot be understood or applied.
        """
        if by not in get_args(By):
            raise OptionError("by", f"by must be one of {', '.join(get_args(By))}, got {by!r:.80}")
        side = live.side
        conditions, has_content = side.translate(filter), CONTENT_EMBEDDING in side.codec.fields
        if by == "content":
            if not has_content or CONTENT_EMBEDDING not in live.spec.vectors:
                raise OptionError(
                    "by",
                    f"version {live.spec.version} has no content vectors of {side.entity}s; train with "
                    f"--{side.entity}s, apply and publish to get some",
                )
            return cls(live, CONTENT_EMBEDDING, CONTENT_EMBEDDING, conditions, by)
        if by == "behaviour" and has_content:
            # Not of what was folded in without attributes, which has no source.
            from_content: list[Any] = [side.translate(f"{SOURCE} = '{CONTENT}'")]
            must: list[Any] = [] if conditions is None else [conditions]
            conditions = models.Filter(must=must, must_not=from_content)
        return cls(live, side.field.name, side.field.search_name, conditions, by)

    def points(self, ids: Sequence[Id], vector: str) -> list[StoredPoint | None]:
        """Return the points of these ids with one of the two vectors, aligned with the ids; None without one."""
        codec = self.live.side.codec
        only_behaviour = self.by == "behaviour" and CONTENT_EMBEDDING in codec.fields
        found = self.live.points(ids, vector, codec.payload_keys(SOURCE) if only_behaviour else ())
        if not only_behaviour:
            return found
        return [None if p is None or codec.native(SOURCE, p.payload) == CONTENT else p for p in found]
