"""Users and items that are out of all answers for now: a file of the repo, which is read again when it has changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from feast_embeddings.arguments import Id
from feast_embeddings.events.watched import WatchedFile

__all__ = ["Hidden", "hidden_of"]


class Hidden(WatchedFile[Mapping[str, frozenset[Id]]]):
    """The hidden users and items of one model, each in the order of hiding; none until the first write."""

    def __init__(self, path: Path) -> None:
        super().__init__(
            path, "hidden users and items", lambda ids: {entity: frozenset(those) for entity, those in ids.items()}
        )

    def ids(self, entity: str) -> frozenset[Id]:
        """Return the hidden users or items as of now: the same object until they change."""
        return self.now().get(entity, frozenset())

    def add(self, entity: str, ids: Iterable[Id]) -> int:
        """Hide these, and return how many were not; when it returns, the next query of any process knows it."""
        return self._change(entity, lambda hidden: hidden | dict.fromkeys(ids))

    def remove(self, entity: str, ids: Collection[Id]) -> int:
        """Show these again, and return how many were hidden."""
        gone = frozenset(ids)
        return self._change(entity, lambda hidden: {id: None for id in hidden if id not in gone})

    def _change(self, entity: str, change: Callable[[dict[Id, None]], dict[Id, None]]) -> int:
        n = 0

        def changed(before: dict[str, Any]) -> dict[str, Any]:
            nonlocal n
            hidden = dict.fromkeys(before.get(entity, ()))
            after = change(hidden)
            n = abs(len(after) - len(hidden))
            return {**before, entity: list(after)} if n else before

        self.change(changed)
        return n


def hidden_of(data: Path, model: str) -> Hidden:
    """Return the hidden users and items of a model in a repo's folder of versions."""
    return Hidden(data / f"{model}.hidden.json")
