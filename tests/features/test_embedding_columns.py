"""Columns for trees: against scikit-learn's own, of the rows of fit alone, and without NaN in the fit."""

from __future__ import annotations

import pickle
from contextlib import suppress
from unittest import SkipTest

import numpy as np
import pandas as pd
import pytest
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.utils.estimator_checks import estimator_checks_generator

from feast_embeddings import EmbeddingColumns
from feast_embeddings.errors import InputError

RNG = np.random.default_rng(0)
X = RNG.standard_normal((200, 12)).astype(np.float32) * np.arange(1, 13)


def test_the_same_as_scikit_learns() -> None:
    found = EmbeddingColumns(pca=3, centroids=5).fit_transform(X)
    unit = X.astype(np.float64) / np.linalg.norm(X.astype(np.float64), axis=1, keepdims=True)
    distances = KMeans(5, n_init=4, random_state=0).fit(unit).transform(unit)
    components = PCA(3, svd_solver="full").fit_transform(X.astype(np.float64))
    assert found.shape == (200, 8)
    assert np.abs(found[:, :3] - components).max() < 1e-9
    assert np.abs(found[:, 3:] - distances).max() < 1e-6
    assert np.array_equal(EmbeddingColumns(pca=3, centroids=5).fit_transform(X), found)
    assert np.array_equal(EmbeddingColumns(pca=3, centroids=0).fit_transform(X), found[:, :3])
    assert np.array_equal(EmbeddingColumns(pca=0, centroids=5).fit_transform(X), found[:, 3:])


def test_no_row_of_transform_changes_another() -> None:
    fitted = EmbeddingColumns(3, 5).fit(X[:100])
    whole = fitted.transform(X)
    assert np.allclose(fitted.transform(X[150:151]), whole[150:151], rtol=0, atol=1e-12)
    # Rows without a vector are NaN, and leave the fit as it is.
    gappy = np.insert(X[:100], [3, 50], np.nan, axis=0)
    again = EmbeddingColumns(3, 5).fit(gappy)
    assert np.array_equal(again.centroids_, fitted.centroids_)
    assert np.isnan(again.transform(gappy)).all(axis=1).sum() == 2
    assert np.array_equal(again.transform(X), whole)
    loaded = pickle.loads(pickle.dumps(fitted))  # noqa: S301 - ours
    assert np.array_equal(loaded.transform(X), whole)
    assert {type(value).__module__ for value in vars(loaded).values()} <= {"builtins", "numpy"}


def test_names_and_a_pipeline() -> None:
    frame = pd.DataFrame(X, columns=[f"user_embedding_{i}" for i in range(12)])
    columns = EmbeddingColumns(2, 3).set_output(transform="pandas")
    assert list(columns.fit_transform(frame)) == [
        "embedding_pca_0",
        "embedding_pca_1",
        "embedding_centroid_0",
        "embedding_centroid_1",
        "embedding_centroid_2",
    ]
    with pytest.raises(ValueError, match="feature names"):
        columns.transform(frame.rename(columns={"user_embedding_0": "other"}))
    labels = X[:, 0] > 0
    model = make_pipeline(EmbeddingColumns(4, 4), HistGradientBoostingClassifier(random_state=0)).fit(frame, labels)
    assert model.predict_proba(frame).shape == (200, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pca": -1}, "pca has to be a whole number of 0 or more, got -1"),
        ({"centroids": 2.5}, "centroids has to be a whole number"),
        ({"pca": 0, "centroids": 0}, "both 0"),
        ({"pca": 13}, "takes as many rows without NaN and columns, got 200 and 12"),
        ({"centroids": 201}, "takes as many distinct vectors, got 200"),
    ],
)
def test_what_cannot_be_fitted(options: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        EmbeddingColumns(**options).fit(X)


def test_scikit_learns_own_checks() -> None:
    done = 0
    for estimator, check in estimator_checks_generator(EmbeddingColumns(1, 1)):
        with suppress(SkipTest):  # what scikit-learn itself leaves out here
            check(estimator)
            done += 1
    assert done > 30
