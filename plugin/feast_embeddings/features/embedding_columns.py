"""A scikit-learn transformer from vectors to few columns, for models that split on one at a time, as trees do.

Needs the extra ``analysis``.
"""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import numpy.typing as npt

from feast_embeddings.errors import InputError, MissingExtraError, import_extra

try:
    from sklearn.base import BaseEstimator, TransformerMixin
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError:
    raise MissingExtraError("EmbeddingColumns", "analysis", "scikit-learn") from None

__all__ = ["EmbeddingColumns"]

_STARTS = 4


class EmbeddingColumns(TransformerMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """Turns vectors into principal components and distances to centroids of k-means.

    Both are fitted on the rows of `fit` alone, so that in a pipeline nothing of test rows leaks into them. A row with a
    NaN, as of an id without a vector, is left out of the fit and gets NaN. Its pickle holds its parameters and fitted
    arrays, no estimators of scikit-learn. The vectors of `transform` have to be of the space of those of `fit`:
    `EmbeddingFeatures` and training frames see to that.

    Args:
        pca: how many principal components of the vectors; 0 for none.
        centroids: to how many centroids of the vectors' directions to give distances; 0 for none.
        seed: of k-means.

    Attributes:
        mean_, components_: float64, shapes (dim,) and (pca, dim).
        centroids_: float64, shape (centroids, dim).

    Stability: provisional, see docs/compatibility.md.
    """

    def __init__(self, pca: int = 8, centroids: int = 10, *, seed: int = 0) -> None:
        self.pca = pca
        self.centroids = centroids
        self.seed = seed

    def fit(self, X: Any, y: object = None) -> Self:  # noqa: N803 (scikit-learn's name)
        """Fit components and centroids.

        Args:
            X: vectors, shape (n, dim): a DataFrame or array.

        Raises:
            InputError: a parameter is below 0, both are 0, or there are too few rows or columns for them.
        """
        for name in ("pca", "centroids"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 0:
                raise InputError(f"{name} has to be a whole number of 0 or more, got {value!r:.80}")
        if self.pca + self.centroids == 0:
            raise InputError("pca and centroids are both 0, which gives no columns; set one")
        x = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan")
        x = x[~np.isnan(x).any(axis=1)]
        if self.pca > min(x.shape):
            raise InputError(
                f"pca={self.pca} takes as many rows without NaN and columns, got {len(x)} and {x.shape[1]}"
            )
        if self.centroids > (distinct := len(np.unique(x, axis=0))):
            raise InputError(f"centroids={self.centroids} takes as many distinct vectors, got {distinct}")
        self.mean_, self.components_ = np.zeros(x.shape[1]), np.empty((0, x.shape[1]))
        self.centroids_ = np.empty((0, x.shape[1]))
        threads = import_extra("threadpoolctl", "EmbeddingColumns", "analysis")
        with threads.threadpool_limits(1):  # sums in one order
            if self.pca:
                found = PCA(self.pca, svd_solver="full").fit(x)
                self.mean_, self.components_ = found.mean_, found.components_
            if self.centroids:
                means = KMeans(self.centroids, n_init=_STARTS, random_state=self.seed).fit(_unit(x))
                self.centroids_ = means.cluster_centers_
        return self

    def transform(self, X: Any) -> npt.NDArray[np.float64]:  # noqa: N803
        """Return the components and the Euclidean distances of the directions to the centroids, 0 to 2.

        Returns:
            float64, shape (n, pca + centroids); a DataFrame after ``set_output``.
        """
        check_is_fitted(self)
        x = validate_data(self, X, dtype=np.float64, ensure_all_finite="allow-nan", reset=False)
        unit = _unit(x)
        squares = (unit**2).sum(axis=1)[:, None] + (self.centroids_**2).sum(axis=1) - 2 * unit @ self.centroids_.T
        return np.hstack([(x - self.mean_) @ self.components_.T, np.sqrt(np.maximum(squares, 0))])

    def get_feature_names_out(self, input_features: object = None) -> npt.NDArray[np.object_]:
        """Return ``embedding_pca_0`` and so on, then ``embedding_centroid_0`` and so on."""
        check_is_fitted(self)
        parts = ("pca", self.components_), ("centroid", self.centroids_)
        return np.array([f"embedding_{name}_{i}" for name, rows in parts for i in range(len(rows))], dtype=object)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.transformer_tags.preserves_dtype = []
        return tags


def _unit(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    norms = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norms > 0, norms, 1)
