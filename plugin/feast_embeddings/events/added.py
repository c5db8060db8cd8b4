"""Attributes that a model got without a training: their names and types, in a file that every query looks at."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from feast_embeddings.events.watched import WatchedFile

__all__ = ["AddedAttributes", "added_attributes_of"]

# Entity -> attribute -> Feast's name for its type.
Types = Mapping[str, Mapping[str, str]]


_TYPES = frozenset({"STRING", "INT64", "DOUBLE", "BOOL", "UNIX_TIMESTAMP", "STRING_LIST", "INT64_LIST"})


def _types(read: dict[str, Any]) -> Types:
    for entity, types in read.items():
        if not isinstance(types, dict) or not set(map(str, types.values())) <= _TYPES:
            raise ValueError(f"expected attributes and their types for {entity!r}, got {types!r:.80}")
    return read


class AddedAttributes(WatchedFile[Types]):
    """The attributes added to a model, whatever version is live; their values are in `SetAttributes`."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "added attributes", _types)

    def add(self, entity: str, types: Mapping[str, str]) -> None:
        """Add attributes; when it returns, the next query of any process knows them."""

        def changed(before: dict[str, Any]) -> dict[str, Any]:
            return {**before, entity: {**before.get(entity, {}), **types}}

        self.change(changed)


@lru_cache(256)  # so that those who ask for each request read the file only when it has changed
def added_attributes_of(data: Path, model: str) -> AddedAttributes:
    """Return the added attributes of a model in a repo's folder of versions."""
    return AddedAttributes(data / f"{model}.attributes.json")
