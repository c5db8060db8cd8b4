from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix
from tests.trainers.evaluation.slow_evaluation import rank, user_metrics

from embedding_trainers.comparison import versions as versions_module
from embedding_trainers.comparison.versions import score_versions
from embedding_trainers.interactions import Interactions, Split, split_against
from embedding_trainers.trainer import Factors
from feast_embeddings.errors import InputError

USERS, ITEMS = 40, 60


def version(rng: np.random.Generator, log: Interactions, *, text: bool) -> tuple[Factors, Split]:
    """A version of random factors that knows three quarters of the users and items, in an order of its own."""
    users, items = (np.sort(rng.permutation(n)[: n * 3 // 4]) for n in (USERS, ITEMS))
    rng.shuffle(users)
    shape = len(users), len(items)
    user_factors, item_factors = (rng.normal(size=(n, 3)).astype(np.float32) for n in shape)
    seen = csr_matrix((rng.random(shape) < 0.1).astype(np.float32))
    seen.sort_indices()
    user_ids, item_ids = (pa.array(numbers.astype(str) if text else numbers) for numbers in (users, items))
    return (
        Factors(user_factors, item_factors, np.zeros(len(items), np.float32)),
        split_against(user_ids, item_ids, seen, log, "m"),
    )


@pytest.mark.parametrize("most", [100_000, 7])
def test_against_the_slow_way(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    """Each user's metrics are of the pairs that all can predict, in one order of users, also of a sample."""
    monkeypatch.setattr(versions_module, "MAX_TEST_USERS", most)
    users, items = (rng.random((USERS, ITEMS)) < 0.2).nonzero()
    log = Interactions(
        pa.array([str(n) for n in range(USERS)]),
        pa.array([str(n) for n in range(ITEMS)]),
        users.astype(np.int32),
        items.astype(np.int32),
    )
    versions = {"a": version(rng, log, text=True), "b": version(rng, log, text=False)}
    scored, n_users, n_pairs = score_versions(versions, log)

    shared: set[tuple[int, int]] = set(zip(users.tolist(), items.tolist(), strict=True))
    places = {}
    for name, (_, split) in versions.items():
        row = {int(user): at for at, user in enumerate(split.users.to_pylist())}
        column = {int(item): at for at, item in enumerate(split.items.to_pylist())}
        places[name] = row, column
        shared = {(u, i) for u, i in shared if u in row and i in column and not split.train[row[u], column[i]]}
    with_pairs = sorted({user for user, _ in shared})
    assert n_users == len(with_pairs) > 7
    if most == 7:
        with_pairs = sorted(np.random.default_rng(0).choice(with_pairs, 7, replace=False).tolist())
    shared = {(u, i) for u, i in shared if u in with_pairs}
    assert n_pairs == len(shared)
    for each in scored:
        (factors, split), (row, column) = versions[each.name], places[each.name]
        scores = factors.user_factors @ factors.item_factors.T
        expected = []
        for user in with_pairs:
            ranked = rank(scores[row[user]].tolist(), set(split.train[row[user]].indices.tolist()), 20)
            found = user_metrics(ranked, {column[i] for u, i in shared if u == user}, [1] * ITEMS, 20)
            expected.append([found["recall"], found["ndcg"]])
        np.testing.assert_allclose(each.values, expected)


def test_nothing_in_common() -> None:
    """Versions that cannot predict one same pair cannot be compared."""
    log = Interactions(pa.array(["u", "v"]), pa.array(["a"]), np.array([0, 1], np.int32), np.array([0, 0], np.int32))
    factors = Factors(np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), np.zeros(1, np.float32))
    both = {
        user: (
            factors,
            split_against(pa.array([user]), pa.array(["a"]), csr_matrix((1, 1), dtype=np.float32), log, "m"),
        )
        for user in "uv"
    }
    with pytest.raises(InputError, match="no pair of the test has a user and an item that all versions know"):
        score_versions(both, log)
