"""What a server has said of its aliases and collections, decoded; it is kept as long as it holds."""

from __future__ import annotations

import re
import uuid
from typing import Any

from qdrant_client import models

from feast_embeddings.engines.engine import CollectionSpec
from feast_embeddings.errors import EngineError

__all__ = ["Catalog", "birth_mark", "metadata_of", "spec_in"]

_SPEC = "feast_embeddings"
# An alias that a collection gets when it is made and loses with its end, to tell it from others of its name. The whole
# form counts: project feast_embeddings may have a view made_shoes.
_BIRTH_MARK = re.compile("feast_embeddings_made_[0-9a-f]{32}")


def metadata_of(spec: CollectionSpec) -> dict[str, Any]:
    """The metadata of a collection that holds what the spec says."""
    return {_SPEC: spec.model_dump()}


def spec_in(info: models.CollectionInfo) -> CollectionSpec | None:
    """What a collection holds; None if this package has not made it."""
    metadata = info.config.metadata or {}
    return CollectionSpec.model_validate(metadata[_SPEC]) if _SPEC in metadata else None


def birth_mark() -> str:
    """The alias that marks a new collection."""
    return f"feast_embeddings_made_{uuid.uuid4().hex}"


class Catalog:
    """The specs of live collections, each asked for once, whichever client asks.

    Another process may make a collection of the same name anew; the last look at the aliases, which told the caller
    this name, has then shown another mark.
    """

    def __init__(self) -> None:
        self._birth_marks: dict[str, str] = {}
        self._described: dict[str, tuple[str, CollectionSpec]] = {}

    def aliases(self, answer: models.CollectionsAliasesResponse) -> dict[str, str]:
        """Alias -> collection, from the server's list of all."""
        aliases = {alias.alias_name: alias.collection_name for alias in answer.aliases}
        marks = {alias: c for alias, c in aliases.items() if _BIRTH_MARK.fullmatch(alias)}
        self._birth_marks = {c: mark for mark, c in marks.items()}
        return {alias: c for alias, c in aliases.items() if alias not in marks}

    def mark(self, collection: str) -> str | None:
        """The mark of a collection at the last look at the aliases."""
        return self._birth_marks.get(collection)

    def spec(self, collection: str) -> CollectionSpec | None:
        """What a collection holds, if that is known."""
        known, spec = self._described.get(collection, (None, None))
        return spec if known == self.mark(collection) else None

    def learn(self, collection: str, mark: str | None, info: models.CollectionInfo) -> CollectionSpec:
        """What a collection holds, from the server's answer.

        Args:
            mark: its mark when the server was asked.
        """
        spec = spec_in(info)
        if spec is None:
            raise EngineError(f"the Qdrant collection {collection!r} was not made by feast-embeddings")
        if mark is not None:
            kept = {name: known for name, known in self._described.items() if name in self._birth_marks}
            self._described = kept | {collection: (mark, spec)}
        return spec

    def forget(self, collection: str) -> None:
        """Ask for it again."""
        self._described.pop(collection, None)
