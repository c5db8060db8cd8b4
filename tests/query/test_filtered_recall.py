"""A search with a filter finds the nearest of what passes, also where the graph has no edges for the filter."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
import yaml
from tests.support.shop import Shop, apply, graphs_of_few, item_table, user_table, write_tables

from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo

N, DIM, K = 4000, 32, 10


@pytest.fixture(scope="module")
def items() -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Vectors of length one, and the interactions of each item: 1 to N, in no order."""
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((N, DIM), dtype=np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), rng.permutation(N) + 1


@pytest.fixture(scope="module")
def store(
    items: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]], tmp_path_factory: pytest.TempPathFactory
) -> EmbeddingStore:
    repo = init_repo(tmp_path_factory.mktemp("recall") / "repo")
    config = yaml.safe_load((repo.path / "feature_store.yaml").read_text())
    config["online_store"] |= {"hnsw_m": 6, "search_ef": 128}
    (repo.path / "feature_store.yaml").write_text(yaml.safe_dump(config))
    rng, (vectors, counts) = np.random.default_rng(0), items
    table, users = item_table(rng, pa.array(range(N)), DIM), user_table(rng, pa.array([0]), [[0]], DIM)
    artifact = write_tables(
        repo.data, users, type(table)(table.ids, vectors, counts, table.bias, None, table.attributes)
    )
    with graphs_of_few():
        return Shop(repo, artifact, apply(repo)).publish()


def recall(
    store: EmbeddingStore, items: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]], condition: str, most: int
) -> float:
    vectors, counts = items
    found = 0
    sample = np.random.default_rng(1).choice(N, 100, replace=False)
    for item in sample.tolist():
        scores = np.where(counts <= most, vectors @ vectors[item], -np.inf)
        scores[item] = -np.inf
        given = store.similar_items(item, K, filter=condition.format(most), attributes=False).scores
        assert len(given) == K
        found += int((given >= np.partition(scores, -K)[-K] - 1e-6).sum())
    return found / (K * len(sample))


@pytest.mark.parametrize("share", [0.1, 0.15])
@pytest.mark.parametrize("condition", ["n_interactions <= {}", "NOT (n_interactions > {} OR category = 'none')"])
def test_the_nearest_of_those_that_pass(
    store: EmbeddingStore,
    items: tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]],
    condition: str,
    share: float,
) -> None:
    """Recall@10 against numpy. Without looking behind what the filter takes out it is .72 to .98, as the
    graph happens to be built: a graph is never the same twice, so how poor it is is not asserted."""
    assert recall(store, items, condition, int(N * share)) >= 0.98
