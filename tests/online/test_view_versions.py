"""Versions of a feature view, as Feast keeps them: one collection each, read side by side, dropped together."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int64, String
from tests.support.shop import MakeStore, qdrant

from feast_embeddings.online.table_names import table_name

NOW = datetime(2026, 6, 1, tzinfo=UTC)
VERSIONED = {"enable_online_feature_view_versioning": True}


def apply(feature_store: FeatureStore, model: str, *, name: str = "docs", extra: tuple[str, ...] = ()) -> FeatureView:
    """A view whose field tag names a model: another tag is another version of the view."""
    doc = Entity(name="doc", join_keys=["doc_id"], value_type=ValueType.INT64)
    vector = Field(name="vector", dtype=Array(Float32), vector_index=True, tags={"model": model})
    view = FeatureView(
        name=name,
        entities=[doc],
        schema=[Field(name="doc_id", dtype=Int64), vector, *(Field(name=n, dtype=String) for n in ("title", *extra))],
        source=FileSource(path="nowhere.parquet", timestamp_field="event_timestamp"),
    )
    feature_store.apply([doc, view])
    return feature_store.get_feature_view(name)


def write(feature_store: FeatureStore, name: str, dim: int, **columns: Any) -> None:
    frame = pd.DataFrame({"doc_id": [1], "vector": [[float(dim)] * dim], "event_timestamp": [NOW], **columns})
    feature_store.write_to_online_store(name, frame)


def read(feature_store: FeatureStore, *refs: str) -> dict[str, list[Any]]:
    rows = feature_store.get_online_features(features=list(refs), entity_rows=[{"doc_id": 1}], full_feature_names=True)
    return dict(rows.to_dict())


def collections(feature_store: FeatureStore) -> list[str]:
    """The live tables of the project, without the project's name and its length."""
    aliases = qdrant(feature_store).engine(feature_store.config).aliases()
    prefix, length = feature_store.project + "_", f"@{len(feature_store.project)}"
    return sorted(alias.removeprefix(prefix).replace(length, "") for alias in aliases if alias.startswith(prefix))


def test_versions_are_read_side_by_side(make_store: MakeStore) -> None:
    """`view@v1:feature` reads what was written under that version, with its own schema and vector length."""
    store = make_store(registry=VERSIONED)
    for version, (model, dim, extra) in enumerate([("a", 2, ()), ("b", 3, ("note",)), ("c", 4, ())]):
        view = apply(store, model, extra=extra)
        assert (view.current_version_number or 0) == version
        assert read(store, "docs:title")["docs__title"] == [None]
        write(store, "docs", dim, title=[f"title {model}"], **({"note": ["only b"]} if extra else {}))
    assert collections(store) == ["docs", "docsv1", "docsv2"]
    assert read(store, "docs:title", "docs:vector") == {
        "doc_id": [1],
        "docs__title": ["title c"],
        "docs__vector": [[4.0] * 4],
    }
    assert read(store, "docs@v1:title", "docs@v1:note", "docs@v1:vector") == {
        "doc_id": [1],
        "docs@v1__title": ["title b"],
        "docs@v1__note": ["only b"],
        "docs@v1__vector": [[3.0] * 3],
    }
    both = read(store, "docs@v0:vector", "docs@v2:vector")
    assert both == {"doc_id": [1], "docs@v0__vector": [[2.0] * 2], "docs@v2__vector": [[4.0] * 4]}
    found = store.retrieve_online_documents_v2(
        features=["docs:title"], query=[1.0] * 4, top_k=5, include_feature_view_version_metadata=True
    )
    assert found.to_dict()["title"] == ["title c"]
    assert [view.version for view in found.proto.metadata.feature_view_metadata] == [2]


def test_a_deleted_view_takes_its_versions_with_it(make_store: MakeStore) -> None:
    """All versions go, and a view that is only named like one of them stays."""
    store = make_store(registry=VERSIONED)
    for model in ("a", "b"):
        view = apply(store, model)
        write(store, "docs", 2, title=[model])
    apply(store, "a", name="docs_v7")
    write(store, "docs_v7", 2, title=["another view"])
    assert collections(store) == ["docs", "docs_v7", "docsv1"]
    store.apply([], objects_to_delete=[view], partial=False)
    assert collections(store) == ["docs_v7"]
    assert read(store, "docs_v7:title")["docs_v7__title"] == ["another view"]
    engine = qdrant(store).engine(store.config)
    assert [engine.collections(table_name(store.project, "docs", version)) for version in (0, 1)] == [{}, {}]


def test_without_versioning_there_is_one_table(make_store: MakeStore) -> None:
    """A repo that has not enabled it keeps one collection per view, whatever changes in the view."""
    store = make_store()
    for model in ("a", "b"):
        apply(store, model)
        write(store, "docs", 2, title=[model])
    assert collections(store) == ["docs"]
    assert read(store, "docs:title")["docs__title"] == ["b"]
