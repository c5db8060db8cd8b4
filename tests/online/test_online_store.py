"""The online store under Feast itself, for any feature view; one suite over both engines."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, OnDemandFeatureView, PushSource, ValueType
from feast.data_format import ParquetFormat
from feast.transformation.pandas_transformation import PandasTransformation
from feast.types import Array, Bool, Bytes, Float32, Float64, Int64, String, UnixTimestamp
from pydantic import SecretStr
from tests.support.shop import qdrant

from feast_embeddings._feast.private import EntityKeyProto, ValueProto
from feast_embeddings.errors import InputError
from feast_embeddings.online.store import QdrantEmbeddingOnlineStoreConfig
from feast_embeddings.online.table_names import table_name

NOW = datetime(2026, 6, 1, tzinfo=UTC)
N = 200


def source_table(n: int = N, *, when: datetime = NOW) -> pa.Table:
    rng = np.random.default_rng(0)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rng.standard_normal(n * 4).astype(np.float32)), 4)
    return pa.table(
        {
            "item_id": pa.array(np.arange(n) * 3 - 50),
            "vector": vectors.cast(pa.list_(pa.float32())),
            "price": pa.array([None if i == 5 else i / 7 for i in range(n)], pa.float64()),
            "ratio": pa.array([i / 3 for i in range(n)], pa.float32()),
            "title": [f"Tïtle {i} 🎈" for i in range(n)],
            "stock": pa.array([2**62 + i for i in range(n)]),
            "new": [i % 2 == 0 for i in range(n)],
            "tags": [["a", "b"] if i % 2 else [] for i in range(n)],
            "raw": [bytes([i % 256, 0, 255]) for i in range(n)],
            "doubles": [[i / 3, -0.0] for i in range(n)],
            "seen": pa.array([NOW + timedelta(seconds=i) for i in range(n)], pa.timestamp("us", tz="UTC")),
            "event_timestamp": pa.array([when] * n, pa.timestamp("us", tz="UTC")),
        }
    )


def make_view(folder: Path, **changes: Any) -> FeatureView:
    pq.write_table(source_table(), folder / "items.parquet")
    source = FileSource(
        name="items", path=str(folder / "items.parquet"), file_format=ParquetFormat(), timestamp_field="event_timestamp"
    )
    vector: dict[str, Any] = {"vector_index": True, "vector_length": 4, "vector_search_metric": "cosine"}
    return FeatureView(
        name="items",
        entities=[Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)],
        schema=[
            Field(name="item_id", dtype=Int64),
            Field(name="vector", dtype=Array(Float32), **(vector | changes)),
            Field(name="price", dtype=Float64),
            Field(name="ratio", dtype=Float32),
            Field(name="title", dtype=String),
            Field(name="stock", dtype=Int64),
            Field(name="new", dtype=Bool),
            Field(name="tags", dtype=Array(String)),
            Field(name="raw", dtype=Bytes),
            Field(name="doubles", dtype=Array(Float64)),
            Field(name="seen", dtype=UnixTimestamp),
        ],
        source=PushSource(name="pushed", batch_source=source),
    )


def apply(feature_store: FeatureStore, view: FeatureView) -> None:
    entity = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
    feature_store.apply([entity, view])


def read(feature_store: FeatureStore, ids: list[int], *features: str) -> dict[str, list[Any]]:
    refs = [f"items:{name}" for name in features]
    rows = feature_store.get_online_features(features=refs, entity_rows=[{"item_id": id} for id in ids]).to_dict()
    return dict(rows)


def materialize(feature_store: FeatureStore) -> None:
    feature_store.materialize(NOW - timedelta(days=1), NOW + timedelta(days=1))


def test_every_value_comes_back_as_written(store: FeatureStore, tmp_path: Path) -> None:
    """After `materialize`, each feature of each type is what the source holds; ids below 0 and above 127 included."""
    apply(store, make_view(tmp_path))
    materialize(store)
    expected = source_table()
    names = [name for name in expected.column_names if name not in ("item_id", "event_timestamp")]
    rows = read(store, expected["item_id"].to_pylist(), *names)
    for name in names:
        assert rows[name] == expected[name].to_pylist(), name


def test_rows_come_in_the_order_of_the_keys(store: FeatureStore, tmp_path: Path) -> None:
    """Unknown ids are missing where they were asked for, and the rest stay in place."""
    apply(store, make_view(tmp_path))
    assert read(store, [-50, 1], "title")["title"] == [None, None]
    materialize(store)
    rows = read(store, [97, 10_000, -50, 97], "title")
    assert rows["item_id"] == [97, 10_000, -50, 97]
    assert rows["title"] == ["Tïtle 49 🎈", None, "Tïtle 0 🎈", "Tïtle 49 🎈"]


def test_materialize_twice_is_materialize_once(store: FeatureStore, tmp_path: Path) -> None:
    """Applying and materializing again changes nothing and leaves one point per entity."""
    for _ in range(2):
        apply(store, make_view(tmp_path))
        materialize(store)
    engine = qdrant(store).engine(store.config)
    assert engine.count(engine.aliases()[table_name(store.project, "items", 0)]) == N


def test_the_newest_row_wins(store: FeatureStore, tmp_path: Path) -> None:
    """A push of an older row changes nothing, a newer one replaces the row; so within one frame as well."""
    apply(store, make_view(tmp_path))
    materialize(store)
    for title, age in [("older", 1), ("newer", -1), ("old again", 2)]:
        frame = source_table(1, when=NOW - timedelta(hours=age)).to_pandas()
        store.push("pushed", frame.assign(title=title))
        expected = "Tïtle 0 🎈" if title == "older" else "newer"
        assert read(store, [-50], "title")["title"] == [expected]
    frames = [source_table(1, when=NOW + timedelta(hours=h)).to_pandas().assign(title=str(h)) for h in (7, 9, 8)]
    store.push("pushed", pd.concat(frames))
    assert read(store, [-50], "title")["title"] == ["9"]


def test_vector_length_is_learnt_from_the_first_write(store: FeatureStore, tmp_path: Path) -> None:
    """A view that does not state the length of its vectors works, and later refuses other lengths."""
    apply(store, make_view(tmp_path, vector_length=0))
    materialize(store)
    assert read(store, [-50], "vector")["vector"] == [source_table(1)["vector"][0].as_py()]


def test_a_wrong_vector_is_refused_whole(store: FeatureStore, tmp_path: Path) -> None:
    """NaN in one vector: an error of ours, and none of the frame's rows is written."""
    apply(store, make_view(tmp_path))
    frame = source_table(2).to_pandas()
    frame["vector"] = [[1.0, 2, 3, 4], [1.0, float("nan"), 3, 4]]
    with pytest.raises(InputError, match="'vector': NaN or infinity"):
        store.push("pushed", frame)
    assert read(store, [-50], "title")["title"] == [None]


def test_an_unsupported_metric_is_refused_at_apply(store: FeatureStore, tmp_path: Path) -> None:
    """A metric that Qdrant lacks is an error that lists those it has, before anything is stored."""
    with pytest.raises(InputError, match="'hamming' is not supported; expected one of cosine"):
        apply(store, make_view(tmp_path, vector_search_metric="hamming"))


def test_one_name_for_two_entities_is_refused_at_apply(store: FeatureStore) -> None:
    """Feast would keep the last one; the same one twice is no clash."""
    keys = ("user_id", "user_id", "customer")
    one, same, other = (Entity(name="person", join_keys=[key], value_type=ValueType.STRING) for key in keys)
    store.apply([one, same])
    with pytest.raises(
        InputError, match="two entities are called 'person', with the join keys 'user_id' and 'customer'"
    ):
        store.apply([one, other])


def test_a_removed_view_leaves_nothing(store: FeatureStore, tmp_path: Path) -> None:
    """A view that is deleted by apply takes its collections and alias with it."""
    view = make_view(tmp_path)
    apply(store, view)
    materialize(store)
    store.apply([], objects_to_delete=[view], partial=False)
    engine = qdrant(store).engine(store.config)
    assert table_name(store.project, "items", 0) not in engine.aliases()
    assert engine.collections(table_name(store.project, "items", 0)) == {}


def test_async_reads_and_writes_are_those_of_the_sync_ones(store: FeatureStore, tmp_path: Path) -> None:
    """Through Feast's async methods, from opening to closing, and the store works again afterwards."""
    apply(store, make_view(tmp_path))
    frame = source_table(5)
    rows = [{"item_id": id} for id in frame["item_id"].to_pylist()]

    async def use() -> dict[str, list[Any]]:
        await store.initialize()
        await store.push_async("pushed", frame.to_pandas())
        found = await store.get_online_features_async(features=["items:title", "items:vector"], entity_rows=rows)
        await store.close()
        await store.close()
        return dict(found.to_dict())

    found = asyncio.run(use())
    assert found["title"] == frame["title"].to_pylist()
    assert found["vector"] == frame["vector"].to_pylist()
    assert read(store, [-50], "title")["title"] == ["Tïtle 0 🎈"]


def test_a_written_on_demand_view_is_read(store: FeatureStore) -> None:
    """Feast writes on-demand views too when they ask for it; they have neither a ttl nor vectors."""
    numbers = FeatureView(
        name="numbers",
        entities=[Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)],
        schema=[Field(name="item_id", dtype=Int64), Field(name="half", dtype=Float64)],
        source=FileSource(path="nowhere.parquet", timestamp_field="event_timestamp"),
    )
    view: Any = OnDemandFeatureView(
        name="doubles",
        entities=[Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)],
        sources=[numbers],
        schema=[Field(name="whole", dtype=Float64)],
        feature_transformation=PandasTransformation(lambda frame: pd.DataFrame({"whole": frame["half"] * 2}), ""),
        mode="pandas",
        write_to_online_store=True,
    )
    key = EntityKeyProto(join_keys=["item_id"], entity_values=[ValueProto(int64_val=3)])
    online, written = qdrant(store), {"whole": ValueProto(double_val=7.5)}
    online.update(store.config, [], [view], [], [], partial=False)
    online.online_write_batch(store.config, view, [(key, written, NOW, None)], None)
    assert online.online_read(store.config, view, [key]) == [(NOW, written)]
    online.teardown(store.config, [view], [])
    assert online.online_read(store.config, view, [key]) == [(None, None)]


@pytest.mark.parametrize("make_store", ["embedded"], indirect=True)
@pytest.mark.parametrize("method", ["retrieve", "upsert"])
def test_the_event_loop_is_free_meanwhile(
    store: FeatureStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """While the engine is busy, the loop goes on: here it is the loop that lets the engine finish."""
    apply(store, make_view(tmp_path))
    materialize(store)
    engine = qdrant(store).engine(store.config)
    original, released = getattr(engine, method), threading.Event()

    def wait(*arguments: Any, **keywords: Any) -> Any:
        assert released.wait(timeout=60), "the event loop was blocked"
        return original(*arguments, **keywords)

    monkeypatch.setattr(engine, method, wait)

    async def use() -> list[str]:
        if method == "upsert":
            task: Any = asyncio.ensure_future(store.push_async("pushed", source_table(1).to_pandas()))
        else:
            row = {"item_id": -50}
            task = asyncio.ensure_future(store.get_online_features_async(features=["items:title"], entity_rows=[row]))
        asyncio.get_running_loop().call_soon(released.set)
        await task
        monkeypatch.undo()
        return read(store, [-50], "title")["title"]

    assert asyncio.run(use()) == ["Tïtle 0 🎈"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"url": "http://x", "path": "y"}, "not both"),
        ({"api_key": "k"}, "api_key needs url"),
        ({"api_key_file": "k"}, "api_key_file needs url"),
        ({"url": "http://x", "api_key": "k", "api_key_file": "k"}, "api_key or api_key_file, not both"),
        ({"url": "http://x", "api_key": "${NO_SUCH_VARIABLE}"}, "that environment variable is not set"),
        ({"url": "http://x", "shards": 2}, "Extra inputs are not permitted"),
        ({"url": "http://x", "timeout": 0}, "greater than 0"),
        ({"timeout": 5}, "timeout needs url"),
        ({"path": "y", "quantization": "scalar"}, "quantization needs url"),
        ({"shard_number": 2}, "shard_number needs url"),
        ({"url": "http://x", "quantization": "ternary"}, "'scalar', 'product' or 'binary'"),
        ({"url": "http://x", "lock_timeout": 5}, "lock_timeout is only for the embedded engine"),
        ({"hnsw_m": -1}, "greater than or equal to 0"),
    ],
)
def test_settings_are_honoured_or_refused(settings: dict[str, Any], message: str) -> None:
    """A setting without effect, or an unknown one, is an error."""
    with pytest.raises(InputError, match=message):
        QdrantEmbeddingOnlineStoreConfig(**settings)


def test_the_api_key_is_not_shown(tmp_path: Path) -> None:
    """Neither repr nor dump of the settings holds the key, nor does Feast's error about settings that are wrong."""
    settings = QdrantEmbeddingOnlineStoreConfig(url="http://x", api_key=SecretStr("very-secret"))
    (tmp_path / "feature_store.yaml").write_text(
        "project: p\nprovider: local\nregistry: r.db\nonline_store:\n"
        "  {type: feast_embeddings.QdrantEmbeddingOnlineStore, url: 'http://x', path: y, api_key: very-secret}\n"
    )
    with pytest.raises(InputError, match="not both") as error:
        FeatureStore(repo_path=str(tmp_path)).config.online_store  # noqa: B018
    assert "very-secret" not in str(error.value)
    assert "very-secret" not in repr(settings) + str(settings.model_dump()) + settings.model_dump_json()
