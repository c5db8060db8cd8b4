"""The online tables of a feature view: when their rows expire, what they have in addition, and which entities not.

A view has one table, or one per version if Feast's versioning of views is on.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from feast import Entity, FeatureView, RepoConfig, ValueType

from feast_embeddings.codec.collection import view_ttl
from feast_embeddings.engines.engine import Engine
from feast_embeddings.errors import InputError
from feast_embeddings.events import added_attributes_of
from feast_embeddings.online.table_names import is_table_of, table_id
from feast_embeddings.times import to_microseconds

__all__ = [
    "ENTITY_TAG",
    "MODEL_TAG",
    "added_attributes",
    "drop_tables",
    "refuse_one_name_for_two",
    "tables_of",
    "valid_from",
]

# Of the views of a model; its value is the model's name.
MODEL_TAG = "feast_embeddings.model"
# Of the same views: ``user`` or ``item``.
ENTITY_TAG = "feast_embeddings.entity"


def drop_tables(engine: Engine, config: RepoConfig, view: FeatureView) -> None:
    """Drop the collections of every version of a view, live or kept, and the aliases to them."""
    live = engine.aliases()
    tables = tables_of(live, config, view)
    engine.switch({alias: None for alias in tables if alias in live})
    for alias in tables:
        engine.drop(engine.collections(alias))


def tables_of(aliases: Iterable[str], config: RepoConfig, view: FeatureView) -> set[str]:
    """Return the table of a view, live or not, and the tables of its other versions among the aliases."""
    return {table_id(config, view)} | {alias for alias in aliases if is_table_of(config, view, alias)}


def added_attributes(config: RepoConfig, view: FeatureView) -> dict[str, ValueType]:
    """Return the attributes that a model's users or items got without a training, and their types."""
    if MODEL_TAG not in view.tags or ENTITY_TAG not in view.tags:
        return {}
    added = added_attributes_of(Path(config.repo_path or ".") / "data", view.tags[MODEL_TAG]).now()
    return {name: ValueType[kind] for name, kind in added.get(view.tags[ENTITY_TAG], {}).items()}


def valid_from(config: RepoConfig, view: FeatureView) -> int | None:
    """Return the event timestamp, in microseconds since the epoch, before which rows have expired; None for never."""
    ttl = view_ttl(view)
    return to_microseconds(datetime.now(UTC) - ttl) if ttl and config.online_store.enforce_ttl else None


def refuse_one_name_for_two(entities: Sequence[Entity]) -> None:
    """Raise `InputError` where Feast would keep the last of two entities, and the other's views would lose theirs."""
    keys: dict[str, str] = {}
    for entity in entities:
        if keys.setdefault(entity.name, entity.join_key) != entity.join_key:
            raise InputError(
                f"two entities are called {entity.name!r}, with the join keys {keys[entity.name]!r} and "
                f"{entity.join_key!r}; rename one, or give yours to embedding_views (user_entity, item_entity)"
            )
