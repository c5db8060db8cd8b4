"""As many results as were asked for, when so many match: whatever the settings, the exclusions and the filter."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.support.shop import Shop, apply, graphs_of_few, item_table, user_table, write_tables

from feast_embeddings.arguments import Id
from feast_embeddings.engines.embedded.engine import EmbeddedEngine
from feast_embeddings.engines.engine import DEFAULT_EF, Hnsw
from feast_embeddings.query.live import LiveModel
from feast_embeddings.query.ranking import rank_vectors
from feast_embeddings.repo import init_repo

N, DIM, CLUSTERS = 1500, 8, 12


POOR = {"hnsw_m": 2, "hnsw_ef_construct": 4}


@pytest.fixture(
    scope="module", params=[{"search_ef": 1, **POOR}, {"search_ef": 3000}, {}], ids=["least", "most", "unset"]
)
def live(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveModel]:
    """Items in far clusters under a graph that is built and searched with these settings, however bad it is."""
    repo = init_repo(tmp_path_factory.mktemp("limit") / "repo")
    config = yaml.safe_load((repo.path / "feature_store.yaml").read_text())
    config["online_store"] |= request.param
    (repo.path / "feature_store.yaml").write_text(yaml.safe_dump(config))
    rng = np.random.default_rng(0)
    items, users = item_table(rng, pa.array(range(N)), DIM), user_table(rng, pa.array([0]), [[0]], DIM)
    centres = 20 * rng.standard_normal((CLUSTERS, DIM), dtype=np.float32)
    vectors = items.embedding + centres[np.arange(N) % CLUSTERS]
    artifact = write_tables(
        repo.data, users, type(items)(items.ids, vectors, items.n_interactions, items.bias, None, items.attributes)
    )
    with graphs_of_few():
        yield Shop(repo, artifact, apply(repo)).publish().live()


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_exactly_as_many_as_match(live: LiveModel, data: st.DataObject) -> None:
    """Each match once, best first, none that is excluded, none that the filter does not pass."""
    items = live.side("item")
    k = data.draw(st.integers(1, 400) | st.just(N), label="k")
    ids = np.arange(N)
    clusters = data.draw(st.sets(st.integers(0, CLUSTERS - 1)), label="clusters")
    excluded = ids[np.isin(ids % CLUSTERS, list(clusters))]
    excluded = excluded[: data.draw(st.sampled_from([0, 1, 20, 256, 257, N]), label="most excluded")]
    toys = data.draw(st.booleans(), label="toys only")
    near = data.draw(st.integers(0, N - 1), label="near")
    (point,) = items.points([near], "embedding")
    assert point is not None
    (found,) = rank_vectors(
        items,
        [point.vectors["embedding"][:DIM]],
        [items.side.point_ids(excluded.tolist())],
        k,
        filter="category = 'Toys'" if toys else None,
        attributes=False,
    )
    assert found is not None
    matches = set(ids[ids % 3 == 0] if toys else ids) - set(excluded.tolist())
    assert len(found.ids) == len(set(found.ids)) == min(k, len(matches))
    assert set(found.ids) <= matches
    assert (np.diff(found.scores) <= 0).all()


def test_few_candidates_where_they_are_enough(live: LiveModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where settings say nothing, for what a publish has measured: ten results of all. They are the nearest."""
    items = live.side("item")
    engine, kept = items._engine, []
    assert isinstance(engine, EmbeddedEngine)
    wanted = engine._hnsw.search_ef
    enough = items.spec.enough_ef
    assert (enough > 0) == (wanted is None)
    candidates = Hnsw.candidates

    def spy(hnsw: Hnsw, search_ef: int, enough_ef: int) -> int:
        kept.append(candidates(hnsw, search_ef, enough_ef))
        return kept[-1]

    def similar(k: int, filter: str | None = None) -> list[Id]:
        (found,) = live.similar("item", [7], k, filter=filter, attributes=False).answers
        assert found is not None
        return found.ids

    monkeypatch.setattr(Hnsw, "candidates", spy)
    nearest = similar(10)
    similar(11)
    similar(10, "price > 1")
    by_default = wanted or DEFAULT_EF
    assert kept[0] == enough or (not enough and kept[0] >= by_default)
    assert min(kept[1:]) >= by_default > enough
    if wanted != 1:
        vectors = np.stack([p.vectors["embedding__cosine"] for p in items.points(range(N), "embedding__cosine") if p])
        assert nearest == [i for i in np.argsort(-vectors @ vectors[7]).tolist() if i != 7][:10]
