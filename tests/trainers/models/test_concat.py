"""Trainers side by side: the sum of their scores, each turned and folded in by itself."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.models.concat import CONCAT, ConcatConfig, train_concat
from embedding_trainers.trainer import Factors, KnownSide, LogShape, RunOptions
from feast_embeddings.errors import InputError

ONE_THREAD = RunOptions(seed=3, threads=1)
PAIRS = [("softmax", "als"), ("als", "svd"), ("svd", "bpr")]
Floats = npt.NDArray[np.floating[Any]]


@pytest.fixture(scope="module")
def matrix() -> csr_matrix:
    """Small weights of 40 users and 30 items, each with an interaction."""
    rng = np.random.default_rng(0)
    dense = np.where(rng.random((40, 30)) < 0.2, rng.integers(1, 4, (40, 30)), 0).astype(np.float32)
    dense[:, 0], dense[0] = 1, 2
    return csr_matrix(dense)


def trained_alone(config: ConcatConfig, matrix: csr_matrix) -> list[Factors]:
    """What each part gives by itself."""
    return [trainer.train(matrix, own, ONE_THREAD) for trainer, own in config.trainers()]


def scores(factors: Factors) -> Floats:
    found: Floats = factors.user_factors.astype(np.float64) @ factors.item_factors.T + factors.item_bias
    return found


def side(factors: Factors, matrix: csr_matrix, entity: Literal["user", "item"]) -> KnownSide:
    """A side of a training, as its version has it."""
    if entity == "item":
        return KnownSide("item", factors.item_factors, factors.item_bias, matrix.getnnz(axis=0).astype(np.int64))
    return KnownSide("user", factors.user_factors, np.zeros(matrix.shape[0], np.float32), matrix.getnnz(axis=1))


@pytest.mark.parametrize("parts", PAIRS)
def test_scores_are_the_weighted_sum(matrix: csr_matrix, parts: tuple[str, ...]) -> None:
    """Each part's scores, divided by how far they are spread over the items of a user, count by its weight."""
    config = CONCAT.configure({"parts": parts, "dims": (5, 3), "weights": (1, 0.5)})
    found = train_concat(matrix, config, ONE_THREAD)
    alone = [scores(factors) for factors in trained_alone(config, matrix)]
    expected = sum(w * each / each.std(axis=1).mean() for w, each in zip((1, 0.5), alone, strict=True))

    np.testing.assert_allclose(scores(found), expected, rtol=1e-5, atol=1e-5)
    assert found.user_factors.shape == (40, 8)
    for block in (slice(0, 5), slice(5, 8)):  # no side of a part outweighs the other
        lengths = [np.sqrt((f[:, block] ** 2).sum(axis=1).mean()) for f in (found.user_factors, found.item_factors)]
        assert lengths[0] == pytest.approx(lengths[1], rel=1e-4)


@pytest.mark.parametrize("entity", ["user", "item"])
@pytest.mark.parametrize("parts", PAIRS)
def test_each_part_folds_in_by_itself(
    matrix: csr_matrix, parts: tuple[str, ...], entity: Literal["user", "item"]
) -> None:
    """A row folded in is what each part makes of it, by what it knows and the factors of the version."""
    config = CONCAT.configure({"parts": parts, "dims": (5, 3), "weights": (1, 0.5)})
    found = train_concat(matrix, config, ONE_THREAD)
    assert isinstance(found.config, ConcatConfig)
    assert CONCAT.fold_in is not None
    other: Literal["user", "item"] = "item" if entity == "user" else "user"
    rows = (matrix if entity == "user" else matrix.T.tocsr())[:9]
    folded = CONCAT.fold_in(rows, side(found, matrix, other), found.config, ONE_THREAD)

    start, bias = 0, np.zeros(9)
    for number, ((trainer, own), alone) in enumerate(
        zip(config.trainers(), trained_alone(config, matrix), strict=True)
    ):
        own = trainer.complete(own, LogShape.of(matrix))
        assert trainer.fold_in is not None
        expected = trainer.fold_in(rows, side(alone, matrix, other), own, ONE_THREAD)
        scales = np.array(found.config.scales[number]) * np.sqrt((1, 0.5)[number])
        block = folded.factors[:, start : (start := start + own.factors)]
        scale = scales[0 if entity == "user" else 1]
        np.testing.assert_allclose(block, expected.factors * scale, rtol=1e-3, atol=1e-3 * np.abs(block).max())
        bias += expected.bias * scales.prod()
    np.testing.assert_allclose(folded.bias, bias, rtol=1e-5)


@pytest.mark.parametrize("parts", [("softmax", "als"), ("als", "svd")])
def test_a_user_of_the_training_gets_the_trained_vector(matrix: csr_matrix, parts: tuple[str, ...]) -> None:
    """As far as each part's own does."""
    found = train_concat(matrix, CONCAT.configure({"parts": parts, "dims": (5, 3)}), ONE_THREAD)
    assert isinstance(found.config, ConcatConfig)
    assert CONCAT.fold_in is not None
    folded = CONCAT.fold_in(matrix, side(found, matrix, "item"), found.config, ONE_THREAD)

    np.testing.assert_allclose(folded.factors, found.user_factors, rtol=1e-2, atol=1e-3)


def test_two_parts_with_a_bias_are_refused(matrix: csr_matrix) -> None:
    """A version has one bias for an item, and folding in needs that of the part."""
    config = CONCAT.configure({"parts": "softmax,bpr", "factors": 4})
    with pytest.raises(InputError, match="parts 'softmax' and 'bpr' both give items a bias"):
        train_concat(matrix, config, ONE_THREAD)


def test_a_device_that_a_part_cannot_use_is_refused(matrix: csr_matrix) -> None:
    """The options go to the parts."""
    with pytest.raises(InputError, match="softmax"):
        train_concat(matrix, ConcatConfig(), replace(ONE_THREAD, device="gpu"))


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, (128, (64, 64))),
        ({"factors": "5"}, (5, (3, 2))),
        ({"dims": "64, 256"}, (320, (64, 256))),
        ({"dims": (2, 3), "factors": 5}, (5, (2, 3))),
    ],
)
def test_dims(given: dict[str, Any], expected: tuple[int, tuple[int, ...]]) -> None:
    """They are given, or equal shares of the factors."""
    config = CONCAT.configure(given)

    assert (config.factors, config.dims) == expected
    assert config.blocks == dict(zip(("softmax", "als"), expected[1], strict=True))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"parts": "als"}, "parameter parts=als: expected two or more other trainers, each once"),
        ({"parts": "als,als"}, "parts=als, als: expected two or more"),
        ({"parts": "als,concat"}, "parts=als, concat: expected two or more"),
        ({"parts": "als,nothing"}, "no trainer 'nothing'; installed are "),
        ({"dims": "1,2,3"}, "parameter dims: expected 2 values, one for each of softmax, als; got 3"),
        ({"dims": "8,x"}, "parameter dims.1='x'"),
        ({"dims": "4096,1"}, "parameter dims: they add up to 4097; expected at most 4096"),
        ({"dims": "8,0"}, "part 'als': parameter factors=0"),
        ({"factors": 9, "dims": "4,4"}, "factors=9, but dims add up to 8; give one of them, or both"),
        ({"factors": 1}, "factors=1: expected at least 1 for each of 2 parts"),
        ({"weights": "1,0"}, "parameter weights.1='0'"),
        ({"weights": "1e300,1"}, "parameter weights.0='1e300': Input should be less than or equal to 10000"),
        ({"weights": "1,1e-100"}, "parameter weights.1='1e-100'"),
        ({"settings": {"svd": {}}}, "parameter settings.svd: expected one of the parts, softmax, als"),
        ({"settings": {"als": {"alfa": 1}}}, "part 'als': no parameter 'alfa'"),
        ({"settings": {"als": {"factors": 1}}}, "settings.als.factors: write it as one of dims"),
    ],
)
def test_what_does_not_fit(given: dict[str, Any], message: str) -> None:
    """It is refused before anything is trained, in one line."""
    with pytest.raises(InputError) as error:
        CONCAT.configure(given)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
