"""A text alone as the content of an item: what a search by text looks for.

The plugin finds it by the entry-point group ``feast_embeddings.fold_in``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from embedding_trainers.content.model import ContentModel
from embedding_trainers.content.spec import Kind
from feast_embeddings.artifact import Artifact
from feast_embeddings.errors import ArtifactError

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["TextEncoder"]

_Vector = npt.NDArray[np.float32]

_TYPES: dict[Kind, pa.DataType] = {
    "text": pa.large_string(),
    "category": pa.large_string(),
    "list": pa.list_(pa.large_string()),
    "number": pa.float64(),
    "vector": pa.list_(pa.float32()),
    "image": pa.large_binary(),
}


class TextEncoder:
    """The encoders and the map of a version, loaded once for any number of texts.

    Args:
        artifact: a version that was trained with content.

    Attributes:
        columns: the items' text columns.

    Raises:
        ArtifactError: the version has no content, or it is damaged.
        InputError: an encoder is not installed.
    """

    def __init__(self, artifact: Artifact) -> None:
        if (path := artifact.content()) is None:
            raise ArtifactError(f"version {artifact.manifest.version} has no content; train with --content auto")
        self._model = ContentModel.load(path)
        features = self._model.features
        self._kinds = {c.name: e.kind for c, e in zip(features.columns, features.encoders, strict=True)}
        self.columns = [name for name, kind in self._kinds.items() if kind == "text"]
        self._nothing = features.of(self._row(None))
        self._of_nothing = self._of(self._nothing)

    def vectors(self, text: str) -> tuple[_Vector, _Vector] | None:
        """The vectors of an item whose only content is this text, in all text columns, and of one without content.

        Each is float32, shape (dim,); None if they are the same.
        """
        features = self._model.features.of(self._row(text))
        if not (features != self._nothing).nnz:
            return None
        return self._of(features), self._of_nothing

    def _of(self, features: csr_matrix) -> _Vector:
        return np.asarray(self._model.prior.of(features).factors[0])

    def _row(self, text: str | None) -> pa.Table:
        def column(kind: Kind) -> Any:
            return pa.array([text if kind == "text" else None], _TYPES[kind])

        return pa.table({name: column(kind) for name, kind in self._kinds.items()})
