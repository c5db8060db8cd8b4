"""The feature view through which Feast's push source takes interactions of a model."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from feast import FeatureView, Field, PushSource
from feast.data_source import DataSource

from feast_embeddings.errors import InputError
from feast_embeddings.model.views import MODEL_TAG, EmbeddingViews, check_source, id_name
from feast_embeddings.online.interactions import INTERACTIONS_TAG, OPTIONAL_COLUMNS

__all__ = ["interactions_view"]


def interactions_view(
    views: EmbeddingViews, source: DataSource, *, name: str = "", columns: Iterable[str] = tuple(OPTIONAL_COLUMNS)
) -> FeatureView:
    """Make a feature view with a push source: what is pushed is recorded as by `EmbeddingStore.add_interactions`.

    A pushed frame has the join keys of the model's users and items, the event timestamp, and all of `columns`. Feast
    passes nothing else on. A null is a weight of 1, no type of event, or no event id.

    Args:
        views: of the model, which has users and items.
        source: the table of interactions in the repo's offline store, such as the log of the training. Feast wants one
            for each push source; pushes to the offline store are appended to it. Its timestamp field is the name of the
            column of event timestamps.
        name: of the view and of the push source; by default ``<model>_interactions``.
        columns: of ``event``, ``weight`` and ``event_id``, those that the pushed frames have.

    Raises:
        InputError: the model has no users or no items, a column is not one of the three, or the name of a join key; or
            the source cannot be used.

    Stability: provisional, see docs/compatibility.md.
    """
    model = views.service.tags[MODEL_TAG]
    users, items = views.user_embeddings, views.item_embeddings
    if users is None or items is None or views.user is None:
        missing = "users" if users is None else "items"
        raise InputError(f"interactions_view: model {model!r} has no {missing}, so it cannot take interactions")
    given = list(columns)
    if isinstance(columns, str) or len(set(given)) < len(given) or not set(given) <= OPTIONAL_COLUMNS.keys():
        raise InputError(
            f"interactions_view: columns={columns!r:.80}: expected some of {', '.join(OPTIONAL_COLUMNS)}, each once"
        )
    user_id, item_id = id_name(users), id_name(items)
    if user_id == item_id or {user_id, item_id} & OPTIONAL_COLUMNS.keys():
        raise InputError(
            f"interactions_view: users and items of model {model!r} have the join keys {user_id!r} and {item_id!r}; "
            f"they need two, other than {', '.join(OPTIONAL_COLUMNS)}"
        )
    check_source(f"interactions_view of model {model!r}", source)
    name = name or f"{model}_interactions"
    (user_type,) = (column.dtype for column in users.entity_columns if column.name == user_id)
    (item_type,) = (column.dtype for column in items.entity_columns if column.name == item_id)
    about: dict[str, Any] = {"tags": {INTERACTIONS_TAG: model}, "owner": users.owner}
    return FeatureView(
        name=name,
        entities=[views.user],
        schema=[
            Field(name=user_id, dtype=user_type),
            Field(name=item_id, dtype=item_type),
            *(Field(name=column, dtype=OPTIONAL_COLUMNS[column]) for column in given),
        ],
        source=PushSource(name=name, batch_source=source, **about),
        # Rows of the table are no events, so materialization leaves the view out.
        online=False,
        description=f"Takes interactions of model {model}, which change its next answers",
        **about,
    )
