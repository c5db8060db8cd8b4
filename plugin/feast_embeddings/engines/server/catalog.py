"""A cache of a server's aliases and collection specs, kept while they are valid."""

from __future__ import annotations

import re
import uuid
from collections.abc import Mapping
from typing import Any

from qdrant_client import models

from feast_embeddings.engines.engine import CollectionSpec
from feast_embeddings.errors import EngineError

__all__ = ["Catalog", "birth_mark", "metadata_of", "spec_in", "spec_of_metadata"]

_SPEC = "feast_embeddings"
# A new collection gets this alias until it is dropped, to distinguish it from other collections of its name. The whole
# pattern must match: project feast_embeddings may have a view made_shoes.
_BIRTH_MARK = re.compile("feast_embeddings_made_[0-9a-f]{32}")


def metadata_of(spec: CollectionSpec) -> dict[str, Any]:
    """Return the metadata of a collection with this spec."""
    return {_SPEC: spec.model_dump()}


def spec_in(info: models.CollectionInfo) -> CollectionSpec | None:
    """Return the spec of a collection; None if this package did not make it."""
    return spec_of_metadata(info.config.metadata)


def spec_of_metadata(metadata: Mapping[str, Any] | None) -> CollectionSpec | None:
    """Return the spec in the metadata of a collection; None if this package did not make it."""
    return CollectionSpec.model_validate(metadata[_SPEC]) if metadata and _SPEC in metadata else None


def birth_mark() -> str:
    """Return an alias that marks a new collection."""
    return f"feast_embeddings_made_{uuid.uuid4().hex}"


class Catalog:
    """The specs of live collections, each read once for all clients.

    Another process may replace a collection by a new one of the same name; then the last read of the aliases, from
    which the caller has the name, showed a different mark.
    """

    def __init__(self) -> None:
        self._birth_marks: dict[str, str] = {}
        self._described: dict[str, tuple[str, CollectionSpec]] = {}

    def aliases(self, answer: models.CollectionsAliasesResponse) -> dict[str, str]:
        """Return alias -> collection, from the server's list of all."""
        aliases = {alias.alias_name: alias.collection_name for alias in answer.aliases}
        marks = {alias: c for alias, c in aliases.items() if _BIRTH_MARK.fullmatch(alias)}
        self._birth_marks = {c: mark for mark, c in marks.items()}
        return {alias: c for alias, c in aliases.items() if alias not in marks}

    def mark(self, collection: str) -> str | None:
        """Return the mark of a collection at the last read of the aliases."""
        return self._birth_marks.get(collection)

    def spec(self, collection: str) -> CollectionSpec | None:
        """Return the spec of a collection, if it is known."""
        known, spec = self._described.get(collection, (None, None))
        return spec if known == self.mark(collection) else None

    def learn(self, collection: str, mark: str | None, spec: CollectionSpec | None) -> CollectionSpec:
        """Return the spec of a collection from the server's answer, and keep it.

        Args:
            mark: its mark at the time of the request.
        """
        if spec is None:
            raise EngineError(f"the Qdrant collection {collection!r} was not made by feast-embeddings")
        if mark is not None:
            kept = {name: known for name, known in self._described.items() if name in self._birth_marks}
            self._described = kept | {collection: (mark, spec)}
        return spec

    def forget(self, collection: str) -> None:
        """Drop a spec, so that it is read again."""
        self._described.pop(collection, None)
