"""Hidden items and users: what training may see, what is given, and rankings against what an oracle says."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.content.spec import ContentColumn
from embedding_trainers.evaluation.cold import GIVEN, Catalogue, ColdReport, evaluate_cold
from embedding_trainers.evaluation.cold_text import cold_text
from embedding_trainers.trainer import Factors, Folded, KnownSide, RunOptions, Trainer, TrainerConfig
from feast_embeddings.errors import InputError

Entity = Literal["item", "user"]
N_USERS, N_ITEMS = 60, 100


def log(seed: int = 0) -> csr_matrix:
    """Each pair has a weight of its own, so that a value says which pair it is."""
    rng = np.random.default_rng(seed)
    pairs = rng.random((N_USERS, N_ITEMS)) < 0.15
    pairs[0] = pairs[:, 0] = True
    return csr_matrix(np.where(pairs, 1 + np.arange(pairs.size).reshape(pairs.shape), 0).astype(np.float32))


def oracle(
    whole: csr_matrix, entity: Entity, trained: list[csr_matrix], given: list[csr_matrix]
) -> Trainer[TrainerConfig]:
    """A trainer that knows the whole log: what it folds in gets the true row, by which all its pairs come first.

    Args:
        whole: the log.
        entity: what is hidden.
        trained, given: get what it is trained on, and what it folds in.
    """
    side = (whole.T if entity == "item" else whole).toarray()

    def train(matrix: csr_matrix, _: TrainerConfig, __: RunOptions) -> Factors:
        trained.append(matrix)
        n_users, n_items = matrix.shape
        dim = n_users if entity == "item" else n_items
        users = np.eye(dim, dtype=np.float32) if entity == "item" else np.zeros((n_users, dim), np.float32)
        items = np.eye(dim, dtype=np.float32) if entity == "user" else np.zeros((n_items, dim), np.float32)
        return Factors(users, items, np.zeros(n_items, np.float32))

    def fold_in(rows: csr_matrix, known: KnownSide, _: TrainerConfig, __: RunOptions) -> Folded:
        given.append(rows)
        kept = trained[0] if entity == "item" else trained[0].T
        places = [int(np.flatnonzero((side == value).any(axis=0))[0]) for value in kept.tocsr().max(axis=1).toarray()]
        found = [side[np.flatnonzero((side == row.data[0]).any(axis=1))[0]][places] > 0 for row in rows]
        return Folded(np.array(found, np.float32), np.zeros(rows.shape[0], np.float32))

    return Trainer(config=TrainerConfig, train=train, fold_in=fold_in)


@pytest.mark.parametrize("entity", ["item", "user"])
def test_nothing_of_the_hidden_ones_is_trained_on(entity: Entity) -> None:
    """Each hidden row gives n of its pairs and asks for the others; an oracle finds all that fit into 20."""
    whole = log()
    trained: list[csr_matrix] = []
    given: list[csr_matrix] = []
    trainer = oracle(whole, entity, trained, given)
    report = evaluate_cold(entity, whole, trainer, TrainerConfig(), None, RunOptions(threads=1))

    size = N_ITEMS if entity == "item" else N_USERS
    assert (report.n_hidden, report.n_trained) == (size // 5, size - size // 5)
    seen = set(trained[0].data)
    side = (whole.T if entity == "item" else whole).toarray()
    hidden = [row for row in side if not seen & set(row[row > 0])]
    assert len(hidden) == report.n_hidden
    expected = {n: sum((row > 0).sum() > n for row in hidden) for n in GIVEN[1:]}
    assert {row.given: row.n_hidden for row in report.rows} == {n: count for n, count in expected.items() if count}
    for row, rows in zip(report.rows, given, strict=True):
        assert set(np.diff(rows.indptr)) == {row.given}
        wanted = _wanted(entity, side, rows)
        assert row.n_users == len(wanted)
        assert set(row.scores) == {"behaviour", "popular", "random"}
        recall = np.mean([min(20, n) / n for n in wanted])
        assert row.scores["behaviour"]["recall@20"].value == pytest.approx(recall)
        assert row.scores["behaviour"]["ndcg@20"].value == pytest.approx(1.0)
        assert row.scores["random"]["recall@20"].value < recall or row.n_hidden <= 20
    assert all(set(rows.data).isdisjoint(seen) for rows in given)


def _wanted(entity: Entity, side: Any, given: csr_matrix) -> list[int]:
    """How many pairs each user is asked for who is asked for any."""
    asked = np.zeros(side.shape, dtype=bool)
    for row in given:
        (place,) = np.flatnonzero((side == row.data[0]).any(axis=1))
        asked[place] = (side[place] > 0) & ~np.isin(side[place], row.data)
    counts = asked.sum(axis=0 if entity == "item" else 1)
    return [int(count) for count in counts if count]


def checkerboard(n_users: int, n_items: int) -> csr_matrix:
    """Even users have all even items, odd ones all odd items, but for a few holes."""
    pairs = np.add.outer(np.arange(n_users), np.arange(n_items)) % 2 == 0
    pairs[np.random.default_rng(0).random(pairs.shape) < 0.1] = False
    return csr_matrix(pairs.astype(np.float32))


def halves(config: TrainerConfig) -> Trainer[TrainerConfig]:
    """Knows which half each row is of by its neighbours; a row folded in gets the mean of its pairs."""

    def train(matrix: csr_matrix, _: TrainerConfig, __: RunOptions) -> Factors:
        first = matrix[0].toarray()[0] > 0
        is_first = (matrix[:, first].sum(axis=1) > matrix[:, ~first].sum(axis=1)).A1
        users = np.column_stack([is_first, ~is_first]).astype(np.float32)
        items = np.asarray(matrix.T @ users, np.float32)
        return Factors(users, items / items.max(), np.zeros(matrix.shape[1], np.float32))

    def fold_in(rows: csr_matrix, known: KnownSide, _: TrainerConfig, __: RunOptions) -> Folded:
        sums = np.asarray(rows @ known.factors, np.float32)
        return Folded(sums / np.diff(rows.indptr)[:, None], np.zeros(rows.shape[0], np.float32))

    return Trainer(config=type(config), train=train, fold_in=fold_in)


@pytest.mark.parametrize("entity", ["item", "user"])
def test_content_stands_in_for_interactions(entity: Entity) -> None:
    """Where a column says the half, content alone, neighbours and the blend find all of it, and chance half of it."""
    matrix = checkerboard(40, 240)
    n = matrix.shape[1] if entity == "item" else matrix.shape[0]
    table = pa.table({"half": [["even", "odd"][i % 2] for i in range(n)], "other": ["x", "y", "z", "x"] * (n // 4)})
    columns = (ContentColumn("half", "category"), ContentColumn("other", "category"))
    rows = np.arange(n)
    rows[: n // 10] = -1  # without content: they are neither hidden nor what content is learned from
    config = TrainerConfig(factors=2)
    report = evaluate_cold(
        entity, matrix, halves(config), config, Catalogue(table, rows, columns), RunOptions(threads=1)
    )

    assert report.content == ("half:category", "other:category")
    assert report.n_hidden == (n - n // 10) // 5
    assert [row.given for row in report.rows][:2] == [0, 1]
    for row in report.rows:
        names = {"both", "content", "neighbours", "popular", "random"} | ({"behaviour"} if row.given else set())
        assert set(row.scores) == names
        best = max(scores["recall@20"].value for scores in row.scores.values())
        for name in names - {"popular", "random", "behaviour"}:
            assert row.scores[name]["recall@20"].value == pytest.approx(best, abs=0.03)
        assert row.scores["random"]["recall@20"].value < best
    assert report.rows[0].scores["both"] == report.rows[0].scores["content"]
    lines = cold_text("halves", report).splitlines()
    assert lines[0] == f"halves on {report.n_hidden} hidden {entity}s, trained on the {report.n_trained} others"
    assert lines[4].split()[3:5] == ["both", "behaviour"]
    assert [line.split()[0] for line in lines[5:]] == [str(row.given) for row in report.rows]


def test_equal_seeds_give_equal_reports() -> None:
    """And another seed hides others."""

    def report(seed: int) -> ColdReport:
        trainer = oracle(log(), "item", [], [])
        return evaluate_cold("item", log(), trainer, TrainerConfig(), None, RunOptions(seed=seed, threads=1))

    assert report(1) == report(1)
    assert report(1) != report(2)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda t: (log()[:, :4], t), "4 items are too few to hide a fifth of them; expected 5 or more"),
        (lambda t: (log(), Trainer(config=t.config, train=t.train)), "this trainer cannot fold in, so that without"),
    ],
)
def test_nothing_to_evaluate(make: Callable[[Any], tuple[csr_matrix, Any]], message: str) -> None:
    """It is said before anything is trained."""
    trained: list[csr_matrix] = []
    matrix, trainer = make(oracle(log(), "item", trained, []))
    with pytest.raises(InputError, match=message):
        evaluate_cold("item", matrix, trainer, TrainerConfig(), None, RunOptions())
    assert not trained
