"""Interactions that Feast pushes: rows of a view of `feast_embeddings.interactions_view` go to the event log."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from feast import FeatureView, RepoConfig
from feast.infra.online_stores.online_store import OnlineStore
from feast.types import Float64, String

from feast_embeddings._feast.private import ValueProto, feature_store_with
from feast_embeddings.codec.rows import FeastRow
from feast_embeddings.errors import InputError

if TYPE_CHECKING:
    from feast_embeddings import EmbeddingStore

__all__ = ["INTERACTIONS_TAG", "OPTIONAL_COLUMNS", "PushedInteractions", "refuse_read"]

# Of a view whose rows are interactions; its value is the model's name.
INTERACTIONS_TAG = "feast_embeddings.interactions"
# What its features may be besides the item, with the names of `EmbeddingStore.add_interactions`.
OPTIONAL_COLUMNS = {"event": String, "weight": Float64, "event_id": String}


class PushedInteractions:
    """Records rows as `EmbeddingStore.add_interactions` does; safe to use from many threads.

    Args:
        online: the store that Feast gives the rows to, whose connections the checks share.
    """

    def __init__(self, online: OnlineStore) -> None:
        self._online = online
        self._guard = threading.Lock()
        self._stores: dict[str, EmbeddingStore] = {}

    def record(self, config: RepoConfig, view: FeatureView, rows: Sequence[FeastRow]) -> None:
        """Record all rows, or none; when this returns they are on the disk of the repo.

        Raises:
            InputError: one cannot be used; the message names its position and the field.
        """
        self._store(config, view.tags[INTERACTIONS_TAG]).add_interactions(map(_interaction, rows))

    def _store(self, config: RepoConfig, model: str) -> EmbeddingStore:
        # Queries are floors above. They are asked as any caller of the package asks them, when the first row comes.
        from feast_embeddings import EmbeddingStore

        with self._guard:
            if model not in self._stores:
                self._stores[model] = EmbeddingStore(feature_store_with(config, self._online), model)
            return self._stores[model]

    def close(self) -> None:
        """Forget the models; the next row looks them up again."""
        with self._guard:
            self._stores.clear()


def refuse_read(view: FeatureView) -> None:
    """Raise `InputError` for a view of interactions, which has no online values."""
    if model := view.tags.get(INTERACTIONS_TAG):
        raise InputError(
            f"feature view {view.name!r} only takes pushes, so it has no values to read online: ask "
            f"EmbeddingStore.rank, or run feast-embeddings events --model {model}"
        )


def _interaction(row: FeastRow) -> dict[str, Any]:
    key, features, timestamp, _created = row
    values = {name: _plain(value) for name, value in features.items()}
    given = {name: values.pop(name) for name in OPTIONAL_COLUMNS if name in values}
    (item,) = values.values()
    return {"user_id": _plain(key.entity_values[0]), "item_id": item, "timestamp": timestamp, **given}


def _plain(value: ValueProto) -> Any:
    kind = value.WhichOneof("val")
    return None if kind is None else getattr(value, kind)
