"""A Qdrant cluster of three real nodes, killed and frozen: what is told, what goes on, and that nothing is lost."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from qdrant_client.http.exceptions import ResponseHandlingException
from tests.conftest import Command
from tests.online.test_late_rows import push, served
from tests.support.cluster import Cluster, new_cluster, shop_on
from tests.support.publishing import in_space, publish_any
from tests.support.shop import Shop, qdrant, write_version

from feast_embeddings.artifact import Artifact
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.engines.server.failover import any_of
from feast_embeddings.errors import EngineError
from feast_embeddings.publish.versions import list_versions, roll_back
from feast_embeddings.query.store import EmbeddingStore


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    yield from new_cluster(tmp_path_factory.mktemp("cluster"))


def next_version(shop: Shop, seed: int = 1) -> Artifact:
    """A newer one, in the space of the first."""
    return in_space(write_version(shop.repo.data, seed=seed), shop.artifact.manifest.space_id)


def engine_of(shop: Shop) -> ServerEngine:
    engine = qdrant(shop.feature_store).engine(shop.feature_store.config)
    assert isinstance(engine, ServerEngine)
    return engine


def replicated(cluster: Cluster, folder: Path, **settings: Any) -> Shop:
    """A live version with a replica on each node, all of which are in the settings."""
    shop = shop_on(cluster, folder, addresses=cluster.addresses, shard_number=3, replication_factor=3, **settings)
    publish_any(shop.feature_store, shop.artifact)
    return shop


def live_version(shop: Shop) -> str:
    return EmbeddingStore(shop.feature_store, "shop").rank("u-1").version


def test_one_replica_on_a_dead_node(cluster: Cluster, tmp_path: Path, command: Command) -> None:
    """What it holds cannot be read, and every command says so; a warning came before."""
    shop = shop_on(cluster, tmp_path, shard_number=3, retries=0)
    first = shop.artifact.manifest.version
    published = publish_any(shop.feature_store, shop.artifact)
    (warning,) = published.warnings
    assert "one replica of each shard, on 3 nodes" in warning
    report = command("doctor", "--repo", shop.repo.path, "--max-age", 36_500, "--json")
    found = [f for f in json.loads(report.out)["findings"] if f["check"] == "cluster"]
    assert [f["level"] for f in found] == ["ok", "warning", "warning"]
    assert report.code == 0

    peer = cluster.peer(2)
    cluster.kill(2)
    with pytest.raises(EngineError, match="read operations failed"):
        live_version(shop)
    (listed,) = list_versions(shop.feature_store, shop.repo.data, "shop")
    assert (listed.version, listed.live, listed.kept, listed.points) == (first, True, False, {})
    assert "read operations failed" in listed.unreadable
    report = command("doctor", "--repo", shop.repo.path, "--max-age", 36_500, "--json")
    found = [f for f in json.loads(report.out)["findings"] if f["check"] == "cluster"]
    assert (report.code, found[0]["level"]) == (1, "problem")
    assert f"(peer {peer})" in found[0]["message"]
    assert sum("have no active replica" in f["message"] for f in found) == 2
    shown = command("versions", "--repo", shop.repo.path)
    assert shown.code == 0
    assert "cannot be read: Qdrant could not count" in shown.out


@pytest.mark.slow
def test_one_replica_on_a_node_that_is_given_up(cluster: Cluster, tmp_path: Path) -> None:
    """Publishing again repairs what it held, and later versions come and go as ever."""
    shop = shop_on(cluster, tmp_path, shard_number=3, retries=0)
    first = shop.artifact.manifest.version
    publish_any(shop.feature_store, shop.artifact)
    peer = cluster.peer(2)
    cluster.kill(2)
    cluster.remove(peer)
    again = publish_any(shop.feature_store, shop.artifact)
    live = engine_of(shop).aliases()
    assert sorted(live.values()) == sorted(f"{name}__{first}@1" for name in live)
    assert live_version(shop) == first
    assert again.changed
    assert sum("cannot be read" in warning for warning in again.warnings) == 2
    assert not publish_any(shop.feature_store, shop.artifact).changed
    newer = next_version(shop)
    assert publish_any(shop.feature_store, newer).previous == first
    assert live_version(shop) == newer.manifest.version
    assert roll_back(shop.feature_store, shop.repo.data, "shop").version == first
    assert engine_of(shop).aliases() == live


@pytest.mark.slow
def test_a_node_that_returns(cluster: Cluster, tmp_path: Path) -> None:
    """What could not be read meanwhile is as it was; a publish with it away says which node its parts are on."""
    shop = shop_on(cluster, tmp_path, shard_number=3, retries=0)
    shop.publish()
    before = EmbeddingStore(shop.feature_store, "shop").rank("u-1")
    peer, lost = cluster.peer(2), next_version(shop)
    uri = cluster.get("/cluster")["peers"][str(peer)]["uri"]
    cluster.kill(2)
    with pytest.raises(EngineError) as failed:
        publish_any(shop.feature_store, lost)
    assert f"no answer from 1 of 3 nodes: {uri} (peer {peer}); bring them back, or remove" in str(failed.value)
    assert "with online_store.replication_factor 2 or more, one dead node does not stop a publish" in str(failed.value)
    cluster.nodes[2].start()
    cluster.wait(lambda: all(peer.answers for peer in engine_of(shop).cluster.peers()))
    after = EmbeddingStore(shop.feature_store, "shop").rank("u-1")
    assert (after.ids, after.scores.tolist(), after.version) == (before.ids, before.scores.tolist(), before.version)
    assert publish_any(shop.feature_store, next_version(shop)).changed


@pytest.mark.slow
def test_a_publish_that_waits_for_replicas(cluster: Cluster, tmp_path: Path, command: Command) -> None:
    """With two replicas a dead node stops nothing; who wants all of them first is refused, and then waits."""
    shop = shop_on(cluster, tmp_path, shard_number=3, replication_factor=2)
    result = publish_any(shop.feature_store, shop.artifact, wait_replicas=0)
    assert result.warnings == []
    cluster.kill(2)
    before, newer = live_version(shop), next_version(shop)
    with pytest.raises(EngineError, match=r"not all replicas are active after 0 s: .*the live version stays"):
        publish_any(shop.feature_store, newer, wait_replicas=0)
    assert live_version(shop) == before
    result = publish_any(shop.feature_store, newer)
    assert live_version(shop) == newer.manifest.version
    assert sum("lacks replicas" in warning for warning in result.warnings) == 2
    report = command("doctor", "--repo", shop.repo.path, "--max-age", 36_500, "--json")
    found = [f for f in json.loads(report.out)["findings"] if f["check"] == "cluster"]
    assert [f["level"] for f in found] == ["problem", "warning", "warning"]
    cluster.nodes[2].start()
    last = next_version(shop, seed=2)
    assert publish_any(shop.feature_store, last, wait_replicas=60).warnings == []
    assert live_version(shop) == last.manifest.version


SLOW = pytest.mark.slow


@pytest.mark.parametrize(
    ("lost", "prefer_grpc"),
    [
        (signal.SIGKILL, True),
        pytest.param(signal.SIGKILL, False, marks=SLOW),
        pytest.param(signal.SIGSTOP, True, marks=SLOW),
        pytest.param(signal.SIGSTOP, False, marks=SLOW),
    ],
)
def test_the_first_address_is_lost(cluster: Cluster, tmp_path: Path, lost: signal.Signals, prefer_grpc: bool) -> None:
    """Queries and pushes go on at the next, and the answers are the same."""
    shop = replicated(cluster, tmp_path, prefer_grpc=prefer_grpc, timeout=15 if lost == signal.SIGSTOP else 30)
    ranked = EmbeddingStore(shop.feature_store, "shop").rank("u-1")
    cluster.lose(0, lost)
    for store in (shop.feature_store, shop.repo.feature_store()):
        again = EmbeddingStore(store, "shop").rank("u-1")
        assert (again.ids, again.scores.tolist(), again.version) == (ranked.ids, ranked.scores.tolist(), ranked.version)
    push(shop, "late", 7.0)
    assert served(shop, "late") == [7.0]


@pytest.mark.slow
@pytest.mark.parametrize("prefer_grpc", [True, False])
def test_versions_go_live_without_the_first_address(cluster: Cluster, tmp_path: Path, prefer_grpc: bool) -> None:
    """A publish and a rollback go on at the next, with the rows that were written since."""
    shop = replicated(cluster, tmp_path, prefer_grpc=prefer_grpc)
    cluster.kill(0)
    push(shop, "late", 7.0)
    first, second = shop.artifact.manifest.version, next_version(shop)
    assert publish_any(shop.feature_store, second).previous == first
    assert live_version(shop) == second.manifest.version
    assert served(shop, "late") == [7.0]
    assert roll_back(shop.feature_store, shop.repo.data, "shop").version == first
    assert live_version(shop) == first
    assert served(shop, "late") == [7.0]


@pytest.mark.slow
@pytest.mark.parametrize("step", ["load", "verify", "switch", "clear"])
def test_a_node_is_lost_in_a_publish(cluster: Cluster, tmp_path: Path, step: str) -> None:
    """Killed as a step begins: the publish goes on at the next address, and every row is there."""
    shop = shop_on(cluster, tmp_path, addresses=cluster.addresses, shard_number=3, replication_factor=2)
    publish_any(shop.feature_store, shop.artifact)
    newer, killed = next_version(shop), list[str]()

    def kill(begun: str) -> None:
        if begun == step and not killed:
            killed.append(begun)
            cluster.kill(0)

    assert publish_any(shop.feature_store, newer, on_step=kill).changed
    assert killed == [step]
    store = EmbeddingStore(shop.feature_store, "shop")
    assert store.rank("u-1").version == newer.manifest.version
    table = newer.table("item")
    read = store.item_embeddings(table["item_id"].to_pylist())
    assert np.array_equal(read.vectors, np.array(table["embedding"].to_pylist(), dtype=np.float32))


def test_no_address_answers(cluster: Cluster, tmp_path: Path) -> None:
    """It is an error that says so, of queries and of writes."""
    shop = shop_on(cluster, tmp_path, addresses=cluster.addresses, retries=0)
    shop.publish()
    for node in range(3):
        cluster.kill(node)
    with pytest.raises(EngineError, match="no other address answered either"):
        live_version(shop)


@pytest.mark.parametrize(
    ("source", "asked"), [(httpx.ReadTimeout("late"), 1), (httpx.ConnectError("refused"), 2)], ids=["late", "refused"]
)
def test_a_collection_is_created_once(source: httpx.TransportError, asked: int) -> None:
    """The request may have arrived before its answer was lost; one that was refused did not."""
    calls: list[str] = []

    class Lost:
        def __getattr__(self, name: str) -> Any:
            def fail() -> None:
                calls.append(name)
                raise ResponseHandlingException(source)

            return fail

    lost: list[Any] = [Lost(), Lost()]
    nodes: Any = any_of(lost)
    for name, times in (("create_collection", asked), ("upsert", 2)):
        calls.clear()
        with pytest.raises(ResponseHandlingException):
            getattr(nodes, name)()
        assert calls == [name] * times
