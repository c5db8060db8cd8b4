"""Document search under Feast itself, over both engines; numpy and pandas are the oracles."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.feature_server import get_app
from feast.filter_models import ComparisonFilter, CompoundFilter
from feast.types import Array, Bool, Float32, Float64, Int64, String, UnixTimestamp
from tests.support.shop import MakeStore, qdrant

from feast_embeddings.codec.collection import BIAS_TAG
from feast_embeddings.errors import FilterError, InputError, MetricError

NOW = datetime.now(UTC).replace(microsecond=0)
N, DIM = 60, 6
FEATURES = ["docs:title", "docs:vector", "docs:n"]


def documents(n: int = N) -> pd.DataFrame:
    """Rows whose ids, some below 0 and some beyond 2**53, are in no order that a search could give by accident."""
    rng = np.random.default_rng(1)
    return pd.DataFrame(
        {
            "doc_id": rng.permutation(n) * 2**57 // n - 2**55,
            "vector": list(rng.standard_normal((n, DIM)).astype(np.float32)),
            "bias": rng.standard_normal(n).astype(np.float32) * 5,
            "title": [f"Title {i}" for i in range(n)],
            "kind": [["book", "toy", "game"][i % 3] for i in range(n)],
            "n": np.arange(n),
            "price": [None if i == 4 else i / 4 for i in range(n)],
            "new": [i % 2 == 0 for i in range(n)],
            "seen": [NOW - timedelta(days=i) for i in range(n)],
            "event_timestamp": [NOW] * n,
        }
    )


def apply(
    feature_store: FeatureStore, *, metric: str | None = "cosine", ttl: timedelta = timedelta(0), bias: bool = False
) -> FeatureView:
    doc = Entity(name="doc", join_keys=["doc_id"], value_type=ValueType.INT64)
    vector = Field(
        name="vector",
        dtype=Array(Float32),
        vector_index=True,
        vector_search_metric=metric,
        tags={BIAS_TAG: "bias"} if bias else {},
    )
    types = {"bias": Float32, "title": String, "kind": String, "n": Int64, "price": Float64, "new": Bool}
    view = FeatureView(
        name="docs",
        entities=[doc],
        schema=[
            Field(name="doc_id", dtype=Int64),
            vector,
            *(Field(name=name, dtype=dtype) for name, dtype in types.items()),
            Field(name="seen", dtype=UnixTimestamp),
        ],
        source=FileSource(path="nowhere.parquet", timestamp_field="event_timestamp"),
        ttl=ttl,
    )
    feature_store.apply([doc, view])
    return feature_store.get_feature_view("docs")


def write(feature_store: FeatureStore, frame: pd.DataFrame) -> pd.DataFrame:
    feature_store.write_to_online_store("docs", frame.copy())
    return frame


def distances(frame: pd.DataFrame, query: npt.NDArray[np.float32], metric: str) -> npt.NDArray[np.float64]:
    vectors = np.stack(frame["vector"].tolist()).astype(np.float64)
    if metric == "cosine":
        found = 1 - vectors @ query / np.linalg.norm(vectors, axis=1) / np.linalg.norm(query)
    elif metric == "dot":
        found = -(vectors @ query)
    else:
        found = np.linalg.norm(vectors - query, ord=int(metric[1]), axis=1)
    return np.asarray(found)


def make_query() -> npt.NDArray[np.float32]:
    return np.random.default_rng(2).standard_normal(DIM).astype(np.float32)


def search(feature_store: FeatureStore, *features: str, top_k: int = 10, **more: Any) -> dict[str, list[Any]]:
    if not {"query", "query_string"} & set(more):
        more["query"] = make_query().tolist()
    found = feature_store.retrieve_online_documents_v2(features=list(features or FEATURES), top_k=top_k, **more)
    return dict(found.to_dict())


@pytest.mark.parametrize("declared", [None, "cosine", "dot", "l2", "l1"])
def test_search_equals_brute_force(store: FeatureStore, declared: str | None) -> None:
    """Right ids with their own features and distances through Feast, whatever the metric of field and question."""
    view = apply(store, metric=declared)
    frame, query = write(store, documents()), make_query()
    for asked in ("cosine", "dot", "l2", "l1"):
        expected = distances(frame, query, declared or asked)
        best = np.argsort(expected)[:10]
        found = search(store, distance_metric=asked)
        assert found["doc_id"] == frame["doc_id"].iloc[best].tolist()
        assert found["title"] == frame["title"].iloc[best].tolist()
        assert found["rank"] == list(range(10))
        np.testing.assert_array_equal(found["vector"], np.stack(frame["vector"].iloc[best].tolist()))
        np.testing.assert_allclose(found["distance"], expected[best], rtol=1e-6, atol=1e-6)

        # Feast puts the field's metric before the caller's; the store itself does as it is asked.
        expected = distances(frame, query, asked)
        rows = qdrant(store).retrieve_online_documents_v2(
            store.config, view, ["n"], query.tolist(), 10, distance_metric=asked.upper()
        )
        assert [values["n"].int64_val for _, _, values in rows if values] == np.argsort(expected)[:10].tolist()
        found_distances = [values["distance"].double_val for _, _, values in rows if values]
        np.testing.assert_allclose(found_distances, np.sort(expected)[:10], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("metric", ["cosine", "dot"])
def test_the_bias_is_no_part_of_a_distance(store: FeatureStore, metric: str) -> None:
    """A field stored with its bias, which would change the order, is searched by its own coordinates alone."""
    view = apply(store, metric=metric, bias=True)
    frame, query = write(store, documents()), make_query()
    for asked in ("cosine", "dot", "l2"):
        rows = qdrant(store).retrieve_online_documents_v2(store.config, view, ["n"], query.tolist(), N, asked)
        expected = distances(frame, query, asked)
        assert [values["n"].int64_val for _, _, values in rows if values] == np.argsort(expected).tolist()
        found = [values["distance"].double_val for _, _, values in rows if values]
        np.testing.assert_allclose(found, np.sort(expected), rtol=1e-6, atol=1e-6)


def test_v1_returns_the_nearest_vectors(store: FeatureStore) -> None:
    """Feast's older search: ids, vectors and distances of the nearest rows, under the metric that is asked."""
    apply(store, metric="l2")
    refs = ["docs:vector", "docs:doc_id", "docs:distance"]
    empty = store.retrieve_online_documents(query=[0.0] * DIM, top_k=2, features=refs[:2], distance_metric="L2")
    assert empty.to_dict()["vector"] == []
    frame, query = write(store, documents()), make_query()
    for metric in ("L2", "L1", "cosine"):
        found = store.retrieve_online_documents(
            query=query.tolist(), top_k=5, features=refs[:2], distance_metric=metric
        ).to_dict()
        best = np.argsort(distances(frame, query, metric.lower()))[:5]
        assert found["doc_id"] == frame["doc_id"].iloc[best].tolist()
        np.testing.assert_array_equal(found["vector"], np.stack(frame["vector"].iloc[best].tolist()))
    with pytest.raises(ValueError, match="distance_metric 'wrong' is not supported; expected one of cosine"):
        store.retrieve_online_documents(query=query.tolist(), top_k=5, features=refs[:2], distance_metric="wrong")


def comparison(type: Any, key: str, value: Any) -> ComparisonFilter:
    return ComparisonFilter(type=type, key=key, value=value)


def test_filters_select_what_pandas_selects(store: FeatureStore) -> None:
    """Every operator, on every scalar type, alone and joined by and/or; nulls match nothing."""
    apply(store)
    frame = write(store, documents())
    price, kind = frame["price"], frame["kind"]
    mixed = CompoundFilter(
        type="or",
        filters=[
            comparison("eq", "title", "Title 7"),
            CompoundFilter(type="and", filters=[comparison("gte", "n", 50), comparison("eq", "new", True)]),
        ],
    )
    cases: list[tuple[ComparisonFilter | CompoundFilter, Any]] = [
        (comparison("eq", "kind", "toy"), kind == "toy"),
        (comparison("ne", "price", 1.25), (price != 1.25) & price.notna()),
        (comparison("gt", "price", 10), price > 10),
        (comparison("gte", "n", 30), frame["n"] >= 30),
        (comparison("lt", "seen", (NOW - timedelta(days=30)).isoformat()), frame["n"] > 30),
        (comparison("lte", "price", 0.5), price <= 0.5),
        (comparison("in", "kind", ["toy", "game"]), kind != "book"),
        (comparison("nin", "n", [1, 2, 3]), ~frame["n"].isin([1, 2, 3])),
        (comparison("eq", "doc_id", int(frame["doc_id"][8])), frame["n"] == 8),
        (mixed, (frame["title"] == "Title 7") | ((frame["n"] >= 50) & frame["new"])),
        (comparison("eq", "kind", "nothing"), kind == "nothing"),
    ]
    for filters, expected in cases:
        assert set(search(store, top_k=N, filters=filters)["n"]) == set(frame["n"][expected]), filters
    with pytest.raises(FilterError, match="there is no feature 'knd', did you mean 'kind'"):
        search(store, filters=comparison("eq", "knd", "toy"))


def test_the_edges_of_a_search(store: FeatureStore) -> None:
    """An empty store gives no rows, a large top_k all of them, and what cannot be answered is an error of ours."""
    view = apply(store)
    assert search(store)["title"] == []
    frame = write(store, documents(7))
    assert sorted(search(store, top_k=10**9)["n"]) == list(range(7))
    assert search(store, "docs:doc_id", top_k=1)["doc_id"] == [
        frame["doc_id"][int(np.argmin(distances(frame, make_query(), "cosine")))]
    ]
    online, query = qdrant(store), [0.5] * DIM
    with pytest.raises(InputError, match="'docs' has no feature 'nope'; it has: bias, doc_id"):
        online.retrieve_online_documents_v2(store.config, view, ["nope"], query, 3)
    with pytest.raises(MetricError, match="distance_metric 'hamming' is not supported"):
        online.retrieve_online_documents_v2(store.config, view, ["n"], query, 3, "hamming")
    with pytest.raises(InputError, match="vectors of length 6, the query has length 5"):
        online.retrieve_online_documents_v2(store.config, view, ["n"], query[1:], 3)
    with pytest.raises(InputError, match="must be finite numbers"):
        online.retrieve_online_documents_v2(store.config, view, ["n"], [float("nan")] * DIM, 3)
    with pytest.raises(InputError, match="top_k must be at least 1, got 0"):
        online.retrieve_online_documents_v2(store.config, view, ["n"], query, 0)
    with pytest.raises(InputError, match="a query vector, a query_string, or both"):
        online.retrieve_online_documents_v2(store.config, view, ["n"], None, 3)
    with pytest.raises(InputError, match="string features that are requested, but none is"):
        online.retrieve_online_documents_v2(store.config, view, ["n"], None, 3, query_string="x")


def test_a_view_without_a_vector_field(store: FeatureStore) -> None:
    """Vector search of it is an error. Text search works, with two join keys and a feature that is named rank."""
    keys = ["word", "language"]
    view = FeatureView(
        name="words",
        entities=[Entity(name=key, join_keys=[key], value_type=ValueType.STRING) for key in keys],
        schema=[Field(name=name, dtype=String) for name in [*keys, "rank"]],
        source=FileSource(path="nowhere.parquet", timestamp_field="event_timestamp"),
    )
    store.apply([*[Entity(name=key, join_keys=[key], value_type=ValueType.STRING) for key in keys], view])
    rows = [("z", "nl", "common word"), ("a", "de", "rare rare"), ("m", "en", "other")]
    frame = pd.DataFrame(rows, columns=[*keys, "rank"]).assign(event_timestamp=NOW)
    store.write_to_online_store("words", frame)
    found = store.retrieve_online_documents_v2(features=["words:rank"], top_k=9, query_string="common rare").to_dict()
    assert (found["word"], found["language"]) == (["a", "z"], ["de", "nl"])
    assert (found["rank"], found["_rank"]) == (["rare rare", "common word"], [0, 1])
    with pytest.raises(InputError, match="'words' has no field with vector_index=True"):
        store.retrieve_online_documents_v2(features=["words:rank"], top_k=9, query=[1.0])


@pytest.mark.parametrize("enforced", [True, False])
def test_expired_rows_are_not_found(make_store: MakeStore, enforced: bool) -> None:
    """Rows older than the view's ttl are missing from reads and searches of every kind, unless that is switched off."""
    store = make_store(enforce_ttl=enforced)
    apply(store, ttl=timedelta(hours=2))
    frame = documents(6)
    ages = [0, 3, 1, 5, 2.1, 0]
    frame["event_timestamp"] = [NOW - timedelta(hours=age) for age in ages]
    write(store, frame)
    valid = [i for i, age in enumerate(ages) if age < 2 or not enforced]
    assert sorted(search(store, top_k=9)["n"]) == valid
    assert sorted(search(store, top_k=9, query_string="title")["n"]) == valid
    only_books = comparison("eq", "kind", "book")
    assert sorted(search(store, top_k=9, filters=only_books)["n"]) == [i for i in valid if i % 3 == 0]
    rows = [{"doc_id": id} for id in frame["doc_id"]]
    read = store.get_online_features(features=["docs:n", "docs:vector"], entity_rows=rows).to_dict()
    assert read["n"] == [i if i in valid else None for i in range(6)]
    assert [vector is not None for vector in read["vector"]] == [i in valid for i in range(6)]


def test_keyword_search(store: FeatureStore) -> None:
    """Rows that hold a word of the query, whatever its case, the better the rarer the word; filters apply first."""
    apply(store)
    frame = documents(30)
    frame["title"] = [f"Common text {i}" + (" Ünique" if i in (3, 6) else "") for i in range(30)]
    write(store, frame)
    found = search(store, query_string="ÜNIQUE common")
    assert set(found["n"][:2]) == {3, 6}
    assert len(found["n"]) == 10
    assert found["text_rank"] == sorted(found["text_rank"], reverse=True)
    assert all(0 < rank < 1 for rank in found["text_rank"])
    assert found["distance"] == [None] * 10
    assert found["title"] == frame["title"].iloc[found["n"]].tolist()
    assert search(store, query_string="ünique", filters=comparison("gt", "n", 3))["n"] == [6]
    assert search(store, query_string="unknown")["title"] == []


def test_hybrid_search(store: FeatureStore) -> None:
    """A row that is good by both rankings comes first; every row has both its distance and its text rank."""
    apply(store)
    frame, query = documents(), make_query()
    expected = distances(frame, query, "cosine")
    second, last = np.argsort(expected)[[1, -1]]
    frame.loc[[second, last], "title"] = "the needle"
    write(store, frame)
    found = search(store, query=query.tolist(), query_string="needle", top_k=N)
    assert found["n"][0] == second
    assert last in found["n"][:3]
    assert sorted(found["n"]) == list(range(N))
    np.testing.assert_allclose(found["distance"], expected[found["n"]], rtol=1e-6, atol=1e-6)
    assert {n for n, rank in zip(found["n"], found["text_rank"], strict=True) if rank > 0} == {second, last}
    assert search(store, query=query.tolist(), query_string="nothing")["n"] == np.argsort(expected)[:10].tolist()


def test_search_over_http(store: FeatureStore) -> None:
    """`feast serve` answers POST /search with the right features for each id."""
    apply(store)
    frame, query = write(store, documents()), make_query()
    best = np.argsort(distances(frame, query, "cosine"))[:5]
    request = {"api_version": 2, "features": FEATURES, "query": query.tolist(), "top_k": 5}
    app = get_app(store)

    async def ask() -> httpx.Response:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://test") as client,
        ):
            return await client.post("/search", json=request)

    answer = asyncio.run(ask())
    assert answer.status_code == 200, answer.text
    body = answer.json()
    columns = dict(zip(body["metadata"]["feature_names"], body["results"], strict=True))
    assert columns["n"]["values"] == best.tolist()
    assert columns["doc_id"]["values"] == frame["doc_id"].iloc[best].tolist()
    assert columns["title"]["values"] == frame["title"].iloc[best].tolist()


def test_version_metadata_is_given(make_store: MakeStore) -> None:
    """The version of the feature view that answered is told when it is asked for, and searched by its own schema."""
    store = make_store(registry={"enable_online_feature_view_versioning": True})
    apply(store)
    write(store, documents())
    for wanted in (True, False):
        answer = store.retrieve_online_documents_v2(
            features=FEATURES, top_k=3, query=make_query().tolist(), include_feature_view_version_metadata=wanted
        )
        metadata = answer.proto.metadata.feature_view_metadata
        assert [(view.name, view.version) for view in metadata] == ([("docs", 0)] if wanted else [])
