"""Encoders of columns, each against plain NumPy or scikit-learn."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from embedding_trainers.content import encoder as encoders
from embedding_trainers.content.encoder import Encoder, find_encoder, known_encoders, make_encoder, state_hash
from embedding_trainers.content.encoders import tfidf, values
from embedding_trainers.content.encoders.tfidf import TfidfEncoder
from embedding_trainers.content.encoders.values import CategoryEncoder, ListEncoder, NumberEncoder, PrecomputedEncoder
from embedding_trainers.content.spec import ContentColumn
from embedding_trainers.content.testing import EncoderTests
from feast_embeddings.demo import generate_shop
from feast_embeddings.errors import EmbeddingsError, InputError


class TestEveryEncoder(EncoderTests):
    """Those that come with the package and load nothing."""

    @pytest.fixture(autouse=True, params=["category", "list", "number", "precomputed", "tfidf"])
    def _each(self, request: pytest.FixtureRequest) -> None:
        self.encoder = find_encoder(request.param)


def encode(encoder: Encoder, column: Any) -> Any:
    """Fit on a column and encode it."""
    chunked = column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])
    encoder.fit(chunked)
    encoded = encoder.encode(chunked)
    return encoded.toarray() if hasattr(encoded, "toarray") else encoded


def test_tfidf_is_that_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Products of rows are those of TfidfVectorizer, whatever the blocks: only the order of columns differs."""
    titles = [*generate_shop().items["title"].to_pylist(), "", None, "Élan élan vital", "unheard-of"]
    expected = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True).fit_transform(
        [title or "" for title in titles]
    )
    monkeypatch.setattr(tfidf, "_BLOCK_ROWS", 37)

    encoded = encode(TfidfEncoder(), pa.array(titles))

    assert encoded.shape == expected.shape
    np.testing.assert_allclose(encoded @ encoded.T, (expected @ expected.T).toarray(), atol=1e-5)


def test_tfidf_keeps_the_most_frequent_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    """The size is bounded, and what most rows have stays."""
    monkeypatch.setattr(tfidf, "_MOST_TERMS", 2)

    encoded = encode(TfidfEncoder(), pa.array(["red", "red", "red", "blue", "blue", "blue", "green", "green"]))

    assert encoded.shape == (8, 2)
    assert (encoded.sum(axis=1) > 0).tolist() == [True] * 6 + [False] * 2


def test_categories(monkeypatch: pytest.MonkeyPatch) -> None:
    """Frequent values have a column each, rare ones beyond the bound none; numbers and flags are values, too."""
    np.testing.assert_array_equal(
        encode(CategoryEncoder(), pa.array(["b", "a", None, "b"])), [[1, 0], [0, 1], [0, 0], [1, 0]]
    )
    np.testing.assert_array_equal(encode(CategoryEncoder(), pa.array([7, 7, None])), [[1], [1], [0]])
    np.testing.assert_array_equal(encode(CategoryEncoder(), pa.array([True, False, True])), [[1, 0], [0, 1], [1, 0]])
    monkeypatch.setattr(values, "_MOST_VALUES", 1)
    np.testing.assert_array_equal(encode(CategoryEncoder(), pa.array(["b", "c", "c", "a"])), [[0], [1], [1], [0]])


def test_lists() -> None:
    """A row has each of its values once, and length 1; slices of a longer array are lists as others."""
    column = pa.array([["x"], ["a", "b", "a"], [], None, [None, "b"]])[1:]

    encoded = encode(ListEncoder(), column)

    half = np.sqrt(0.5)
    np.testing.assert_allclose(encoded, np.array([[half, half], [0, 0], [0, 0], [0, 1]]), atol=1e-6)


def test_numbers() -> None:
    """A number is between the two quantiles next to it; beyond the ends it is as the end; none has a column."""
    numbers = NumberEncoder()
    encode(numbers, pa.array([float(n) for n in range(10)]))

    encoded = numbers.encode(pa.chunked_array([[2.25, -5.0, 100.0, None, float("nan"), 9.0]]))

    expected = np.zeros((6, 11))
    expected[0, [2, 3]] = 0.75, 0.25
    expected[1, 0] = expected[2, 9] = expected[3, 10] = expected[4, 10] = expected[5, 9] = 1
    np.testing.assert_allclose(encoded, expected, atol=1e-6)
    assert encode(NumberEncoder(), pa.array([5, 5, None])).tolist() == [[1, 0], [1, 0], [0, 1]]
    assert encode(NumberEncoder(), pa.array(["1.5", "2"])).shape == (2, 11)


def test_vectors() -> None:
    """Vectors get length 1, whatever their type; null is zero."""
    for dtype in (pa.list_(pa.float64()), pa.list_(pa.float32(), 2), pa.large_list(pa.int32())):
        column = pa.array([[3, 4], None, [0, 0]], dtype)
        np.testing.assert_allclose(
            encode(PrecomputedEncoder(), column), np.array([[0.6, 0.8], [0, 0], [0, 0]]), atol=1e-6
        )


@pytest.mark.parametrize(
    ("encoder", "column", "message"),
    [
        (TfidfEncoder, pa.array([["a"]]), "expected text in each row, got values of type list"),
        (CategoryEncoder, pa.array([["a"]]), "expected text in each row"),
        (ListEncoder, pa.array(["a"]), "expected lists, got values of type string"),
        (NumberEncoder, pa.array(["1", "old"]), "expected a number in each row, got values of type string: .*'old'"),
        (PrecomputedEncoder, pa.array([["a"]]), "expected vectors, lists of as many numbers"),
        (PrecomputedEncoder, pa.array([[1.0], [1.0, 2.0]]), "expected vectors of one length, got 1 to 2 numbers"),
        (PrecomputedEncoder, pa.array([[1.0], [float("inf")]]), r"expected vectors of finite numbers, got \[inf\]"),
        (PrecomputedEncoder, pa.array([[1.0], [None]]), r"expected vectors of finite numbers, got \[None\]"),
    ],
)
def test_refuses(encoder: type[Encoder], column: pa.Array, message: str) -> None:
    """A column of another kind is refused, with what came."""
    with pytest.raises(InputError, match=message):
        encode(encoder(), column)


def test_vectors_of_another_length() -> None:
    """New rows have vectors as long as those before."""
    precomputed = PrecomputedEncoder()
    precomputed.fit(pa.chunked_array([[[1.0, 2.0]]]))

    with pytest.raises(InputError, match="expected vectors of 2 numbers as before, got 3"):
        precomputed.encode(pa.chunked_array([[[1.0, 2.0, 3.0]]]))


def test_hash() -> None:
    """Equal states have one hash, however their arrays are cut; others have another."""
    whole = pa.array([1, 2, 3])

    assert state_hash(({"a": 1}, {"x": whole[1:]})) == state_hash(({"a": 1}, {"x": pa.array([2, 3])}))
    others = [({"a": 2}, {"x": whole}), ({"a": 1}, {"y": whole}), ({"a": 1}, {"x": whole[:2]}), ({"a": 1}, {})]
    assert len({state_hash(state) for state in [({"a": 1}, {"x": whole}), *others]}) == 5


def test_find() -> None:
    """A kind names its usual encoder, and an encoder itself."""
    assert {"category", "list", "number", "precomputed", "tfidf"} <= set(known_encoders())
    assert find_encoder("text") is find_encoder("tfidf") is TfidfEncoder
    assert find_encoder("vector") is PrecomputedEncoder
    assert isinstance(make_encoder(ContentColumn("x", "list")), ListEncoder)
    with pytest.raises(InputError, match=r"no encoder 'tfdif'; installed are .*; did you mean 'tfidf'\?"):
        find_encoder("tfdif")
    with pytest.raises(InputError, match="--content x:tfidf:m: tfidf takes no model, got 'm'"):
        make_encoder(ContentColumn("x", "tfidf", "m"))


@pytest.mark.parametrize(
    ("brought", "error", "message"),
    [
        (["embedding_trainers.content.spec:KINDS"], EmbeddingsError, "KINDS is not a class of Encoder"),
        (["no_such_module:X"], EmbeddingsError, "the encoder 'mine' .* cannot be loaded: ModuleNotFoundError"),
        (["a:X", "b:X"], InputError, r"several packages bring an encoder 'mine' \(a:X, b:X\)"),
    ],
)
def test_what_others_bring(
    brought: list[str], error: type[EmbeddingsError], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An encoder of another package that cannot be used is named."""
    entries = [EntryPoint("mine", value, "embedding_encoders") for value in brought]
    monkeypatch.setattr(encoders, "entry_points", lambda **_: entries)

    with pytest.raises(error, match=message):
        find_encoder("mine")
