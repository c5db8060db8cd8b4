from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from implicit.als import AlternatingLeastSquares
from implicit.evaluation import ranking_metrics_at_k
from scipy.sparse import csr_matrix
from threadpoolctl import threadpool_limits

from embedding_trainers.evaluation import Report, evaluate, evaluate_in_detail, measure
from embedding_trainers.evaluation import report as report_module
from embedding_trainers.evaluation.ranking import random_ranking
from embedding_trainers.evaluation.report_text import report_text
from embedding_trainers.interactions import LeftOut, Split
from embedding_trainers.trainer import Factors, RunOptions
from feast_embeddings.errors import InputError

from .slow_evaluation import beyond_accuracy, list_metrics, rank


def factors_with(scores: Any) -> Factors:
    """Factors whose scores are the given ones: the item side holds them, the user side picks."""
    scores = np.asarray(scores, np.float32)
    return Factors(np.eye(len(scores), dtype=np.float32), scores.T.copy(), np.zeros(scores.shape[1], np.float32))


def sparse(matrix: Any) -> csr_matrix:
    return csr_matrix(np.asarray(matrix, np.float32))


def split_of(train: Any, test: Any) -> Split:
    train, test = sparse(train), sparse(test)
    users, items = (pa.array(range(n)) for n in train.shape)
    return Split(train, test, users, items, LeftOut(1, 2, 3, 4), "what was held back")


def columns(matrix: Any) -> list[list[int]]:
    return [np.flatnonzero(row).tolist() for row in matrix]


@st.composite
def problems(draw: st.DrawFn) -> tuple[Any, Any, Any]:
    """Scores with ties, and for each pair whether it is of the training (1), of the test (2) or neither."""
    shape = draw(st.integers(1, 6)), draw(st.integers(1, 12))
    n = shape[0] * shape[1]
    scores, kind = (np.array(draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))) for _ in range(2))
    assume((kind == 2).any())
    return scores.reshape(shape), (kind == 1).reshape(shape), (kind == 2).reshape(shape)


@settings(max_examples=60)
@given(problem=problems(), k=st.sets(st.integers(1, 15), min_size=1, max_size=3))
def test_against_the_slow_way(problem: tuple[Any, Any, Any], k: set[int]) -> None:
    """Every metric of all three rankings is what loops over lists give, and so is the mean over a segment."""
    scores, train, test = problem
    users = np.flatnonzero(test.any(axis=1))
    seen, relevant = columns(train[users]), columns(test[users])
    popularity = train.sum(axis=0).tolist()
    drawn = random_ranking(sparse(train[users]), max(k), np.random.default_rng(7)).tolist()
    lists = {
        "model": [rank(scores[user].tolist(), own, max(k)) for user, own in zip(users, seen, strict=True)],
        "popular": [rank(popularity, own, max(k)) for own in seen],
        "random": [[item for item in row if item >= 0] for row in drawn],
    }
    odd = pa.array(np.arange(len(scores)) % 2)
    report = evaluate_in_detail(
        factors_with(scores), split_of(train, test), k=tuple(k), attributes={"odd": odd}, options=RunOptions(seed=7)
    )

    for name, ranked in lists.items():
        expected = {f"{m}@{cut}": v for cut in k for m, v in list_metrics(ranked, relevant, popularity, cut).items()}
        for cut in k:
            each = [beyond_accuracy(items, scores.T.tolist(), popularity, len(scores), cut) for items in ranked]
            expected |= {f"{m}@{cut}": sum(user[m] for user in each) / len(each) for m in each[0]}
        assert expected == pytest.approx({metric: e.value for metric, e in report.scores[name].items()}, abs=1e-6)
        for value, segment in report.segments["odd"].items():
            inside = [place for place, user in enumerate(users) if str(user % 2) == value]
            assert segment.n_users == len(inside)
            assert segment.interactions == (min(len(seen[p]) for p in inside), max(len(seen[p]) for p in inside))
            for cut in k:
                own = list_metrics([ranked[p] for p in inside], [relevant[p] for p in inside], popularity, cut)
                for metric in ("recall", "ndcg", "map", "hr", "mrr", "popularity"):
                    assert segment.scores[name][f"{metric}@{cut}"].value == pytest.approx(own[metric])
    assert (report.n_users, report.n_items, report.n_pairs) == (len(users), scores.shape[1], test.sum())


@given(problem=problems())
def test_repeats_are_ranked(problem: tuple[Any, Any, Any]) -> None:
    """Where repeats count, all items are ranked, and a pair of the training may be the one to find."""
    scores, train, test = problem
    matrices = split_of(train, test | train)
    users = np.flatnonzero((test | train).any(axis=1))
    relevant = columns((test | train)[users])
    popularity = train.sum(axis=0).tolist()
    drawn = random_ranking(sparse(np.zeros_like(train[users])), 20, np.random.default_rng(0)).tolist()
    lists = {
        "model": [rank(scores[user].tolist(), [], 20) for user in users],
        "popular": [rank(popularity, [], 20) for _ in users],
        "random": drawn,
    }
    report = evaluate_in_detail(factors_with(scores), replace(matrices, include_seen=True), k=(20,))
    for name, ranked in lists.items():
        expected = {f"{m}@20": value for m, value in list_metrics(ranked, relevant, popularity, 20).items()}
        found = {metric: report.scores[name][metric].value for metric in expected}
        assert expected == pytest.approx(found)


@given(problem=problems())
def test_the_few_metrics_of_tuning(problem: tuple[Any, Any, Any]) -> None:
    """Recall and NDCG at 20 next to the most popular, against the slow way."""
    scores, train, test = problem
    users = np.flatnonzero(test.any(axis=1))
    seen, relevant = columns(train[users]), columns(test[users])
    popularity = train.sum(axis=0).tolist()
    lists = {
        "": [rank(scores[user].tolist(), own, 20) for user, own in zip(users, seen, strict=True)],
        "popular_": [rank(popularity, own, 20) for own in seen],
    }
    expected = {
        f"{prefix}{metric}@20": list_metrics(ranked, relevant, popularity, 20)[metric]
        for prefix, ranked in lists.items()
        for metric in ("recall", "ndcg")
    }
    assert evaluate(factors_with(scores), sparse(train), sparse(test)) == pytest.approx(expected)


def test_a_sample_of_many_users(monkeypatch: pytest.MonkeyPatch) -> None:
    """The metrics are those of the drawn users alone, and the margins 1.96 standard errors of them."""
    rng = np.random.default_rng(0)
    kind = rng.choice(3, p=[0.7, 0.2, 0.1], size=(80, 120))
    scores, train, test = rng.random(kind.shape), kind == 1, kind == 2
    users = np.flatnonzero(test.any(axis=1))
    drawn = np.sort(np.random.default_rng(0).choice(users, 30, replace=False))
    of_drawn = np.where(np.isin(np.arange(len(test)), drawn)[:, None], test, False)
    whole = measure(factors_with(scores), sparse(train), sparse(of_drawn))
    each = [measure(factors_with(scores[[u]]), sparse(train[[u]]), sparse(test[[u]])).metrics for u in drawn]

    monkeypatch.setattr(report_module, "MAX_TEST_USERS", 30)
    found = measure(factors_with(scores), sparse(train), sparse(test))
    assert (found.n_ranked, found.metrics) == (30, whole.metrics)
    for name in ("recall@20", "ndcg@20"):
        assert found.margins[name] == pytest.approx(1.96 * np.std([metrics[name] for metrics in each]) / 30**0.5)
    detailed = evaluate_in_detail(factors_with(scores), split_of(train, test), k=(20,))
    assert (detailed.n_users, detailed.of_users, detailed.n_pairs) == (30, len(users), of_drawn.sum())
    assert detailed.scores["model"]["recall@20"].value == pytest.approx(found.metrics["recall@20"])
    assert f"a random 30 of {len(users)} users" in report_text("m", detailed)
    # Few enough: all of them.
    monkeypatch.setattr(report_module, "MAX_TEST_USERS", len(users))
    assert (measure(factors_with(scores), sparse(train), sparse(test)).n_ranked, whole.margins) == (len(users), {})


def test_against_implicit() -> None:
    """NDCG and MAP are those of implicit's own evaluation, where there are no ties."""
    rng = np.random.default_rng(0)
    kind = rng.choice(3, p=[0.7, 0.2, 0.1], size=(80, 120))
    users, items = (rng.normal(size=(n, 5)).astype(np.float32) for n in (80, 120))
    factors = Factors(users, items, np.zeros(120, np.float32))
    with threadpool_limits(1, "blas"):  # or implicit warns
        model = AlternatingLeastSquares(factors=5, use_gpu=False)
    model.user_factors, model.item_factors = users, items
    theirs = ranking_metrics_at_k(model, sparse(kind == 1), sparse(kind == 2), K=10, show_progress=False)
    ours = evaluate_in_detail(factors, split_of(kind == 1, kind == 2), k=(10,)).scores["model"]
    assert ours["ndcg@10"].value == pytest.approx(theirs["ndcg"])
    assert ours["map@10"].value == pytest.approx(theirs["map"])


@pytest.fixture(scope="module")
def report() -> Report:
    """Of 60 users with 1 to 30 training items each."""
    rng = np.random.default_rng(0)
    order = rng.permuted(np.tile(np.arange(60), (60, 1)), axis=1)
    n_seen = 1 + np.arange(60)[:, None] // 2
    return evaluate_in_detail(
        factors_with(rng.integers(5, size=(60, 60))),
        split_of(order < n_seen, (order >= n_seen) & (order < n_seen + 5)),
        k=(20, 5, 20),
    )


def test_activity(report: Report) -> None:
    """A quarter of the users has the fewest training items, a quarter the most; equal counts stay together."""
    parts = {name: (part.n_users, part.interactions) for name, part in report.segments["activity"].items()}
    assert parts == {"new": (16, (1, 8)), "regular": (28, (9, 22)), "heavy": (16, (23, 30))}


def test_all_users_equally_active() -> None:
    """Where all have equally many training items there is one part."""
    report = evaluate_in_detail(factors_with([[2, 1, 3]] * 4), split_of([[1, 0, 0]] * 4, [[0, 1, 0]] * 4))
    assert {name: part.n_users for name, part in report.segments["activity"].items()} == {"new": 4}


def test_intervals(report: Report) -> None:
    """Each mean over users lies in its interval, which is wider for fewer users; coverage and Gini have none."""
    assert report.k == (5, 20)
    for scores in report.scores.values():
        for metric, estimate in scores.items():
            if metric.startswith(("coverage", "gini")):
                assert (estimate.low, estimate.high) == (None, None)
            else:
                assert estimate.low is not None
                assert estimate.high is not None
                assert estimate.low <= estimate.value <= estimate.high
    whole, part = (scores["model"]["ndcg@20"] for scores in (report.scores, report.segments["activity"]["new"].scores))
    assert whole.high is not None
    assert whole.low is not None
    assert part.high is not None
    assert part.low is not None
    assert whole.high - whole.low < part.high - part.low


def test_same_seed_same_report() -> None:
    """A report repeats exactly; another seed changes only the intervals and the random floor."""
    rng = np.random.default_rng(1)
    kind = rng.integers(3, size=(30, 40))
    factors, parts = factors_with(rng.integers(5, size=(30, 40))), split_of(kind == 1, kind == 2)
    first, second, other = (evaluate_in_detail(factors, parts, options=RunOptions(seed=s)) for s in (1, 1, 2))
    assert first == second
    assert first.scores["random"]["ndcg@10"].value != other.scores["random"]["ndcg@10"].value
    for name in ("model", "popular"):
        assert first.scores[name]["ndcg@10"].value == other.scores[name]["ndcg@10"].value
        assert first.scores[name]["ndcg@10"] != other.scores[name]["ndcg@10"]


def test_bias_counts() -> None:
    """The bias is part of the score."""
    flat = Factors(np.ones((1, 1), np.float32), np.zeros((30, 1), np.float32), np.arange(30, dtype=np.float32))
    train, test = np.zeros((1, 30)), np.zeros((1, 30))
    train[0, 0] = test[0, 29] = 1
    assert evaluate(flat, sparse(train), sparse(test))["ndcg@20"] == 1


def test_no_test_users() -> None:
    """Without a test pair there is nothing to say: no metrics, and in detail an error with the reason."""
    assert evaluate(factors_with([[1, 2]]), sparse([[1, 0]]), sparse([[0, 0]])) == {}
    with pytest.raises(
        InputError, match=r"no test user is left \(3 pairs of 1 users and 2 items that training did not"
    ):
        evaluate_in_detail(factors_with([[1, 2]]), split_of([[1, 0]], [[0, 0]]))


@pytest.mark.parametrize("k", [[], [0], [10, -1], [1001]])
def test_cut_offs_that_cannot_be(k: list[int]) -> None:
    """Cut-offs are from 1 to 1,000, and there is one."""
    with pytest.raises(InputError, match="cut-offs k: expected one or more whole numbers from 1 to 1,000, not"):
        evaluate_in_detail(factors_with([[1, 2]]), split_of([[1, 0]], [[0, 1]]), k=k)


@pytest.mark.parametrize(
    ("attribute", "values", "message"),
    [
        (
            "age",
            pa.array(range(51)),
            "segments by 'age': 51 different values among the test users, expected at most 50",
        ),
        ("tags", pa.array([["a"]] * 51), "segments by 'tags': a user must have one value, but the type is list"),
        (
            "activity",
            pa.array(["x"] * 51),
            "segments by 'activity' are those by number of training interactions; rename",
        ),
    ],
)
def test_attributes_that_make_no_segments(attribute: str, values: pa.Array, message: str) -> None:
    """Too many values, lists, and the name that is taken."""
    train, test = np.zeros((51, 2)), np.zeros((51, 2))
    train[:, 0] = test[:, 1] = 1
    with pytest.raises(InputError) as error:
        evaluate_in_detail(factors_with(np.ones((51, 2))), split_of(train, test), attributes={attribute: values})
    assert message in str(error.value)


def test_users_without_the_attribute() -> None:
    """A null is a segment of its own."""
    report = evaluate_in_detail(
        factors_with([[1, 2]] * 3),
        split_of([[1, 0]] * 3, [[0, 1]] * 3),
        attributes={"plan": pa.array(["pro", None, "pro"])},
    )
    assert {name: part.n_users for name, part in report.segments["plan"].items()} == {"missing": 1, "pro": 2}


def test_text(report: Report) -> None:
    """The table shows each metric with its interval next to both floors, the segments, and what was left out."""
    text = report_text("svd", report)
    lines = text.splitlines()
    assert lines[0] == "svd on what was held back"
    assert "60 users, 300 pairs to predict, 60 items ranked for each" in lines[1]
    assert lines[2].endswith(str(LeftOut(1, 2, 3, 4)))
    found = report.scores["model"]["ndcg@5"]
    expected = ["ndcg@5", *(f"{x:.4f}" for x in (found.value, found.low)), "–", f"{found.high:.4f}"]
    expected += [f"{report.scores[name]['ndcg@5'].value:.4f}" for name in ("popular", "random")]
    assert expected in [line.split() for line in lines]
    assert ["gini@20", *(f"{report.scores[name]['gini@20'].value:.4f}" for name in ("model", "popular", "random"))] in [
        line.split() for line in lines
    ]
    (new,) = (line.split() for line in lines if line.startswith("new "))
    part = report.segments["activity"]["new"].scores
    assert new == ["new", "16", "1–8"] + [
        f"{part[name][metric].value:.4f}" for metric in ("recall@20", "ndcg@20") for name in ("model", "popular")
    ]
    assert all(line == line.rstrip() for line in lines)
