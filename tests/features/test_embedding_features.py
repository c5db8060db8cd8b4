"""The scikit-learn transformer, in the places where people put one."""

from __future__ import annotations

import pickle
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator
from tests.support.publishing import in_space, publish_any
from tests.support.shop import AS_OF, DIM, Shop, apply, write_version

from feast_embeddings import EmbeddingFeatures
from feast_embeddings.artifact import Artifact, embedding_matrix
from feast_embeddings.errors import InputError, UnknownIdError, VersionMismatchError
from feast_embeddings.repo import init_repo

IDS = ["u-3", "no-user", "u-5", "u-3"]


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A published model; the tests that publish others make their own."""
    repo = init_repo(tmp_path_factory.mktemp("served") / "repo")
    artifact = write_version(repo.data)
    shop = Shop(repo, artifact, apply(repo))
    shop.publish()
    return shop


def features(shop: Shop, **parameters: Any) -> EmbeddingFeatures:
    return EmbeddingFeatures(str(shop.repo.path), "shop", **parameters)


def users(artifact: Artifact, *numbers: int) -> npt.NDArray[np.float32]:
    return embedding_matrix(artifact.table("user"))[list(numbers)]


@pytest.mark.parametrize("version", ["live", "newest", "one"])
@pytest.mark.parametrize(
    "ids",
    [
        IDS,
        np.array(IDS),
        np.array(IDS, dtype=object)[:, None],
        pd.Series(IDS, name="user_id"),
        pd.DataFrame({"user_id": pd.Categorical(IDS)}),
        pd.DataFrame({"user_id": pd.array(["u-3", None, "u-5", "u-3"], dtype="string")}),
    ],
    ids=["list", "text array", "column", "series", "categories", "null"],
)
def test_vectors_of_ids_in_any_form(served: Shop, ids: Any, version: str) -> None:
    """Bit for bit what was trained, in the order of the ids, from Qdrant and from the artifact; zeros for unknown."""
    trained = served.artifact.manifest
    transformer = features(served, version=trained.version if version == "one" else version)
    vectors = transformer.fit_transform(ids)
    assert (vectors.dtype, vectors.shape) == (np.float32, (4, DIM))
    assert vectors[[0, 2, 3]].tobytes() == users(served.artifact, 3, 5, 3).tobytes()
    assert not vectors[1].any()
    assert (transformer.version_, transformer.space_) == (trained.version, trained.space_id)


def test_items_without_their_bias(served: Shop) -> None:
    """Items have vectors of the same length as users."""
    vectors = features(served, entity="item").fit_transform(["sku-7"])
    assert vectors.tobytes() == embedding_matrix(served.artifact.table("item"))[7].tobytes()


@pytest.mark.parametrize("version", ["live", "newest"])
def test_policies_for_unknown_ids(served: Shop, version: str) -> None:
    """Zeros, the mean of the distinct ids fitted on, NaN, or an error; a column can say which are unknown."""
    for unknown, expected in [("zero", 0), ("mean", users(served.artifact, 3, 5).mean(axis=0)), ("nan", np.nan)]:
        transformer = features(served, version=version, unknown=unknown, indicator=True).fit(IDS)
        vectors = transformer.transform(["no-user", None, "u-4"])
        np.testing.assert_array_equal(vectors[:2, :DIM], np.broadcast_to(np.float32(expected), (2, DIM)))
        assert vectors[:, DIM].tolist() == [1, 1, 0]
        assert vectors[2, :DIM].tobytes() == users(served.artifact, 4).tobytes()
    strict = features(served, version=version, unknown="error")
    with pytest.raises(UnknownIdError, match="1 of 3 distinct user ids"):
        strict.fit(IDS)
    with pytest.raises(UnknownIdError, match="1 of 1 distinct user ids"):
        strict.fit(["u-3"]).transform([None])
    with pytest.raises(UnknownIdError, match="no mean"):
        features(served, unknown="mean").fit(["no-user"])


def test_a_transform_leaves_no_trace(served: Shop) -> None:
    """What one transform fills in for unknown ids is not there in the next."""
    transformer = features(served, version="newest", unknown="nan").fit(IDS)
    transformer.transform(["no-user", "u-0"])
    assert transformer.transform(["u-0"]).tobytes() == users(served.artifact, 0).tobytes()


def test_names_and_pandas(served: Shop) -> None:
    """Columns are named as in a training frame; set_output gives a DataFrame under the index of the ids."""
    frame = pd.DataFrame({"user_id": IDS}, index=[5, 3, 3, 1])
    transformer = features(served, indicator=True).set_output(transform="pandas").fit(frame)
    names = [*(f"user_embedding_{i}" for i in range(DIM)), "user_unknown"]
    assert transformer.get_feature_names_out().tolist() == names
    assert transformer.feature_names_in_.tolist() == ["user_id"]
    out = transformer.transform(frame)
    assert out.columns.tolist() == names
    assert out.index.tolist() == [5, 3, 3, 1]
    with pytest.raises(ValueError, match="feature names"):
        transformer.transform(frame.rename(columns={"user_id": "customer"}))


def test_in_a_search_over_a_pipeline(served: Shop) -> None:
    """Next to other columns, with either way to name a column, cloned and fitted by a grid search."""
    rng = np.random.default_rng(0)
    ids = rng.choice([f"u-{i}" for i in range(25)], 60)
    frame = pd.DataFrame({"user_id": ids, "item_id": rng.choice(["sku-1", "sku-2"], 60), "age": rng.random(60)})
    columns = ColumnTransformer(
        [
            ("user", features(served), "user_id"),
            ("item", features(served, entity="item", version="newest"), ["item_id"]),
            ("rest", StandardScaler(), ["age"]),
        ]
    )
    pipeline = make_pipeline(columns, LogisticRegression())
    grid = {"columntransformer__user__unknown": ["zero", "mean"], "columntransformer__user__indicator": [True, False]}
    target = users(served.artifact, *range(20))[:, 0] > 0
    labels = [bool(target[int(id[2:])]) if int(id[2:]) < 20 else False for id in ids]
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(frame, labels)
    assert search.best_score_ > 0.7
    fitted = search.best_estimator_[0]
    assert len(fitted.get_feature_names_out()) == fitted.transform(frame).shape[1]
    assert fitted.get_feature_names_out()[0] == "user__user_embedding_0"


def test_it_is_pickled_without_what_it_opened(served: Shop, tmp_path: Path) -> None:
    """A pickled transformer is small, holds no vectors or connections, and works in a process of its own."""
    transformer = features(served, unknown="mean", indicator=True).fit(IDS)
    expected = transformer.transform(IDS)
    raw = pickle.dumps(transformer)
    assert len(raw) < 2000
    assert pickle.loads(raw).transform(IDS).tobytes() == expected.tobytes()  # noqa: S301 (made here)
    joblib.dump(transformer, tmp_path / "model")
    script = (
        "import sys, joblib; t = joblib.load(sys.argv[1]); print(t.transform(sys.argv[2:]).tobytes().hex(), t.version_)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "model", *IDS], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].split() == [expected.tobytes().hex(), transformer.version_]
    fresh = clone(transformer)
    assert fresh.get_params() == transformer.get_params()
    assert set(vars(fresh)) == set(fresh.get_params())
    with pytest.raises(NotFittedError):
        fresh.transform(IDS)


@pytest.mark.parametrize("version", ["live", "newest"])
def test_vectors_of_another_space_are_refused(shop: Shop, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a retrain into a new space a fitted transformer refuses; into the same space it takes the new vectors."""
    shop.publish()
    transformer = features(shop, version=version).fit(["u-3"])
    first = shop.artifact.manifest

    def retrain(seed: int, space: str | None) -> Artifact:
        artifact = write_version(shop.repo.data, seed=seed, as_of=AS_OF + timedelta(days=seed))
        if space is not None:
            artifact = in_space(artifact, space)
        publish_any(shop.feature_store, artifact)
        return artifact

    aligned = retrain(1, first.space_id)
    assert transformer.transform(["u-3"]).tobytes() == users(aligned, 3).tobytes()
    assert transformer.version_ == first.version
    apart = retrain(2, None)
    with pytest.raises(VersionMismatchError, match=rf"space '{first.space_id}' .* version {apart.manifest.version}"):
        transformer.transform(["u-3"])
    pinned = clone(transformer).set_params(version=first.version).fit(["u-3"])
    assert pinned.transform(["u-3"]).tobytes() == users(shop.artifact, 3).tobytes()
    with pytest.raises(VersionMismatchError):
        pinned.set_params(version=apart.manifest.version).transform(["u-3"])


@pytest.mark.parametrize(
    ("parameters", "ids", "message"),
    [
        ({"unknown": "skip"}, IDS, "unknown one of zero, mean, nan, error, got 'user' and 'skip'"),
        ({"entity": "shop"}, IDS, "expected entity user or item"),
        ({"version": "yesterday"}, IDS, "no version 'yesterday'"),
        ({"model": "cars"}, IDS, "'cars"),
        ({"repo": "/nowhere"}, IDS, "not a Feast repo"),
        ({}, [["a", "b"]], r"one column of user ids, got an input of shape \(1, 2\)"),
        ({}, [1.5], r"real numbers, as 1\.5 in row 1; expected text"),
    ],
)
def test_what_cannot_be_used(served: Shop, parameters: dict[str, Any], ids: Any, message: str) -> None:
    """Parameters and inputs that make no sense are errors of ours that say so."""
    with pytest.raises(InputError, match=message):
        features(served).set_params(**parameters).fit(ids)


# Those of scikit-learn's checks that feed it no data, or make no demand on it. The others feed random matrices of
# numbers, where this takes one column of ids; what they look for is in the tests above.
WITHOUT_DATA = {
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_estimators_unfitted",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_no_attributes_set_in_init",
    "check_parameters_default_constructible",
    "check_set_params",
    "check_transformer_n_iter",
    "check_transformers_unfitted",
    "check_valid_tag_types",
}


def test_scikit_learns_own_checks(served: Shop) -> None:
    """Those that need no data pass."""
    done = set()
    for estimator, check in estimator_checks_generator(features(served)):
        name = check.func.__name__
        if name in WITHOUT_DATA:
            check(estimator)
            done.add(name)
    assert done == WITHOUT_DATA


def test_without_scikit_learn(tmp_path: Path) -> None:
    """The error names the extra to install; nothing else of the package needs it."""
    script = (
        "import sys; sys.modules['sklearn'] = None\n"
        "import feast_embeddings; from feast_embeddings import EmbeddingStore\n"
        "from feast_embeddings.errors import MissingExtraError\n"
        "try:\n    feast_embeddings.EmbeddingFeatures\n"
        "except MissingExtraError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "pip install 'feast-embeddings[analysis]'" in done.stdout
