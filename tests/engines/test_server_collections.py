"""What a server is asked about collections, and what a real one says of those that it was told to make."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.types import Array, Float32, Int64
from qdrant_client import QdrantClient, models
from tests.conftest import QdrantServer
from tests.support.shop import qdrant

from feast_embeddings.engines.engine import TIMESTAMP_KEY, CollectionSpec, Hnsw, VectorSpec
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.engines.server.storage import Storage
from feast_embeddings.engines.testing import make_batch, make_spec
from feast_embeddings.online.open_engine import open_engine
from feast_embeddings.online.store import QdrantEmbeddingOnlineStoreConfig


class Counting:
    """A client that counts the requests through it, by name."""

    def __init__(self, client: QdrantClient) -> None:
        self._client = client
        self.requests: list[str] = []

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)

        def counted(*arguments: Any, **named: Any) -> Any:
            self.requests.append(name)
            return method(*arguments, **named)

        return counted


@pytest.fixture(params=["server-stand-in", "server"])
def client(request: pytest.FixtureRequest) -> Iterator[QdrantClient]:
    if request.param == "server":
        server: QdrantServer = request.getfixturevalue("qdrant_server")
        made = QdrantClient(url=server.url, prefer_grpc=True, grpc_port=server.grpc_port, check_compatibility=False)
    else:
        made = QdrantClient(":memory:")
    yield made
    made.close()


def test_a_collection_is_described_once(client: QdrantClient) -> None:
    """Until another process drops it and makes one of the same name; then again, once."""
    counting: Any = Counting(client)
    reader, writer = ServerEngine(counting), ServerEngine(client)
    alias, name = "described", "described__live"
    batch = make_batch(np.eye(8, dtype=np.float32))

    def described() -> CollectionSpec:
        assert reader.aliases()[alias] == name
        return reader.describe(name)

    try:
        for round in range(3):
            spec = make_spec(alias, version=f"v{round}")
            writer.create(name, spec, [batch])
            writer.switch({alias: name})
            counting.requests.clear()
            assert [described() for _ in range(5)] == [spec] * 5
            assert counting.requests.count("get_collection") == 1
            assert counting.requests.count("get_aliases") == 5
            if round:
                # Without a look at the aliases in between it is known too, as this engine makes it itself.
                reader.create(name, make_spec(alias, version="own"), [])
                assert reader.describe(name).version == "own"
            writer.switch({alias: None})
            writer.drop([name])
            assert reader.aliases() == {}
    finally:
        writer.switch({alias: None})
        writer.drop([name])


@pytest.mark.parametrize("more", ["", "@16", "shoes", "0123abcd", "f" * 31, "f" * 33, "F" * 32])
def test_only_the_whole_mark_of_a_collection_is_hidden(client: QdrantClient, more: str) -> None:
    """An alias that begins alike is one like others: listed, so that what it names is not dropped."""
    engine = ServerEngine(client)
    alias, name = f"feast_embeddings_made_{more}", f"feast_embeddings_made_{more}__live"
    engine.create(name, make_spec(alias), [])
    try:
        before = engine.aliases()
        engine.switch({alias: name})
        assert engine.aliases() == before | {alias: name}
        engine.drop([name])
        assert engine.collections(alias).keys() == {name}
        assert engine.describe(name).alias == alias
    finally:
        engine.switch({alias: None})
        engine.drop([name])
    assert engine.aliases() == before


def test_an_online_read_is_two_requests(client: QdrantClient, tmp_path: Path) -> None:
    """Where the live collection is, and the rows; not what the collection is like, but for the first time."""
    (tmp_path / "feature_store.yaml").write_text(
        "project: reads\nprovider: local\nregistry: registry.db\noffline_store: {type: duckdb}\n"
        "online_store: {type: feast_embeddings.QdrantEmbeddingOnlineStore}\nentity_key_serialization_version: 3\n"
    )
    store = FeatureStore(repo_path=str(tmp_path))
    entity = Entity(name="item", join_keys=["item_id"], value_type=ValueType.INT64)
    vector = Field(name="vector", dtype=Array(Float32), vector_index=True, vector_length=2)
    source = FileSource(path=str(tmp_path / "none.parquet"), timestamp_field="event_timestamp")
    schema = [Field(name="item_id", dtype=Int64), vector]
    store.apply([entity, FeatureView(name="items", entities=[entity], schema=schema, source=source)])
    counting: Any = Counting(client)
    qdrant(store)._engine = ServerEngine(counting)
    frame = pd.DataFrame({"item_id": [1, 2], "vector": [[1.0, 2.0], [3.0, 4.0]], "event_timestamp": datetime.now(UTC)})
    store.write_to_online_store("items", frame)
    try:
        for expected in (["get_aliases", "get_collection", "retrieve"], ["get_aliases", "retrieve"]):
            counting.requests.clear()
            read = store.get_online_features(["items:vector"], [{"item_id": 2}, {"item_id": 1}]).to_dict()
            assert read["vector"] == [[3.0, 4.0], [1.0, 2.0]]
            assert counting.requests == expected
    finally:
        store.teardown()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("quantization", ["scalar", "binary"])
@pytest.mark.parametrize("prefer_grpc", [True, False])
def test_a_real_server_stores_as_it_is_told(
    qdrant_server: QdrantServer, quantization: str, prefer_grpc: bool, rng: np.random.Generator
) -> None:
    """Every setting of storage is in what it says of the collection; searches on quantized vectors find the nearest."""
    settings = QdrantEmbeddingOnlineStoreConfig.model_validate(
        {
            "url": qdrant_server.url,
            **({"grpc_port": qdrant_server.grpc_port} if prefer_grpc else {}),
            "prefer_grpc": prefer_grpc,
            "hnsw_m": 8,
            "hnsw_ef_construct": 64,
            "search_ef": 99,
            "on_disk": True,
            "quantization": quantization,
            "shard_number": 2,
            "replication_factor": 1,
        }
    )
    engine = open_engine(settings, Path())
    name = f"stored_{quantization}_{prefer_grpc}"
    vectors = {
        "v": VectorSpec(size=8, distance="Dot", indexed=False),
        "v__cosine": VectorSpec(size=8, distance="Cosine", indexed=True),
    }
    matrix = rng.standard_normal((200, 8)).astype(np.float32)
    spec = CollectionSpec(alias=name, vectors=vectors, payload_indexes={"n": "integer", "category": "keyword"})
    engine.create(name, spec, [make_batch(matrix)])
    with_client = QdrantClient(url=qdrant_server.url, check_compatibility=False)
    try:
        info = with_client.get_collection(name)
        config = info.config.params
        assert (config.shard_number, config.replication_factor, config.on_disk_payload) == (2, 1, True)
        assert isinstance(config.vectors, dict)
        searched, read = config.vectors["v__cosine"], config.vectors["v"]
        assert (searched.size, searched.distance, searched.on_disk) == (8, models.Distance.COSINE, True)
        assert (read.size, read.distance, read.on_disk) == (8, models.Distance.DOT, True)
        assert searched.hnsw_config is not None
        assert read.hnsw_config is not None
        graph = searched.hnsw_config
        assert (graph.m, graph.ef_construct, graph.on_disk, read.hnsw_config.m) == (8, 64, True, 0)
        assert read.quantization_config is None
        if quantization == "scalar":
            assert isinstance(searched.quantization_config, models.ScalarQuantization)
            assert searched.quantization_config.scalar.type == models.ScalarType.INT8
        else:
            assert isinstance(searched.quantization_config, models.BinaryQuantization)
        indexes = {key: index.data_type.value for key, index in info.payload_schema.items()}
        assert indexes == {**spec.payload_indexes, TIMESTAMP_KEY: "integer"}
        query = matrix[17]
        scores = matrix @ query / np.linalg.norm(matrix, axis=1)
        sure = 5 if quantization == "scalar" else 1  # of eight bits a vector, only the vector itself is
        hits = engine.query(name, "v__cosine", query, limit=5)
        assert [hit.payload["n"] for hit in hits][:sure] == np.argsort(-scores)[:sure].tolist()
        assert engine.describe(name) == spec
    finally:
        engine.drop([name])
        engine.close()
        with_client.close()


def test_a_real_server_s_own_choice(qdrant_server: QdrantServer) -> None:
    """What the settings leave out is as the server has it: one shard, in memory, not quantized."""
    engine = ServerEngine(
        QdrantClient(
            url=qdrant_server.url, prefer_grpc=True, grpc_port=qdrant_server.grpc_port, check_compatibility=False
        ),
        hnsw=Hnsw(),
        storage=Storage(),
    )
    engine.create("own_choice", make_spec("own_choice"), [])
    client = QdrantClient(url=qdrant_server.url, check_compatibility=False)
    try:
        config = client.get_collection("own_choice").config.params
        assert (config.shard_number, config.replication_factor) == (1, 1)
        assert isinstance(config.vectors, dict)
        assert config.vectors["v__cosine"].quantization_config is None
        assert not config.vectors["v__cosine"].on_disk
    finally:
        engine.drop(["own_choice"])
        engine.close()
        client.close()
