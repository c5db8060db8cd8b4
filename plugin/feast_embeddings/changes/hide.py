"""Hide users and items from all answers for now, and show them again; nothing that is stored of them changes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from feast import FeatureStore

from feast_embeddings.arguments import Id
from feast_embeddings.artifact import ENTITIES, Entity
from feast_embeddings.engines.dropped import ask_live
from feast_embeddings.errors import InputError
from feast_embeddings.events import hidden_of
from feast_embeddings.model.sides import missing_side, qdrant_store, sides_of

__all__ = ["Visibility", "set_hidden"]

_NAMED = 10


@dataclass(frozen=True)
class Visibility:
    """What was hidden, or shown again.

    Attributes:
        users, items: how many were not so before.
        n_unknown: ids that the live version does not have; all if none is live.
        unknown: the first of them, at most 10.
    """

    model: str
    users: int = 0
    items: int = 0
    n_unknown: int = 0
    unknown: list[Id] = field(default_factory=list)


def set_hidden(
    feature_store: FeatureStore, data: Path, model: str, hide: bool, *, users: Sequence[Id], items: Sequence[Id]
) -> Visibility:
    """Hide users and items from all answers, or show them again.

    It is of the model, whatever version is live or becomes so. Ids that the live version does not have are hidden, too,
    once a version has them.

    Raises:
        InputError: no id is given, or one is not of the type of the model's ids; nothing is changed.
        MissingSideError: the model has no such side.
        EmbeddingsError: the file of the hidden ones cannot be written.
    """
    ids: dict[Entity, list[Id]] = {"user": list(dict.fromkeys(users)), "item": list(dict.fromkeys(items))}
    if not any(ids.values()):
        raise InputError(f"{'hide' if hide else 'unhide'}: expected ids of users or items, got none")
    engine, sides = qdrant_store(feature_store).engine(feature_store.config), sides_of(feature_store, model)
    unknown: list[Id] = []
    for entity, those in ids.items():
        if not those:
            continue
        if entity not in sides:
            raise missing_side(model, entity)
        side, points = sides[entity], sides[entity].point_ids(those)  # raises for an id of another type

        def known(aliases: dict[str, str], alias: str = side.alias, points: Sequence[int | str] = points) -> list[bool]:
            if alias not in aliases:
                return [False] * len(points)
            return [p is not None for p in engine.retrieve(aliases[alias], points, vectors=[], payload=[])]

        unknown += [id for id, is_known in zip(those, ask_live(engine.aliases, known), strict=True) if not is_known]
    hidden = hidden_of(data, model)
    change = hidden.add if hide else hidden.remove
    n = {entity: change(entity, ids[entity]) if ids[entity] else 0 for entity in ENTITIES}
    return Visibility(model, n["user"], n["item"], len(unknown), unknown[:_NAMED])
