"""The column of ids in tables that users bring: ``user_id``, or what their log calls it."""

from __future__ import annotations

from collections.abc import Collection

from feast_embeddings.artifact.table import Entity
from feast_embeddings.errors import InputError

__all__ = ["id_column_in", "id_names"]


def id_names(entity: Entity, own_name: str | None, join_key: str | None = None) -> tuple[str, ...]:
    """Return the names that the column may have: the users' own, if there is one, and the join key.

    Without a join key that is ``user_id`` or ``item_id``.
    """
    join_key = join_key or f"{entity}_id"
    return tuple(dict.fromkeys((own_name or join_key, join_key)))


def id_column_in(columns: Collection[str], names: tuple[str, ...], where: str) -> str | None:
    """Return the one of the names that is a column; None if there is none.

    Raises:
        InputError: both are; the message calls the table `where`.
    """
    found = [name for name in names if name in columns]
    if len(found) > 1:
        raise InputError(f"{where} has two columns of ids, {found[0]!r} and {found[1]!r}; drop one of them")
    return found[0] if found else None
