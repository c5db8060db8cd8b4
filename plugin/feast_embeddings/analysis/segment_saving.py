"""Segments as an attribute of the live users or items: filters use the numbers at once, and publishes keep them."""

from __future__ import annotations

from feast import ValueType

from feast_embeddings.analysis.members import Members, read_members
from feast_embeddings.analysis.segments import Segments
from feast_embeddings.arguments import Id
from feast_embeddings.artifact import Entity
from feast_embeddings.changes import AttributesSet, new_types
from feast_embeddings.errors import InputError
from feast_embeddings.query.store import EmbeddingStore

__all__ = ["check_name", "save_segments", "saved_segments"]


def check_name(store: EmbeddingStore, entity: Entity, name: str) -> None:
    """Check that an attribute is new, or was added as whole numbers: no attribute of the training is overwritten.

    Raises:
        InputError: it cannot hold segments.
    """
    side = store.side(entity)
    if name in side.attribute_names and side.codec.added.get(name) != ValueType.INT64:
        raise InputError(
            f"segments cannot be saved as {name!r}: there is an attribute of that name that is not of segments; choose "
            "another name"
        )
    new_types(side, {name: "int"})


def saved_segments(store: EmbeddingStore, entity: Entity, name: str) -> dict[Id, int] | None:
    """Return the saved segment of each live user or item that has one, by id; None if none are saved.

    Raises:
        InputError: a number is below 1.
    """
    if name not in store.side(entity).codec.added:
        return None
    # Of all, whatever the filter is, so that no new segment gets a number that others have.
    members = read_members(store, entity)
    pairs = zip(members.ids.to_pylist(), members.table[name].to_pylist(), strict=True)
    saved = {id: number for id, number in pairs if number is not None}
    if min(saved.values(), default=1) < 1:
        raise InputError(f"the attribute {name!r} has numbers below 1, so it is not of segments; choose another name")
    return saved or None


def save_segments(store: EmbeddingStore, members: Members, found: Segments, name: str) -> AttributesSet:
    """Set the number of the segment of each member as an attribute, a null for a member of none.

    Raises:
        InputError, EngineError: see `EmbeddingStore.set_attributes`.
    """
    values = {
        id: {name: number or None} for id, number in zip(members.ids.to_pylist(), found.numbers.tolist(), strict=True)
    }
    add = {name: "int"}
    return (
        store.set_attributes(users=values, add=add)
        if members.entity == "user"
        else store.set_attributes(items=values, add=add)
    )
