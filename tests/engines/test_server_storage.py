"""Every setting of how a server stores and searches, read back from what a real one says of its collection."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import yaml
from tests.conftest import Command, QdrantServer
from tests.support.publishing import publish_any
from tests.support.shop import Shop, apply, qdrant, write_version

from feast_embeddings.artifact import embedding_matrix
from feast_embeddings.artifact.brute_force import as_stored
from feast_embeddings.engines.engine import CollectionSpec, VectorSpec
from feast_embeddings.errors import EngineError, InputError
from feast_embeddings.model.sides import sides_of
from feast_embeddings.online.open_engine import open_engine
from feast_embeddings.online.store import QdrantEmbeddingOnlineStoreConfig
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo

SPEC = CollectionSpec(
    alias="stored",
    vectors={
        "v": VectorSpec(size=8, distance="Dot", indexed=False),
        "v__cosine": VectorSpec(size=8, distance="Cosine", indexed=True),
    },
    payload_indexes={},
)
SEARCHED = "config.params.vectors.v__cosine"


def settings_at(server: QdrantServer, **settings: Any) -> QdrantEmbeddingOnlineStoreConfig:
    return QdrantEmbeddingOnlineStoreConfig(url=server.url, grpc_port=server.grpc_port, **settings)


@pytest.mark.parametrize(
    ("settings", "stored"),
    [
        ({"replication_factor": 2}, {"config.params.replication_factor": 2}),
        ({"write_consistency_factor": 2}, {"config.params.write_consistency_factor": 2}),
        ({"shard_number": 3}, {"config.params.shard_number": 3}),
        ({"read_fan_out_factor": 1}, {"config.params.read_fan_out_factor": 1}),
        ({"on_disk_payload": False}, {"config.params.on_disk_payload": False}),
        (
            {"on_disk": True, "on_disk_payload": False},
            {f"{SEARCHED}.on_disk": True, "config.params.on_disk_payload": False},
        ),
        ({"hnsw_on_disk": True}, {f"{SEARCHED}.hnsw_config.on_disk": True, f"{SEARCHED}.on_disk": False}),
        ({"on_disk": True}, {f"{SEARCHED}.hnsw_config.on_disk": True, "config.params.on_disk_payload": True}),
        ({"datatype": "float16"}, {f"{SEARCHED}.datatype": "float16", "config.params.vectors.v.datatype": "float16"}),
        (
            {"quantization": "scalar", "quantization_always_ram": False},
            {f"{SEARCHED}.quantization_config.scalar": {"type": "int8", "always_ram": False}},
        ),
        (
            {"quantization": "product"},
            {f"{SEARCHED}.quantization_config.product": {"compression": "x16", "always_ram": True}},
        ),
        (
            {"quantization": "product", "product_compression": "x4"},
            {f"{SEARCHED}.quantization_config.product": {"compression": "x4", "always_ram": True}},
        ),
        ({"quantization": "binary"}, {f"{SEARCHED}.quantization_config.binary": {"always_ram": True}}),
        ({"indexing_threshold": 123}, {"config.optimizer_config.indexing_threshold": 123}),
        ({"default_segment_number": 3}, {"config.optimizer_config.default_segment_number": 3}),
        ({"max_segment_size": 45_000}, {"config.optimizer_config.max_segment_size": 45_000}),
        ({"max_optimization_threads": 1}, {"config.optimizer_config.max_optimization_threads": 1}),
    ],
    ids=str,
)
def test_what_the_server_says(qdrant_server: QdrantServer, settings: dict[str, Any], stored: dict[str, Any]) -> None:
    engine = open_engine(settings_at(qdrant_server, **settings), Path())
    try:
        engine.create("stored", SPEC, [], wait_for_indexes=False)
        info = httpx.get(f"{qdrant_server.url}/collections/stored").json()["result"]
        for path, expected in stored.items():
            value = info
            for part in path.split("."):
                value = value[part]
            assert value == expected
    finally:
        engine.drop(["stored"])
        engine.close()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"oversampling": 2}, "oversampling needs quantization"),
        ({"rescore": False}, "rescore needs quantization"),
        ({"quantization_always_ram": True}, "quantization_always_ram needs quantization"),
        ({"quantization": "scalar", "product_compression": "x4"}, "product_compression needs quantization: product"),
        ({"quantization": "scalar", "rescore": False, "oversampling": 2}, "oversampling needs rescore: true"),
        ({"replication_factor": 2, "write_consistency_factor": 3}, "write_consistency_factor is 3, expected at most"),
        ({"quantization": "scalar", "oversampling": 0.5}, "oversampling: Input should be greater than or equal to 1"),
        ({"read_consistency": "some"}, "read_consistency"),
        ({"read_consistency": 0}, "read_consistency"),
        ({"datatype": "uint8"}, "datatype: Input should be 'float32' or 'float16'"),
        ({"min_recall": 0}, "min_recall: Input should be greater than 0"),
        ({"indexing_threshold": -1}, "indexing_threshold"),
    ],
    ids=str,
)
def test_settings_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"online_store.*{re.escape(message)}"):
        QdrantEmbeddingOnlineStoreConfig(url="http://localhost:6333", **settings)


@pytest.mark.parametrize("name", ["datatype", "write_consistency_factor", "read_fan_out_factor", "hnsw_on_disk"])
def test_settings_of_a_server_only(name: str) -> None:
    value: Any = {"datatype": "float16", "hnsw_on_disk": True}.get(name, 1)
    with pytest.raises(InputError, match=f"online_store: {name} needs url"):
        QdrantEmbeddingOnlineStoreConfig.model_validate({name: value})


def shop_at(server: QdrantServer, folder: Path, **settings: Any) -> Shop:
    """A repo at a server with one trained, but not yet published, version."""
    repo = init_repo(folder / "repo")
    config = yaml.safe_load((repo.path / "feature_store.yaml").read_text())
    config["project"] = f"stored{folder.name}".replace("-", "")
    online = {"type": config["online_store"]["type"], "url": server.url, "grpc_port": server.grpc_port}
    config["online_store"] = online | settings
    (repo.path / "feature_store.yaml").write_text(yaml.safe_dump(config))
    return Shop(repo, write_version(repo.data, n_users=150, n_items=400), apply(repo))


def test_float16_is_proven_too(qdrant_server: QdrantServer, tmp_path: Path, command: Command) -> None:
    """Reads return each number rounded to float16, exactly; searches find all of the nearest as rounded."""
    shop = shop_at(qdrant_server, tmp_path, datatype="float16")
    try:
        result = publish_any(shop.feature_store, shop.artifact)
        assert result.recall == {
            "user": {"embedding__cosine": 1.0},
            "item": {"embedding": 1.0, "embedding__cosine": 1.0},
        }
        assert not publish_any(shop.feature_store, shop.artifact).changed
        table = shop.artifact.table("item")
        exact = np.array(table["embedding"].to_pylist(), dtype=np.float32)
        read = EmbeddingStore(shop.feature_store, "shop").item_embeddings(table["item_id"].to_pylist())
        assert np.array_equal(read.vectors, as_stored(exact, "float16"))
        assert not np.array_equal(read.vectors, exact)
        report = command("doctor", "--repo", shop.repo.path, "--max-age", 36_500)
        assert "sampled vectors equal the files bit for bit" in report.out
        assert report.code == 0, report.out
    finally:
        shop.feature_store.teardown()  # type: ignore[no-untyped-call]


@pytest.mark.parametrize("quantization", ["scalar", "product", "binary"])
def test_quantized_answers_are_measured(qdrant_server: QdrantServer, tmp_path: Path, quantization: str) -> None:
    """Without rescoring, the recall is the share of the true ten nearest in the answers, which is far from all."""
    settings: dict[str, Any] = {"quantization": quantization, "rescore": False, "indexing_threshold": 1}
    shop = shop_at(qdrant_server, tmp_path, min_recall=0.01, **settings)
    try:
        recall = publish_any(shop.feature_store, shop.artifact).recall["item"]["embedding"]
        users, items = shop.artifact.table("user"), shop.artifact.table("item")
        # The users whose vectors a publish searches with.
        asked = users.take(np.random.default_rng(0).permutation(users.num_rows)[:128])
        scores = embedding_matrix(asked) @ embedding_matrix(items).T + items["bias"].to_numpy()
        nearest = items["item_id"].to_numpy()[np.argsort(-scores, axis=1)[:, :10]]
        engine = qdrant(shop.feature_store).engine(shop.feature_store.config)
        collection = engine.aliases()[sides_of(shop.feature_store, "shop")["item"].alias]
        queries = np.column_stack([embedding_matrix(asked), np.ones(len(asked), dtype=np.float32)])
        found = [
            [hit.payload["item_id"] for hit in engine.query(collection, "embedding", query, limit=10)]
            for query in queries
        ]
        shares = [np.isin(ids, true).mean() for ids, true in zip(found, nearest, strict=True)]
        assert recall == pytest.approx(np.mean(shares))
        assert recall < 0.99
    finally:
        shop.feature_store.teardown()  # type: ignore[no-untyped-call]


def test_quantized_answers_that_find_too_little_are_refused(qdrant_server: QdrantServer, tmp_path: Path) -> None:
    """At the bound of the settings, with what to change; nothing goes live."""
    settings: dict[str, Any] = {"quantization": "binary", "rescore": False, "indexing_threshold": 1}
    shop = shop_at(qdrant_server, tmp_path, **settings)
    try:
        with pytest.raises(
            EngineError, match=r"expected at least 0.99. Raise hnsw_m .* oversampling, or lower min_recall"
        ):
            publish_any(shop.feature_store, shop.artifact)
        assert qdrant(shop.feature_store).engine(shop.feature_store.config).aliases() == {}
    finally:
        shop.feature_store.teardown()  # type: ignore[no-untyped-call]
