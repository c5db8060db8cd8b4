"""Training frames: join to each labelled row the embeddings that existed at its time."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from feast import FeatureStore, FeatureView, FileSource
from feast.types import String
from pandas.api.types import is_datetime64_any_dtype, is_numeric_dtype

from feast_embeddings.artifact import ENTITIES, Entity, list_artifacts, load_artifact
from feast_embeddings.artifact.history import folder_of_source, history_folder
from feast_embeddings.artifact.ids import id_column_in, id_names, typed_ids
from feast_embeddings.errors import ArtifactError, InputError, VersionMismatchError
from feast_embeddings.model.sides import join_keys, missing_side, model_views
from feast_embeddings.model.views import reads_given_source
from feast_embeddings.offline.as_of_join import JoinedEmbeddings, Selection, join_as_of

__all__ = ["TrainingVectors", "label_columns", "training_frame", "training_vectors"]

Vectors = Literal["lists", "columns"]


@dataclass(frozen=True)
class TrainingVectors:
    """Vectors for labelled rows, in the order of the rows.

    Attributes:
        sides: by ``user``, ``item`` or both: `vectors` (float32, shape (n, dim), NaN where none existed yet),
            `found`, `versions` and `spaces`.
    """

    sides: dict[Entity, JoinedEmbeddings]

    @property
    def matrix(self) -> npt.NDArray[np.float32]:
        """The vectors as float32, shape (n, dim of all sides): user, then item; its columns are `columns`."""
        parts = [side.vectors for side in self.sides.values()]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    @property
    def columns(self) -> list[str]:
        """Names of the columns of the matrix: ``user_embedding_0`` and so on."""
        return [f"{entity}_embedding_{i}" for entity, side in self.sides.items() for i in range(side.vectors.shape[1])]


def label_columns(feature_store: FeatureStore, model: str, version: str | None = None) -> dict[Entity, tuple[str, ...]]:
    """Return the names that columns of ids may have in labels: the join key, and the name in the version's log."""
    keys = join_keys(model_views(feature_store, model))
    try:
        data = Path(feature_store.config.repo_path or ".") / "data"
        manifest = load_artifact(data, model, version).manifest
        own = {entity: manifest.log_column(entity) for entity in ENTITIES}
    except (InputError, ArtifactError):  # the history may be whole without it
        own = dict.fromkeys(ENTITIES)
    return {entity: id_names(entity, own[entity], keys[entity]) for entity in ENTITIES}


def training_vectors(
    feature_store: FeatureStore,
    model: str,
    entity_df: pd.DataFrame,
    *,
    version: str | None = None,
    space: str | None = None,
    allow_mixed_spaces: bool = False,
) -> TrainingVectors:
    """Find the embeddings of labelled rows, point in time.

    A row gets the newest version whose training data ends at or before the row's ``event_timestamp``, so no
    vector knows anything of its row's future. Versions come from the history on disk; nothing has to be live.
    The results equal the results of Feast's ``get_historical_features``; `as_of_join` explains why that is not
    used. Where `embedding_views` got a source, that join reads its table, which has the versions that were published;
    this one still reads those on disk, published or not.

    Args:
        entity_df: n rows with ``event_timestamp`` (without a zone it is UTC) and the join keys of users, items or both:
            ``user_id`` and ``item_id``, unless the repo gave its own entities. They may also be called as in the log
            of the version, by default of the newest.
        version: use only this version; rows before its time get nothing.
        space: use only versions of this space.
        allow_mixed_spaces: return vectors of several spaces if the rows' times need it.

    Raises:
        InputError: a needed column is missing or invalid, or there is no such version or space.
        MissingSideError: the model has neither users nor items for the columns.
        VersionMismatchError: the vectors would be of several spaces.
        ArtifactError: the history is missing or damaged.
    """
    if not isinstance(entity_df, pd.DataFrame):
        raise InputError(f"labels must be a pandas DataFrame, got {type(entity_df).__name__}; convert them to one")
    columns = list(entity_df.columns)
    names = label_columns(feature_store, model, version)
    found = {entity: id_column_in(columns, names[entity], "the table of labels") for entity in ENTITIES}
    id_columns = {entity: name for entity, name in found.items() if name is not None}
    if "event_timestamp" not in columns or not id_columns:
        raise InputError(
            f"a training frame needs the column event_timestamp and {', '.join(map(' or '.join, names.values()))} "
            f"or both; got the columns {', '.join(map(str, columns)) or 'none'}"
        )
    if not entity_df.columns.is_unique:
        raise InputError(f"the column {entity_df.columns[entity_df.columns.duplicated()][0]!r} occurs twice; drop one")
    entities = list(id_columns)
    registered = model_views(feature_store, model)
    if not any(entity in registered for entity in entities):
        raise missing_side(model, entities[0])
    # Labels are of users and items, also where a model has vectors of one of them only.
    views = {entity: registered[entity] for entity in entities if entity in registered}
    folder = Path(feature_store.config.repo_path or ".") / "data" / model
    histories = {entity: _history(view, folder, entity) for entity, view in views.items()}
    selection = Selection(version, space)
    _check_selection(next(iter(histories.values())), model, selection)
    times = _microseconds(entity_df["event_timestamp"])
    sides = {
        entity: join_as_of(
            histories[entity],
            entity,
            typed_ids(entity_df[id_columns[entity]], view.entity_columns[0].dtype == String, id_columns[entity]),
            times,
            ttl=view.ttl,
            dim=next(field.vector_length for field in view.features if field.name == "embedding"),
            selection=selection,
        )
        for entity, view in views.items()
    }
    if not allow_mixed_spaces:
        _check_one_space(sides)
    return TrainingVectors(sides)


def training_frame(
    feature_store: FeatureStore,
    model: str,
    entity_df: pd.DataFrame,
    *,
    vectors: Vectors = "lists",
    version: str | None = None,
    space: str | None = None,
    allow_mixed_spaces: bool = False,
) -> pd.DataFrame:
    """Join embeddings to labelled rows, point in time; see `training_vectors` for the choice of vectors and the errors.

    Args:
        entity_df: may have other columns too, which are kept.
        vectors: as one column of ``lists``, ``user_embedding`` (float32 array of length dim, None where no version
            existed yet or the user was not in it), or as ``columns`` of float32, ``user_embedding_0`` and so on (NaN
            there), as scikit-learn and XGBoost take it.

    Returns:
        The same rows in the same order under the same index, with the vectors, ``user_version`` and ``user_space``
        (None where there is no vector) for users, and likewise for items.

    Raises:
        InputError: also if a column to add exists already.
    """
    if vectors not in ("lists", "columns"):
        raise InputError(f"vectors={vectors!r}: expected 'lists' or 'columns'")
    joined = training_vectors(
        feature_store, model, entity_df, version=version, space=space, allow_mixed_spaces=allow_mixed_spaces
    )
    added: list[pd.DataFrame] = []
    for entity, side in joined.sides.items():
        if vectors == "columns":
            names = TrainingVectors({entity: side}).columns
            added.append(pd.DataFrame(side.vectors, columns=names, index=entity_df.index, copy=False))
        lists = {f"{entity}_embedding": _lists(side)} if vectors == "lists" else {}
        texts = {f"{entity}_version": side.versions, f"{entity}_space": side.spaces}
        added.append(pd.DataFrame({**lists, **texts}, index=entity_df.index, dtype=object))
    if taken := sorted({name for part in added for name in part.columns} & set(entity_df.columns)):
        raise InputError(f"the column {taken[0]!r} exists already; rename or drop it")
    return pd.concat([entity_df, *added], axis=1)


def _history(view: FeatureView, model_folder: Path, entity: Entity) -> Path:
    if reads_given_source(view):
        return history_folder(model_folder, entity)
    if not isinstance(view.batch_source, FileSource):
        raise InputError(
            f"feature view {view.name!r} reads from {type(view.batch_source).__name__}, not from the history that "
            "training writes; use Feast's get_historical_features"
        )
    return folder_of_source(view.batch_source.path)


def _check_selection(history: Path, model: str, selection: Selection) -> None:
    if selection.version is not None and selection.space is not None:
        raise InputError("name a version or a space, not both")
    # The history is <data>/<model>/history/users.
    data = history.parents[2]
    if selection.version is not None:
        load_artifact(data, model, selection.version)
    if selection.space is not None:
        spaces = sorted({artifact.manifest.space_id for artifact in list_artifacts(data, model)})
        if selection.space not in spaces:
            raise InputError(f"model {model!r} has no space {selection.space!r}; it has {', '.join(spaces[-5:])}")


def _check_one_space(sides: dict[Entity, JoinedEmbeddings]) -> None:
    counts = sum((Counter(side.spaces[side.found].tolist()) for side in sides.values()), Counter[str]())
    if len(counts) > 1:
        listed = ", ".join(f"{space} ({count} vectors)" for space, count in counts.most_common(5))
        raise VersionMismatchError(
            f"these rows would get vectors of {len(counts)} spaces, {listed}, which one model cannot use together; "
            "select one (space, --space), or allow several (allow_mixed_spaces, --allow-mixed-spaces) "
            "if you keep them apart"
        )


def _microseconds(times: pd.Series[Any]) -> npt.NDArray[np.int64]:
    if is_numeric_dtype(times.dtype):
        raise InputError(f"event_timestamp holds numbers ({times.dtype}); expected times, or text in ISO 8601")
    try:
        times = pd.to_datetime(times, utc=True, format=None if is_datetime64_any_dtype(times) else "ISO8601")
    except (ValueError, TypeError) as error:
        # Without pandas' advice to its own callers.
        reason = str(error).partition(". You might")[0]
        raise InputError(f"the column event_timestamp has a value that is not an ISO 8601 time: {reason}") from None
    if times.isna().any():
        raise InputError(f"event_timestamp is empty in {int(times.isna().sum())} of {len(times)} rows")
    return np.asarray(times.dt.as_unit("us").astype("int64"), dtype=np.int64)


def _lists(side: JoinedEmbeddings) -> npt.NDArray[np.object_]:
    lists: npt.NDArray[np.object_] = np.empty(len(side.found), dtype=object)
    lists[:] = list(side.vectors)
    lists[~side.found] = None
    return lists
