"""The Arrow compute engine writes what Feast's own engine writes, and leaves to it what it does not understand."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from feast import BatchFeatureView, Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.infra.common.materialization_job import MaterializationTask
from feast.types import Array, Float32, Float64, Int64, String

from feast_embeddings import ArrowComputeEngine, ArrowComputeEngineConfig
from feast_embeddings._feast.private import EntityKeyProto, ValueProto
from feast_embeddings.errors import InputError
from feast_embeddings.model.sides import qdrant_store
from feast_embeddings.online.compute_engine import _Source
from feast_embeddings.online.table_names import table_id

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
US = pa.timestamp("us", tz="UTC")
START, END = NOW - timedelta(days=2), NOW
OURS, STOCK = "feast_embeddings.ArrowComputeEngine", "local"
Online = dict[str, Any]
Rows = list[tuple[datetime | None, dict[str, ValueProto] | None]]


@pytest.fixture(params=["embedded", "server"])
def online(request: pytest.FixtureRequest) -> Online:
    """The settings of each engine of the online store in turn."""
    settings: Online = {"type": "feast_embeddings.QdrantEmbeddingOnlineStore"}
    if request.param == "server":
        server = request.getfixturevalue("qdrant_server")
        settings |= {"url": server.url, "grpc_port": server.grpc_port}
    return settings


@pytest.fixture
def new_store(tmp_path: Path, request: pytest.FixtureRequest) -> Callable[..., FeatureStore]:
    """Makes Feast repos, one per batch engine, and takes down what they have stored."""

    def make(engine: str, online: Online, **registry: Any) -> FeatureStore:
        folder = tmp_path / engine.rpartition(".")[2]
        folder.mkdir(exist_ok=True)
        config = {
            "project": f"p{abs(hash(str(folder))) % 10**12}",
            "provider": "local",
            "registry": {"path": "registry.db", **registry},
            "offline_store": {"type": "duckdb"},
            "online_store": online,
            "batch_engine": {"type": engine},
            "entity_key_serialization_version": 3,
        }
        (folder / "feature_store.yaml").write_text(yaml.safe_dump(config))
        store = FeatureStore(repo_path=str(folder))
        request.addfinalizer(store.teardown)
        return store

    return make


def at(*hours: float | None) -> pa.Array:
    """Times that many hours before NOW."""
    return pa.array([None if h is None else NOW - timedelta(hours=h) for h in hours], US)


def make_view(path: Path, keys: dict[str, Any] | None = None, **source: Any) -> FeatureView:
    keys = keys or {"id": Int64}
    return FeatureView(
        name="things",
        entities=[Entity(name=f"of_{name}", join_keys=[name], value_type=_VALUE_TYPES[keys[name]]) for name in keys],
        schema=[
            *(Field(name=name, dtype=dtype) for name, dtype in keys.items()),
            Field(name="vector", dtype=Array(Float32), vector_index=True, vector_search_metric="cosine"),
            Field(name="price", dtype=Float64),
            Field(name="title", dtype=String),
        ],
        source=FileSource(path=str(path), file_format=ParquetFormat(), **{"timestamp_field": "at", **source}),
        ttl=timedelta(0),
    )


_VALUE_TYPES = {Int64: ValueType.INT64, String: ValueType.STRING}


def table(**columns: Any) -> pa.Table:
    """A source; title says which row it is, and vector and price are made up where they are not given."""
    n = len(next(iter(columns.values())))
    rng = np.random.default_rng(n)
    made = {
        "vector": pa.array(rng.standard_normal((n, 3)).astype(np.float32).tolist(), pa.list_(pa.float32())),
        "price": pa.array(rng.standard_normal(n)),
        "title": pa.array([f"row {i}" for i in range(n)]),
    }
    return pa.table(made | columns)


def stored(store: FeatureStore, ids: list[dict[str, ValueProto]]) -> Rows:
    """What the online store holds for these entities."""
    view = store.get_feature_view("things")
    keys = [EntityKeyProto(join_keys=list(row), entity_values=list(row.values())) for row in ids]
    return qdrant_store(store).online_read(store.config, view, keys)


def entities(source: pa.Table, keys: list[str]) -> list[dict[str, ValueProto]]:
    def value(native: Any) -> ValueProto:
        return ValueProto(int64_val=native) if isinstance(native, int) else ValueProto(string_val=native)

    return [{key: value(row[key]) for key in keys} for row in source.select(keys).to_pylist()]


# name -> the source, and what differs in the view.
CASES: dict[str, tuple[pa.Table, dict[str, Any]]] = {
    "window edges": (table(id=[1, 2, 3, 4], at=at(48, 0, 48.001, -0.001)), {}),
    "duplicates": (table(id=[1, 2, 1, 2, 1], at=at(5, 1, 3, 2, 4)), {}),
    "latest outside of the window": (table(id=[1, 1, 2], at=at(5, -1, -2)), {}),
    "ties": (table(id=[1, 1, 2, 2, 1], at=at(3, 3, 2, 2, 3)), {}),
    "created": (
        table(id=[1, 1, 2, 2, 2], at=at(3, 3, 2, 2, 1), made=at(1, 2, 1, 0, 9)),
        {"created_timestamp_column": "made"},
    ),
    "ties of created, and nulls": (
        table(id=[1, 1, 1, 2, 2], at=at(3, 3, 3, 2, 2), made=at(None, 2, 2, None, None)),
        {"created_timestamp_column": "made"},
    ),
    "nulls": (
        table(
            id=[1, 2, 3],
            at=at(1, 1, 1),
            vector=pa.array([None, [1, 2, 3], None], pa.list_(pa.float32())),
            price=pa.array([None, float("nan"), float("inf")]),
            title=pa.array([None, "", "x"]),
        ),
        {},
    ),
    "field mapping": (
        table(key=[1, 1, 2], when=at(1, 2, 3)).rename_columns({"title": "name", "price": "cost"}),
        {
            "timestamp_field": "at",
            "field_mapping": {"key": "id", "when": "at", "name": "title", "cost": "price"},
        },
    ),
    "several join keys": (
        table(user=["a", "a", "b", "a"], item=[1, 2, 1, 1], at=at(4, 3, 2, 1)),
        {"keys": {"user": String, "item": Int64}},
    ),
    "naive times": (table(id=[1, 2, 1], at=at(1, 2, 3).cast(pa.timestamp("us"))), {}),
    "seconds": (table(id=[1, 2, 1], at=at(48, 49, 1).cast(pa.timestamp("s", "UTC"), safe=False)), {}),
    "fixed-size vectors": (
        table(id=[1, 2], at=at(1, 2), vector=pa.array([[1, 2, 3], [4, 5, 6]], pa.list_(pa.float32(), 3))),
        {},
    ),
    "extreme ids": (table(id=[-(2**63), 2**63 - 1, 2**53 + 1, -1], at=at(1, 2, 3, 4)), {}),
    "more than a batch": (table(id=np.arange(25_000) % 12_500, at=at(*(i % 40 for i in range(25_000)))), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_the_result_is_that_of_feasts_engine(
    name: str, online: Online, new_store: Callable[..., FeatureStore], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Every entity of the source, in the window or not, has the same timestamp and features under both engines."""
    source, changes = CASES[name]
    keys = changes.get("keys", {"id": Int64})
    mapping = changes.get("field_mapping", {})
    pq.write_table(source, tmp_path / "source.parquet")
    caplog.set_level(logging.DEBUG, "feast_embeddings")
    found = []
    for engine in (OURS, STOCK):
        store = new_store(engine, online)
        view = make_view(tmp_path / "source.parquet", **changes)
        store.apply([*_entities(keys), view])
        store.materialize(START, END)
        renamed = source.rename_columns([mapping.get(column, column) for column in source.column_names])
        found.append(stored(store, entities(renamed, list(keys))))
        qdrant = qdrant_store(store).engine(store.config)
        live = qdrant.aliases().get(table_id(store.config, store.get_feature_view("things")))
        found[-1].append((None, {"count": ValueProto(int64_val=0 if live is None else qdrant.count(live))}))
    assert "Feast's local engine" not in caplog.text
    assert found[0] == found[1]
    assert found[0][-1][1] != {"count": ValueProto(int64_val=0)}


@pytest.mark.parametrize(
    "layout", [pa.string_view(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())], ids=str
)
def test_layouts_of_arrow_make_no_difference(
    layout: pa.DataType, online: Online, new_store: Callable[..., FeatureStore], tmp_path: Path
) -> None:
    """Text, ids too, and vectors in the layouts of polars and others are materialized as plain ones are."""
    found: list[Rows] = []
    for dtype in (pa.string(), layout):
        source = table(
            id=pa.array(["a", "b", "a", "c", "a", "b"]), at=at(5, 1, 3, 2, 4, 1), title=pa.array([*"uvwxy", None])
        )
        for name in ("id", "title"):
            column = source[name].combine_chunks()
            column = column.dictionary_encode() if pa.types.is_dictionary(dtype) else column.cast(dtype)
            source = source.set_column(source.column_names.index(name), name, column)
        if layout == pa.string_view() and dtype == layout:
            vectors = pa.array(source["vector"].to_pylist(), pa.list_view(pa.float32()))
            source = source.set_column(source.column_names.index("vector"), "vector", vectors)
        path = tmp_path / f"{len(found)}.parquet"
        pq.write_table(source, path)
        assert pq.read_schema(path).field("title").type == dtype
        store = new_store(OURS, online)
        store.apply([*_entities({"id": String}), make_view(path, {"id": String})])
        store.materialize(START, END)
        found.append(stored(store, [{"id": ValueProto(string_val=id)} for id in "abcd"]))
    assert found[0] == found[1]
    assert [None if values is None else values["title"].string_val for _, values in found[0]] == ["w", "v", "x", None]


def _entities(keys: dict[str, Any]) -> list[Entity]:
    return [Entity(name=f"of_{name}", join_keys=[name], value_type=_VALUE_TYPES[keys[name]]) for name in keys]


def test_nothing_in_the_window_writes_nothing(
    online: Online, new_store: Callable[..., FeatureStore], tmp_path: Path
) -> None:
    """An empty result is no error, and makes no collection."""
    pq.write_table(table(id=[1, 2], at=at(900, 901)), tmp_path / "source.parquet")
    store = new_store(OURS, online)
    store.apply([*_entities({"id": Int64}), make_view(tmp_path / "source.parquet")])
    store.materialize(START, END)
    assert stored(store, [{"id": ValueProto(int64_val=1)}]) == [(None, None)]


def test_vectors_that_come_late(online: Online, new_store: Callable[..., FeatureStore], tmp_path: Path) -> None:
    """The length is learnt from the first rows with a vector, however late in the file they are."""
    n = 21_000
    vectors = [[1.0, 2.0, 3.0] if i == n - 1 else None for i in range(n)]
    path = tmp_path / "source.parquet"
    pq.write_table(table(id=np.arange(n), at=at(*[3] * n), vector=pa.array(vectors, pa.list_(pa.float32()))), path)
    store = new_store(OURS, online)
    store.apply([*_entities({"id": Int64}), make_view(path)])
    store.materialize(START, END)
    rows = stored(store, [{"id": ValueProto(int64_val=id)} for id in (0, n - 1)])
    assert [values and list(values["vector"].float_list_val.val) for _, values in rows] == [[], [1, 2, 3]]


def test_a_folder_relative_to_the_repo(online: Online, new_store: Callable[..., FeatureStore], tmp_path: Path) -> None:
    """A source may be several files; the first file's row wins a tie, as the first row does within a file."""
    store = new_store(OURS, online)
    folder = store.repo_path / "data" / "things"
    folder.mkdir(parents=True)
    pq.write_table(table(id=[1, 2], at=at(1, 2)), folder / "a.parquet")
    pq.write_table(table(id=[2, 3], at=at(2, 3), title=["late", "three"]), folder / "b.parquet")
    store.apply([*_entities({"id": Int64}), make_view(Path("data/things"))])
    store.materialize(START, END)
    rows = stored(store, [{"id": ValueProto(int64_val=id)} for id in (1, 2, 3)])
    assert [values and values["title"].string_val for _, values in rows] == ["row 0", "row 1", "three"]


def test_states_and_watermarks_are_those_of_feasts_engine(
    online: Online, new_store: Callable[..., FeatureStore], tmp_path: Path
) -> None:
    """After materialize and twice materialize-incremental the registry says the same, and late rows are there."""
    seen = []
    for engine in (OURS, STOCK):
        path = tmp_path / "source.parquet"
        pq.write_table(table(id=[1, 2], at=at(3, 3)), path)
        store = new_store(engine, online)
        store.apply([*_entities({"id": Int64}), make_view(path)])
        states = [store.get_feature_view("things").state]
        store.materialize(START, END)
        for hours in (1, 2):
            pq.write_table(table(id=[1, 1, 3], at=at(3, -hours, -9), title=["old", f"+{hours}", "later"]), path)
            store.materialize_incremental(END + timedelta(hours=hours))
            states.append(store.get_feature_view("things").state)
        view = store.get_feature_view("things")
        rows = stored(store, [{"id": ValueProto(int64_val=id)} for id in (1, 2, 3)])
        seen.append((states, view.materialization_intervals, view.most_recent_end_time, rows))
    assert seen[0] == seen[1]
    assert [values and values["title"].string_val for _, values in seen[0][3]] == ["+2", "row 1", None]


def test_a_version_goes_into_its_own_table(
    online: Online, new_store: Callable[..., FeatureStore], tmp_path: Path
) -> None:
    """`--version` writes that version's table and leaves the active one alone."""
    path = tmp_path / "source.parquet"
    pq.write_table(table(id=[1], at=at(3)), path)
    store = new_store(OURS, online, enable_online_feature_view_versioning=True)
    store.apply([*_entities({"id": Int64}), make_view(path)])
    store.materialize(START, END)
    changed = make_view(path)
    changed.features[-1].tags = {"model": "2"}
    store.apply([*_entities({"id": Int64}), changed], no_promote=True)
    pq.write_table(table(id=[1], at=at(3), title=["second"]), path)
    store.materialize(START, END, feature_views=["things"], version="v1")
    names = [
        store.get_online_features([ref], [{"id": 1}]).to_dict()["title"] for ref in ("things:title", "things@v1:title")
    ]
    assert names == [["row 0"], ["second"]]


def test_an_error_on_the_way_leaves_what_was_live(
    online: Online, new_store: Callable[..., FeatureStore], tmp_path: Path
) -> None:
    """NaN in the last of three batches: our error, no interval, the state rolled back, and the live data as it was."""
    n = 25_000
    path = tmp_path / "source.parquet"
    vectors = np.ones((n, 3), dtype=np.float32)
    broken = vectors.copy()
    broken[-1, 1] = np.nan
    store = new_store(OURS, online)
    store.apply([*_entities({"id": Int64}), make_view(path)])
    ids = [{"id": ValueProto(int64_val=id)} for id in (0, n - 1)]
    pq.write_table(table(id=np.arange(n), at=at(*[3] * n), vector=pa.array(broken.tolist())), path)
    with pytest.raises(InputError, match="'vector': NaN or infinity"):
        store.materialize(START, END)
    assert stored(store, ids) == [(None, None)] * 2
    pq.write_table(table(id=np.arange(n), at=at(*[2] * n), vector=pa.array(vectors.tolist())), path)
    store.materialize(START, END)
    before, view = stored(store, ids), store.get_feature_view("things")
    pq.write_table(table(id=np.arange(n)[::-1], at=at(*[1] * n), vector=pa.array(broken.tolist())), path)
    with pytest.raises(InputError, match="'vector': NaN or infinity"):
        store.materialize(START, END)
    after = stored(store, ids)
    assert after[0] == before[0]
    if "url" not in online:  # a server has no transaction over several requests
        assert after == before
    assert store.get_feature_view("things").state == view.state
    assert store.get_feature_view("things").materialization_intervals == view.materialization_intervals


def test_files_that_change_while_they_are_read_are_noticed(
    new_store: Callable[..., FeatureStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another file under the same name between the two readings is an error, and nothing is written."""
    path = tmp_path / "source.parquet"
    pq.write_table(table(id=[1, 2], at=at(3, 2)), path)
    store = new_store(OURS, {"type": "feast_embeddings.QdrantEmbeddingOnlineStore"})
    store.apply([*_entities({"id": Int64}), make_view(path)])
    latest = _Source.latest

    def replace_afterwards(self: _Source, window: Any) -> Any:
        kept = latest(self, window)
        pq.write_table(table(id=[1, 2], at=at(2, 3)), path)
        return kept

    monkeypatch.setattr(_Source, "latest", replace_afterwards)
    with pytest.raises(InputError, match="changed while it was read"):
        store.materialize(START, END)
    assert stored(store, [{"id": ValueProto(int64_val=1)}]) == [(None, None)]


def test_progress_counts_every_row(new_store: Callable[..., FeatureStore], tmp_path: Path) -> None:
    """The bar is made for the rows that are written, filled, and closed."""

    class Bar:
        def __init__(self, total: int) -> None:
            self.total, self.done, self.closed = total, 0, False

        def update(self, n: int) -> None:
            self.done += n

        def close(self) -> None:
            self.closed = True

    bars: list[Bar] = []

    def builder(total: int) -> Any:
        bars.append(Bar(total))
        return bars[-1]

    path = tmp_path / "source.parquet"
    pq.write_table(table(id=np.arange(30_000) % 15_000, at=at(*[3] * 30_000)), path)
    store = new_store(OURS, {"type": "feast_embeddings.QdrantEmbeddingOnlineStore"})
    store.apply([*_entities({"id": Int64}), make_view(path)])
    provider: Any = store._get_provider()
    engine = ArrowComputeEngine(
        repo_config=store.config,
        offline_store=provider.offline_store,
        online_store=qdrant_store(store),
    )
    task = MaterializationTask(store.project, store.get_feature_view("things"), START, END, tqdm_builder=builder)
    (job,) = engine.materialize(store.registry, task)
    assert job.error() is None
    assert [(bar.total, bar.done, bar.closed) for bar in bars] == [(15_000, 15_000, True)]


def _text_times(store: FeatureStore, path: Path) -> FeatureView:
    pq.write_table(table(id=[1], at=["2026-06-01 09:00:00"]), path)
    return make_view(path)


def _different_files(store: FeatureStore, path: Path) -> FeatureView:
    path.mkdir()
    pq.write_table(table(id=[1], at=at(3)), path / "a.parquet")
    pq.write_table(table(id=[2], at=at(3)).append_column("more", [[1]]), path / "b.parquet")
    return make_view(path)


def _validated(store: FeatureStore, path: Path) -> FeatureView:
    pq.write_table(table(id=[1], at=at(3)), path)
    view = make_view(path)
    view.enable_validation = True
    return view


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (_text_times, "'at' is not of an Arrow timestamp type"),
        (_different_files, "have different columns"),
        (_validated, "it has enable_validation"),
    ],
)
def test_what_is_not_understood_is_left_to_feasts_engine(
    make: Callable[..., FeatureView],
    reason: str,
    new_store: Callable[..., FeatureStore],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The rows arrive all the same, and the log says why it took the long way."""
    store = new_store(OURS, {"type": "feast_embeddings.QdrantEmbeddingOnlineStore"})
    store.apply([*_entities({"id": Int64}), make(store, tmp_path / "source.parquet")])
    caplog.set_level(logging.DEBUG, "feast_embeddings")
    store.materialize(START, END)
    assert "'things' is materialized by Feast's local engine: " in caplog.text
    assert reason in caplog.text
    ((_, values),) = stored(store, [{"id": ValueProto(int64_val=1)}])
    assert values is not None
    assert values["title"].string_val == "row 0"


def test_another_online_store_is_written_by_feasts_engine(
    new_store: Callable[..., FeatureStore], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The engine works with any online store."""
    path = tmp_path / "source.parquet"
    pq.write_table(table(id=[1], at=at(3)), path)
    store = new_store(OURS, {"type": "sqlite", "path": "online.db"})
    store.apply([*_entities({"id": Int64}), make_view(path)])
    caplog.set_level(logging.DEBUG, "feast_embeddings")
    store.materialize(START, END)
    assert "the online store is SqliteOnlineStore" in caplog.text
    assert store.get_online_features(["things:title"], [{"id": 1}]).to_dict()["title"] == ["row 0"]


@pytest.mark.filterwarnings("ignore:Batch feature views are experimental:RuntimeWarning")
def test_a_transformation_runs_as_before(
    new_store: Callable[..., FeatureStore], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch feature view with a function: Feast's engine runs the function, into our store."""
    path = tmp_path / "source.parquet"
    pq.write_table(table(id=[1, 2], at=at(3, 2)), path)

    # Feast keeps the source text of the function, and runs it without the names of this module. Over DuckDB it gives
    # the function the join keys and timestamps only.
    def double(frame):  # type: ignore[no-untyped-def]
        return frame.assign(price=frame["id"] * 1.5)

    view = BatchFeatureView(
        name="things",
        entities=_entities({"id": Int64}),
        schema=[Field(name="id", dtype=Int64), Field(name="price", dtype=Float64)],
        source=FileSource(path=str(path), file_format=ParquetFormat(), timestamp_field="at"),
        ttl=timedelta(0),
        mode="pandas",
        udf=double,
        online=True,
        offline=False,
    )
    store = new_store(OURS, {"type": "feast_embeddings.QdrantEmbeddingOnlineStore"})
    store.apply([*_entities({"id": Int64}), view])
    caplog.set_level(logging.DEBUG, "feast_embeddings")
    store.materialize(START, END)
    assert "it is a BatchFeatureView" in caplog.text
    assert store.get_online_features(["things:price"], [{"id": 1}, {"id": 2}]).to_dict()["price"] == [1.5, 3.0]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (table(id=pa.array([1, None], pa.int64()), at=at(1, 2)), "the column 'id' has a null"),
        (table(id=[1, 2], at=at(1, 2)).drop_columns(["price"]), "its source has no column 'price'"),
        (table(id=[1, 2], at=at(1, 2), vector=pa.array([[1.0], [1.0, 2.0]])), "length 1, got one of length 2"),
    ],
)
def test_a_source_that_does_not_fit_is_our_error(
    source: pa.Table, message: str, new_store: Callable[..., FeatureStore], tmp_path: Path
) -> None:
    """The message names the view and the column."""
    path = tmp_path / "source.parquet"
    pq.write_table(table(id=[1], at=at(1)), path)
    store = new_store(OURS, {"type": "feast_embeddings.QdrantEmbeddingOnlineStore"})
    store.apply([*_entities({"id": Int64}), make_view(path)])
    pq.write_table(source, path)
    with pytest.raises(InputError, match=f"'things'.*{message}"):
        store.materialize(START, END)


def test_feast_finds_the_configuration(new_store: Callable[..., FeatureStore]) -> None:
    """Feast looks for the configuration class in the engine's module, by name."""
    store = new_store(OURS, {"type": "feast_embeddings.QdrantEmbeddingOnlineStore"})
    assert store.config.batch_engine == ArrowComputeEngineConfig()
