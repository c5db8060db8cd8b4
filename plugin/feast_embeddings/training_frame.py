"""Training frames: to each labelled row, the embeddings that existed at its time."""

from __future__ import annotations

import warnings
from typing import Any

import pandas as pd
from feast import FeatureStore, FeatureView
from feast.types import String
from pandas.api.extensions import ExtensionArray
from pandas.api.types import is_datetime64_any_dtype, is_float_dtype

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
    id_names = {entity: f"{entity}_id" for entity in ENTITIES if f"{entity}_id" in columns}
    if "event_timestamp" not in columns or not id_names:
        raise InputError(
            "a training frame needs the column event_timestamp and user_id, item_id or both; "
            f"got the columns {', '.join(map(str, columns)) or 'none'}"
        )
    if not entity_df.columns.is_unique:
        raise InputError(
            f"the column {entity_df.columns[entity_df.columns.duplicated()][0]!r} is there twice; drop one"
        )
    views = {entity: model_view(feature_store, model, entity) for entity in id_names}
    added = {f"{view.name}__{name}": f"{entity}_{name}" for entity, view in views.items() for name in _FEATURES}
    if taken := sorted({*added.values(), _ROW} & set(columns)):
        raise InputError(f"the column {taken[0]!r} is there already; rename or drop it")
    times = entity_df["event_timestamp"]
    try:
        times = pd.to_datetime(times, utc=True, format=None if is_datetime64_any_dtype(times) else "ISO8601")
    except (ValueError, TypeError) as error:
        raise InputError(f"the column event_timestamp holds something that is not an ISO 8601 time: {error}") from None
    if times.isna().any():
        raise InputError(f"event_timestamp is empty in {int(times.isna().sum())} of {len(times)} rows")
    keys = pd.DataFrame(
        {
            _ROW: range(len(entity_df)),
            # Microseconds: nanoseconds break Feast's DuckDB path.
            "event_timestamp": times.dt.as_unit("us").reset_index(drop=True),
            **{name: _ids(entity_df[name], views[entity], name) for entity, name in id_names.items()},
        }
    )
    with warnings.catch_warnings():
        # Feast turns deprecation warnings on; this one is between its own dependencies, ibis and duckdb.
        warnings.filterwarnings("ignore", message="fetch_arrow_table", category=DeprecationWarning)
        joined = feature_store.get_historical_features(
            entity_df=keys, features=[name.replace("__", ":", 1) for name in added], full_feature_names=True
        ).to_df()
    # DuckDB keeps every row but not their order.
    joined = joined.sort_values(_ROW, ignore_index=True)
    frame = entity_df.copy()
    for source, target in added.items():
        frame[target] = joined[source].to_numpy()
    return frame


def _ids(column: pd.Series[Any], view: FeatureView, name: str) -> ExtensionArray:
    """Ids in the type that the model's ids have: whole numbers may come as text (from a CSV file) and the reverse."""
    is_text = view.entity_columns[0].dtype == String
    if is_float_dtype(column.dtype):
        raise InputError(f"{name} holds real numbers; expected {'text' if is_text else 'whole numbers'}")
    try:
        return column.astype("string" if is_text else "Int64").array
    except (ValueError, TypeError) as error:
        raise InputError(f"{name}: the ids of this model are whole numbers: {error}") from None
