"""The prior: its formula, what it finds, and the file that keeps it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix
from tests.trainers.content.conftest import GROUPS, ITEMS, USERS, Decided

from embedding_trainers.content.model import ContentModel
from embedding_trainers.content.prior import Prior, Trained, blend, fit_prior
from embedding_trainers.content.ridge import Ridge
from embedding_trainers.content.spec import ContentColumn
from embedding_trainers.content.trained_rows import choose_strength, with_prior
from embedding_trainers.trainer import Folded, KnownSide, LogShape, RunOptions, find_trainer
from feast_embeddings.errors import ArtifactError

WARM = ITEMS * 9 // 10
COLUMNS = (ContentColumn("title", "text"),)


def fitted(trainer: str, decided: Decided) -> tuple[ContentModel, Trained, Callable[..., Folded]]:
    """A content model of the items that a trainer was trained on."""
    method = find_trainer(trainer)
    matrix = decided.matrix[:, :WARM].tocsr()
    matrix.sort_indices()
    config = method.complete(method.configure({"factors": 16}), LogShape.of(matrix))
    found = method.train(matrix, config, RunOptions(seed=1, threads=1))

    def fold_in(rows: csr_matrix, known: KnownSide) -> Folded:
        assert method.fold_in is not None
        return method.fold_in(rows, known, config, RunOptions(seed=1, threads=1))

    trained = replace(decided.trained(found.item_factors, found.user_factors, WARM), bias=found.item_bias)
    return ContentModel.fitted(decided.table[:WARM], COLUMNS, trained, fold_in, seed=1), trained, fold_in


@pytest.mark.parametrize("trainer", ["als", "bpr", "graph", "softmax", "svd"])
def test_cold_items_are_found(trainer: str, decided: Decided) -> None:
    """Where content decides, each user ranks all cold items of the group they like before all others."""
    model, trained, _ = fitted(trainer, decided)

    said = model.of(decided.table[WARM:])

    scores = trained.known.factors @ said.factors.T + said.bias
    likes = decided.groups[WARM:] == (np.arange(USERS) % GROUPS)[:, None]
    liked, others = np.where(likes, scores, np.inf).min(axis=1), np.where(likes, -np.inf, scores).max(axis=1)
    assert (liked > others).all()


def test_blend() -> None:
    """(n v + τ m) / (n + τ)."""
    own, prior = np.array([[1.0, 0.0]] * 4, np.float32), np.array([[0.0, 1.0]] * 4, np.float32)

    mixed = blend(own, prior, np.array([0, 4, 12, 10**9]), 4.0)

    np.testing.assert_allclose(mixed, np.array([[0, 1], [0.5, 0.5], [0.75, 0.25], [1, 0]]), atol=1e-6)


def test_bias_is_blended() -> None:
    """The bias is one more number of the vector."""
    ridge = Ridge(np.zeros((1, 3), np.float32), np.array([2, 4, 6], np.float32))
    own = Folded(np.zeros((1, 2), np.float32), np.zeros(1, np.float32))

    mixed = Prior(ridge, 1.0, 5.0).mixed(own, np.array([5]), csr_matrix((1, 1), dtype=np.float32))

    np.testing.assert_allclose(mixed.factors, np.array([[1, 2]]))
    np.testing.assert_allclose(mixed.bias, np.array([3]))


def noisy(decided: Decided, noise: float) -> tuple[Trained, csr_matrix, Callable[[csr_matrix, KnownSide], Folded]]:
    """Vectors by group, known exactly; fold-in errs by `noise` ÷ √n. Features name the group."""
    rng = np.random.default_rng(5)
    of_groups, users = rng.standard_normal((GROUPS, 6)), rng.standard_normal((USERS, 6)).astype(np.float32)
    vectors = of_groups[decided.groups].astype(np.float32)
    vectors += rng.standard_normal(vectors.shape).astype(np.float32)  # what content does not say
    features = csr_matrix(np.eye(GROUPS, dtype=np.float32)[decided.groups])
    # The trainer's own vector of a row, found by its number of kept users: rows come with a mark.
    everyone = csr_matrix(np.ones((ITEMS, USERS), np.float32) * (np.arange(ITEMS)[:, None] + 1))
    known = KnownSide("user", users, np.zeros(USERS, np.float32), np.full(USERS, ITEMS))

    def fold_in(rows: csr_matrix, known: KnownSide) -> Folded:
        numbers = rows.data[rows.indptr[:-1]].astype(int) - 1
        n = np.diff(rows.indptr)[:, None]
        drawn = np.random.default_rng(int(n[0, 0])).standard_normal((len(numbers), 6))
        return Folded(
            (vectors[numbers] + noise * drawn / np.sqrt(n)).astype(np.float32), np.zeros(len(numbers), np.float32)
        )

    return Trained(vectors, np.zeros(ITEMS, np.float32), everyone, known), features, fold_in


def test_strength_is_that_of_the_noise(decided: Decided) -> None:
    """With unit variance that content does not say, and σ² ÷ n of fold-in, the best weight is τ = σ²."""
    strengths = [fit_prior(f, t, fold).strength for noise in (1, 2, 4) for t, f, fold in [noisy(decided, noise)]]

    assert strengths == sorted(strengths)
    assert strengths[0] <= 2
    assert 2 <= strengths[1] <= 8
    assert 8 <= strengths[2] <= 32


def test_prior_repeats(decided: Decided) -> None:
    """The same seed gives the same prior to the byte, and so do the choices of another, without fold-in."""
    trained, features, fold_in = noisy(decided, 2)

    one, other = (fit_prior(features, trained, fold_in, seed=7) for _ in range(2))
    like = fit_prior(features, trained, None, like=one)

    assert one.ridge.weights.tobytes() == other.ridge.weights.tobytes() == like.ridge.weights.tobytes()
    assert (one.penalty, one.strength) == (other.penalty, other.strength) == (like.penalty, like.strength)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_few_rows(n: int, decided: Decided) -> None:
    """A side of a few rows has a prior, and so has one whose trainer cannot fold in."""
    trained, features, _ = noisy(decided, 1)
    few = Trained(trained.vectors[:n], trained.bias[:n], trained.interactions[:n], trained.known)

    prior = fit_prior(features[:n], few, None)

    assert np.isfinite(prior.of(features).factors).all()


def test_file(tmp_path: Path, decided: Decided) -> None:
    """What is loaded says the same to the bit, and what the manifest gets is JSON that names the encoder."""
    model, _, _ = fitted("svd", decided)
    model.save(tmp_path / "content.parquet")

    loaded = ContentModel.load(tmp_path / "content.parquet")

    said, again = model.of(decided.table), loaded.of(decided.table)
    assert said.factors.tobytes() == again.factors.tobytes()
    assert said.bias.tobytes() == again.bias.tobytes()
    assert loaded.to_json() == model.to_json()
    (column,) = model.to_json()["columns"]
    assert (column["name"], column["encoder"], len(column["sha256"])) == ("title", "text", 64)


@pytest.mark.parametrize("damage", ["cut", "other state", "no parquet"])
def test_damaged_file(damage: str, tmp_path: Path, decided: Decided) -> None:
    """A damaged file is refused by name."""
    path = tmp_path / "content.parquet"
    model, _, _ = fitted("svd", decided)
    if damage == "other state":
        encoder: Any = model.features.encoders[0]
        said = model.to_json()
        encoder._idf = encoder._idf + 1
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ContentModel, "to_json", lambda self: said)
            model.save(path)
    else:
        model.save(path)
        path.write_bytes(path.read_bytes()[:-100] if damage == "cut" else b"x")

    with pytest.raises(ArtifactError, match=r"content\.parquet"):
        ContentModel.load(path)


def test_blocks(monkeypatch: pytest.MonkeyPatch, decided: Decided) -> None:
    """Rows are mapped a block at a time, with the same result; no rows give none."""
    model, _, _ = fitted("svd", decided)
    whole = model.of(decided.table)
    own = Folded(whole.factors * 2, whole.bias)
    n = np.arange(ITEMS)
    mixed = model.mixed(own, n, decided.table)

    monkeypatch.setattr("embedding_trainers.content.model._BLOCK_ROWS", 7)

    np.testing.assert_allclose(model.of(decided.table).factors, whole.factors, atol=1e-6)
    np.testing.assert_allclose(model.mixed(own, n, decided.table).factors, mixed.factors, atol=1e-6)
    assert model.of(decided.table[:0]).factors.shape == (0, 16)


def test_trained_rows_keep_length_direction_and_bias() -> None:
    """Along each principal direction of users, behaviour counts n g / (n g + τ); content comes at the own length."""
    users = np.diag([2.0, 1.0]).astype(np.float32)
    known = KnownSide("user", users, np.zeros(2, np.float32), np.ones(2, np.int64))
    interactions = csr_matrix(np.array([[1, 0], [1, 1]], np.float32))
    trained = Trained(np.array([[3, 4], [0, 2]], np.float32), np.array([7, 8], np.float32), interactions, known)
    said = Folded(np.array([[0, 9], [0, 0]], np.float32), np.zeros(2, np.float32))

    found = with_prior(trained, said, 2.0)

    g = np.array([4, 1]) / 2.5
    share = g / (g + 2)
    np.testing.assert_allclose(found.factors[0], share * [3, 4] + (1 - share) * [0, 5], rtol=1e-5)
    np.testing.assert_allclose(found.factors[1], [0, 2 * 2 * g[1] / (2 * g[1] + 2)], rtol=1e-5)
    np.testing.assert_array_equal(found.bias, trained.bias)


def test_prior_of_trained_rows_only_where_it_helps(decided: Decided) -> None:
    """Noisy vectors take what content says; the same vectors do not take what is wrong."""
    rng = np.random.default_rng(2)
    users = np.eye(GROUPS, dtype=np.float32)[np.arange(USERS) % GROUPS]
    right = np.eye(GROUPS, dtype=np.float32)[decided.groups]
    vectors: npt.NDArray[np.float32] = right + rng.standard_normal(right.shape).astype(np.float32)
    likes = decided.groups == (np.arange(USERS) % GROUPS)[:, None]
    seen = csr_matrix(decided.matrix.multiply(rng.random(likes.shape) < 0.3))
    asked = csr_matrix((likes & (seen.toarray() == 0)).astype(np.float32))
    rows = seen.T.tocsr()
    known = KnownSide("user", users, np.zeros(USERS, np.float32), np.diff(seen.indptr).astype(np.int64))
    trained = Trained(vectors, np.zeros(ITEMS, np.float32), rows, known)

    assert choose_strength(trained, Folded(right, trained.bias), asked, seen)
    assert choose_strength(trained, Folded(-right, trained.bias), asked, seen) is None
    assert choose_strength(trained, Folded(right, trained.bias), csr_matrix(asked.shape), seen) is None


def test_content_of_other_rows(decided: Decided) -> None:
    """Nulls and words that were never seen get a vector, too."""
    model, _, _ = fitted("svd", decided)

    said = model.of(pa.table({"title": pa.array([None, "", "zzz"], pa.string())}))

    np.testing.assert_allclose(said.factors, np.tile(model.prior.ridge.offset[:-1], (3, 1)), atol=1e-6)
