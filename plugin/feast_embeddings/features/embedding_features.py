"""A scikit-learn transformer from ids to vectors. Needs the extra ``analysis``."""

from __future__ import annotations

from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from feast_embeddings.artifact import ENTITIES, Entity
from feast_embeddings.artifact.ids import typed_ids
from feast_embeddings.errors import InputError, MissingExtraError, UnknownIdError, VersionMismatchError
from feast_embeddings.features.vector_source import Looked, VectorSource, open_source

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise MissingExtraError("EmbeddingFeatures", "analysis", "scikit-learn") from None

__all__ = ["EmbeddingFeatures"]

Unknown = Literal["zero", "mean", "nan", "error"]


class EmbeddingFeatures(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Turns one column of user or item ids into their vectors.

    `fit` records the vector space; `transform` refuses vectors of another one, whose columns would mean something
    else to the next model. Aligned versions share a space, so after a retrain and publish the fitted pipeline uses the
    newer vectors. Its pickle holds its parameters and fitted attributes, without vectors, connections or keys: where
    it is loaded, `repo` must be a Feast repo with this model (``set_params`` changes it).

    A vector may contain information from after a label. To train on the past, join vectors with
    `EmbeddingStore.training_frame`, or name a `version` from before the labels.

    Args:
        repo: folder of the Feast repo.
        model: name of the model.
        entity: ``user`` or ``item``.
        version: ``live``, the version that Qdrant serves; ``newest``, the newest artifact on disk; or one version.
        unknown: the vector of an id without one, or of a null id: ``zero``, the ``mean`` of the vectors of the
            distinct ids in `fit`, ``nan``, or an ``error`` (`UnknownIdError`).
        indicator: whether to add a last column with 1 for an id without a vector and 0 for others.

    Attributes:
        version_, space_: of the vectors in `fit`.
        dim_: length of a vector.
        mean_: float32, shape (dim,), mean over the distinct known ids in `fit`; NaN if none was known.

    Stability: stable, see docs/compatibility.md.
    """

    def __init__(
        self,
        repo: str,
        model: str,
        entity: Entity = "user",
        *,
        version: str = "live",
        unknown: Unknown = "zero",
        indicator: bool = False,
    ) -> None:
        self.repo = repo
        self.model = model
        self.entity = entity
        self.version = version
        self.unknown = unknown
        self.indicator = indicator

    def fit(self, X: Any, y: object = None) -> Self:  # noqa: N803 (scikit-learn's name)
        """Record the version and space of the vectors of these ids.

        Args:
            X: ids, shape (n, 1) or (n,): a DataFrame, Series, array or list.

        Raises:
            InputError: a parameter or the ids cannot be used.
            UnknownIdError: an id has no vector and `unknown` is ``error``; or no id has one and it is ``mean``.
        """
        if self.entity not in ENTITIES or self.unknown not in get_args(Unknown):
            raise InputError(
                f"expected entity user or item and unknown one of {', '.join(get_args(Unknown))}, "
                f"got {self.entity!r} and {self.unknown!r}"
            )
        source = self._source()
        looked = source.look_up(self._ids(X, source, reset=True).unique())
        known = looked.vectors[looked.found]
        if self.unknown == "mean" and not len(known):
            raise UnknownIdError(f"none of the {self.entity} ids to fit on has a vector, so there is no mean")
        if self.unknown == "error":
            self._check_known(looked)
        self.version_, self.space_, self.dim_ = looked.version, looked.space, known.shape[1]
        self.mean_ = known.mean(axis=0) if len(known) else np.full(self.dim_, np.nan, dtype=np.float32)
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float32]:  # noqa: N803
        """Return the vectors of the ids, in their order.

        Returns:
            float32, shape (n, dim), with `indicator` (n, dim + 1); a DataFrame after ``set_output``.

        Raises:
            VersionMismatchError: the vectors are of a different space than those in `fit`.
            UnknownIdError: an id has no vector and `unknown` is ``error``.
        """
        check_is_fitted(self)
        source = self._source()
        encoded = self._ids(X, source, reset=False).dictionary_encode(null_encoding="encode")
        looked = source.look_up(encoded.dictionary)
        if looked.space != self.space_:
            raise VersionMismatchError(
                f"fitted on vectors of space {self.space_!r} (version {self.version_}), but version {looked.version} "
                f"is of space {looked.space!r}; fit again, or publish or name a version of that space"
            )
        if self.unknown == "error":
            self._check_known(looked)
        vectors = looked.vectors
        vectors[~looked.found] = {"mean": self.mean_, "nan": np.nan}.get(self.unknown, 0)
        if self.indicator:
            vectors = np.concatenate([vectors, ~looked.found[:, None]], axis=1, dtype=np.float32)
        by_row: npt.NDArray[np.float32] = vectors[encoded.indices.to_numpy()]
        return by_row

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:
        """Return ``user_embedding_0`` and so on, as in a training frame; and ``user_unknown``."""
        check_is_fitted(self)
        names = [f"{self.entity}_embedding_{i}" for i in range(self.dim_)]
        return np.array(names + [f"{self.entity}_unknown"] * bool(self.indicator), dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = tags.input_tags.categorical = tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        return {name: value for name, value in state.items() if name != "_opened"}

    def _source(self) -> VectorSource:
        """Open the source once for these parameters; it notices newer versions itself."""
        key = (str(self.repo), self.model, self.entity, self.version)
        opened: tuple[Any, VectorSource] | None = getattr(self, "_opened", None)
        if opened is None or opened[0] != key:
            opened = self._opened = key, open_source(*key)
        return opened[1]

    def _ids(self, ids: Any, source: VectorSource, *, reset: bool) -> pa.Array:
        table: Any = ids.to_frame() if isinstance(ids, pd.Series) else ids
        if not isinstance(table, pd.DataFrame):
            table = np.asarray(table, dtype=None if isinstance(table, np.ndarray) else object)
            table = table[:, None] if table.ndim == 1 else table
        if table.ndim != 2 or table.shape[1] != 1:
            raise InputError(f"expected one column of {self.entity} ids, got an input of shape {table.shape}")
        validate_data(self, table, reset=reset, skip_check_array=True)
        column = table.iloc[:, 0] if isinstance(table, pd.DataFrame) else pd.Series(table[:, 0])
        return typed_ids(column, source.is_text, f"the column of {self.entity} ids")

    def _check_known(self, looked: Looked) -> None:
        if missing := int((~looked.found).sum()):
            raise UnknownIdError(
                f"{missing} of {len(looked.found)} distinct {self.entity} ids have no vector in version "
                f"{looked.version}; drop their rows, or choose another policy for unknown ids"
            )
