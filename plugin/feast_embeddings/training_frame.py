"""Training frames: to each labelled row, the embeddings that existed at its time."""

from __future__ import annotations

import pandas as pd
from feast import FeatureStore

from feast_embeddings.artifact import ENTITIES
from feast_embeddings.errors import InputError
from feast_embeddings.publish import model_view

__all__ = ["training_frame"]

_ROW = "__row"
_FEATURES = ("embedding", "version", "space")


def training_frame(feature_store: FeatureStore, model: str, entity_df: pd.DataFrame) -> pd.DataFrame:
    """Join embeddings to labelled rows, point in time.

    A row gets the newest version whose training data ends at or before the row's ``event_timestamp``, so no
    vector knows anything of its row's future. Versions come from the artifacts on disk; nothing has to be live.

    Args:
        entity_df: rows with ``event_timestamp`` and ``user_id``, ``item_id`` or both; other columns are kept.

    Returns:
        The same rows in the same order under the same index, with ``user_embedding`` (float32 array of length
        dim, None where no version existed yet or the user was not in it), ``user_version``, ``user_space`` for
        users, and likewise for items. Vectors of different spaces cannot go into one model together.

    Raises:
        InputError: a needed column is missing, or one that would be added is there already.
    """
    columns = list(entity_df.columns)
    entities = [entity for entity in ENTITIES if f"{entity}_id" in columns]
    if "event_timestamp" not in columns or not entities:
        raise InputError(
            "a training frame needs the column event_timestamp and user_id, item_id or both; "
            f"got the columns {', '.join(map(str, columns)) or 'none'}"
        )
    added = {
        f"{view.name}__{feature}": f"{entity}_{feature}"
        for entity in entities
        if (view := model_view(feature_store, model, entity))
        for feature in _FEATURES
    }
    if taken := sorted({*added.values(), _ROW} & set(columns)):
        raise InputError(f"the column {taken[0]!r} is there already; rename or drop it")
    try:
        times = pd.to_datetime(entity_df["event_timestamp"], utc=True)
    except (ValueError, TypeError) as error:
        raise InputError(f"the column event_timestamp holds something that is not a time: {error}") from None
    if times.isna().any():
        raise InputError(f"event_timestamp is empty in {int(times.isna().sum())} of {len(times)} rows")
    keys = pd.DataFrame(
        {
            _ROW: range(len(entity_df)),
            # Microseconds: nanoseconds break Feast's DuckDB path.
            "event_timestamp": times.astype("datetime64[us, UTC]").to_numpy(),
            **{f"{entity}_id": entity_df[f"{entity}_id"].to_numpy() for entity in entities},
        }
    )
    keys["event_timestamp"] = keys["event_timestamp"].dt.tz_localize("UTC")
    joined = feature_store.get_historical_features(
        entity_df=keys, features=[name.replace("__", ":", 1) for name in added], full_feature_names=True
    ).to_df()
    # DuckDB keeps every row but not their order.
    joined = joined.sort_values(_ROW, ignore_index=True)
    frame = entity_df.copy()
    for source, target in added.items():
        frame[target] = joined[source].to_numpy()
    return frame
