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
        behaviour: whether rows that content alone made are left out.
    """

    live: LiveCollection
    own: str
    searched: str
    behaviour: bool = False

    @classmethod
    def of(cls, live: LiveCollection, by: By) -> Self:
        """Return what a search compares.

        Raises:
            OptionError: no such comparison, or the version has no content vectors.
        """
        if by not in get_args(By):
            raise OptionError("by", f"by must be one of {', '.join(get_args(By))}, got {by!r:.80}")
        side = live.side
        has_content = CONTENT_EMBEDDING in side.codec.fields
        if by == "content":
            if not has_content or CONTENT_EMBEDDING not in live.spec.vectors:
                raise OptionError(
                    "by",
                    f"version {live.spec.version} has no content vectors of {side.entity}s; train with "
                    f"--{side.entity}s, apply and publish to get some",
                )
            return cls(live, CONTENT_EMBEDDING, CONTENT_EMBEDDING)
        return cls(live, side.field.name, side.field.search_name, by == "behaviour" and has_content)

    def among(self, conditions: models.Filter | None) -> models.Filter | None:
        """Return the conditions under which a row may be found."""
        if not self.behaviour:
            return conditions
        # What was folded in without attributes has no source.
        from_content: list[Any] = [self.live.side.translate(f"{SOURCE} = '{CONTENT}'")]
        must: list[Any] = [] if conditions is None else [conditions]
        return models.Filter(must=must, must_not=from_content)

    def points(self, ids: Sequence[Id], vector: str) -> list[StoredPoint | None]:
        """Return the points of these ids with one of the two vectors, aligned with the ids; None without one."""
        codec = self.live.side.codec
        found = self.live.points(ids, vector, codec.payload_keys(SOURCE) if self.behaviour else ())
        if not self.behaviour:
            return found
        return [None if p is None or codec.native(SOURCE, p.payload) == CONTENT else p for p in found]
