"""Vectors by id for `EmbeddingFeatures`, from an artifact or from the live version."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from feast.types import String

from feast_embeddings.artifact import Artifact, Entity, embedding_matrix, load_artifact
from feast_embeddings.model.sides import model_view
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import Repo

__all__ = ["Looked", "VectorSource", "open_source"]


class Looked(NamedTuple):
    """Vectors of ids, float32 (n, dim), and whether each has one, all of one version."""

    vectors: npt.NDArray[np.float32]
    found: npt.NDArray[np.bool_]
    version: str
    space: str


class VectorSource(Protocol):
    """A source of vectors; `is_text` is the type of the ids."""

    is_text: bool

    def look_up(self, ids: pa.Array) -> Looked:
        """Return the vectors of these ids, text or int64; the row of an unknown id is undefined."""
        ...


def open_source(repo: str, model: str, entity: Entity, version: str) -> VectorSource:
    """Open the source for a version, or for the ``live`` or ``newest`` one at each look-up.

    Raises:
        InputError: there is no such repo, model or version.
    """
    opened = Repo.open(repo)
    if version == "live":
        return _Live(EmbeddingStore(opened.feature_store(), model), entity)
    return _Artifacts(opened.data, model, entity, None if version == "newest" else version)


class _Live:
    def __init__(self, store: EmbeddingStore, entity: Entity) -> None:
        self._look_up = store.user_embeddings if entity == "user" else store.item_embeddings
        self.is_text = model_view(store.feature_store, store.model, entity).entity_columns[0].dtype == String

    def look_up(self, ids: pa.Array) -> Looked:
        known = ids.is_valid().to_numpy(zero_copy_only=False)
        answer = self._look_up(ids.drop_null().to_pylist())
        vectors = np.empty((len(ids), answer.vectors.shape[1]), dtype=np.float32)
        vectors[known] = answer.vectors
        found = np.zeros(len(ids), dtype=np.bool_)
        found[known] = answer.found
        return Looked(vectors, found, answer.version, answer.space)


class _Artifacts:
    def __init__(self, data: Path, model: str, entity: Entity, version: str | None) -> None:
        self._data = data
        self._model = model
        self._entity = entity
        self._version = version
        self._load(load_artifact(data, model, version))

    def look_up(self, ids: pa.Array) -> Looked:
        if self._version is None and (newest := load_artifact(self._data, self._model)) != self._artifact:
            self._load(newest)
        rows = pc.index_in(ids, value_set=self._ids, skip_nulls=True)
        found = rows.is_valid().to_numpy(zero_copy_only=False)
        vectors = self._vectors[rows.fill_null(0).to_numpy()]
        return Looked(vectors, found, self._artifact.manifest.version, self._artifact.manifest.space_id)

    def _load(self, artifact: Artifact) -> None:
        table = artifact.table(self._entity)
        self._artifact = artifact
        self._ids = table[f"{self._entity}_id"].combine_chunks()
        self._vectors = embedding_matrix(table)
        self.is_text = pa.types.is_string(self._ids.type)
