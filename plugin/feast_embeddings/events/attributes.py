"""Attributes set without a training: the newest value of each, kept for the versions that did not see it."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from feast_embeddings.arguments import Id
from feast_embeddings.events.file import ModelFile

__all__ = ["SetAttributes", "SetValue", "set_attributes_of"]

_BATCH = 10_000


class SetValue(NamedTuple):
    """A value of one attribute.

    Attributes:
        type: Feast's name for the type of the attribute.
        value: exact in JSON; a time is in seconds since 1970.
        set_at: microseconds since 1970.
    """

    id: Id
    name: str
    type: str
    value: Any
    set_at: int


class SetAttributes(ModelFile):
    """The values set for users and items; a pending one may not be in Qdrant yet."""

    def add(self, values: Sequence[tuple[str, SetValue]]) -> None:
        """Keep values, with the entity of each, all or none, as pending; an older value of the same is replaced."""
        rows = [(entity, v.id, v.name, v.type, json.dumps(v.value), v.set_at) for entity, v in values]
        with self._making() as connection, connection:
            connection.executemany(
                "INSERT OR REPLACE INTO attributes (entity, id, name, type, value, set_at, pending) "
                "VALUES (?, ?, ?, ?, ?, ?, 1)",
                rows,
            )

    def settle(self, entity: str, values: Sequence[SetValue]) -> None:
        """Mark these values as written to Qdrant."""
        with self._making() as connection, connection:
            connection.executemany(
                "UPDATE attributes SET pending = 0 WHERE entity = ? AND id = ? AND name = ? AND set_at = ?",
                [(entity, value.id, value.name, value.set_at) for value in values],
            )

    def pending(self, entity: str) -> Iterator[list[SetValue]]:
        """Return the values that may not be in Qdrant yet."""
        return self._select("entity = ? AND pending", (entity,))

    def since(self, entity: str, moment: int, always: Collection[str] = ()) -> Iterator[list[SetValue]]:
        """Return the values set after a time, in microseconds since 1970, and whenever set those of some attributes."""
        yield from self._select("entity = ? AND set_at > ?", (entity, moment))
        for name in always:
            yield from self._select("entity = ? AND name = ? AND set_at <= ?", (entity, name, moment))

    def _select(self, condition: str, asked: tuple[Any, ...]) -> Iterator[list[SetValue]]:
        if not self.path.exists():
            return
        with self._opened("ro") as connection:
            if not _has_table(connection):
                return
            cursor = connection.execute(
                f"SELECT id, name, type, value, set_at FROM attributes WHERE {condition}",  # noqa: S608 - ours
                asked,
            )
            while rows := cursor.fetchmany(_BATCH):
                yield [SetValue(id, name, kind, json.loads(value), at) for id, name, kind, value, at in rows]


def _has_table(connection: sqlite3.Connection) -> bool:
    """Return whether the file is of a release that has the table."""
    found = connection.execute("SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'attributes'")
    return found.fetchone() is not None


def set_attributes_of(data: Path, model: str) -> SetAttributes:
    """Return the set attributes of a model in a repo's folder of versions."""
    return SetAttributes(data / f"{model}.events.sqlite")
