"""A real Qdrant server as people have it: in strict mode, and restarted in the middle of a publish."""

from __future__ import annotations

import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from qdrant_client import QdrantClient
from tests.conftest import Command, Program, QdrantServer, run_program
from tests.online.test_late_rows import NEW_AS_OF, push, served
from tests.support.publishing import in_space, publish_any
from tests.support.shop import Shop, apply, write_version

from feast_embeddings.artifact import Artifact
from feast_embeddings.engines.engine import TIMESTAMP_KEY
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo

# Qdrant Cloud's default, and all else that strict mode forbids and this package could want.
STRICT = {
    "QDRANT__STORAGE__COLLECTION__STRICT_MODE__ENABLED": "true",
    "QDRANT__STORAGE__COLLECTION__STRICT_MODE__UNINDEXED_FILTERING_RETRIEVE": "false",
    "QDRANT__STORAGE__COLLECTION__STRICT_MODE__UNINDEXED_FILTERING_UPDATE": "false",
    "QDRANT__STORAGE__COLLECTION__STRICT_MODE__SEARCH_ALLOW_EXACT": "false",
}


@pytest.fixture
def program() -> str:
    found = shutil.which("qdrant")
    if found is None:
        pytest.skip("no qdrant program on the PATH, of which the settings can be chosen")
    return found


@pytest.fixture
def strict(program: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[QdrantServer]:
    """A server whose new collections are in strict mode."""
    yield from run_program(program, tmp_path_factory.mktemp("qdrant"), **STRICT)


def shop_at(server: QdrantServer, folder: Path) -> Shop:
    """A published shop at a server."""
    repo = init_repo(folder / "repo")
    config = yaml.safe_load((repo.path / "feature_store.yaml").read_text())
    config["online_store"] = {"type": config["online_store"]["type"], "url": server.url, "grpc_port": server.grpc_port}
    (repo.path / "feature_store.yaml").write_text(yaml.safe_dump(config))
    shop = Shop(repo, write_version(repo.data), apply(repo))
    shop.publish()
    return shop


def next_version(shop: Shop) -> Artifact:
    """A newer one, in the space of the first."""
    return in_space(write_version(shop.repo.data, seed=1, as_of=NEW_AS_OF), shop.artifact.manifest.space_id)


def test_publishes_and_queries_in_strict_mode(strict: QdrantServer, tmp_path: Path, command: Command) -> None:
    """Late rows come along, searches among given items are whole, filters find all that pass, the doctor is content."""
    shop = shop_at(strict, tmp_path)
    push(shop, "late", 7.0)
    assert publish_any(shop.feature_store, next_version(shop)).n_late == 1
    assert served(shop, "late") == [7.0]
    store = EmbeddingStore(shop.feature_store, "shop")
    everything = [f"sku-{i}" for i in range(40)]
    assert sorted(store.rank("u-3", 40, item_ids=everything, exclude_seen=False).ids) == sorted(everything)
    toys = store.rank("u-3", 40, filter="category = 'Toys'", exclude_seen=False).ids
    assert sorted(toys) == sorted(f"sku-{i}" for i in range(0, 40, 3))
    report = command("doctor", "--repo", shop.repo.path, "--max-age", 36_500)
    assert report.code == 0, report.out


def test_late_rows_of_a_collection_without_the_index(strict: QdrantServer, tmp_path: Path) -> None:
    """As an older release made it: the index is made when it is needed."""
    shop = shop_at(strict, tmp_path)
    push(shop, "late", 7.0)
    client = QdrantClient(url=strict.url, check_compatibility=False)
    try:
        for collection in client.get_collections().collections:
            client.delete_payload_index(collection.name, TIMESTAMP_KEY)
    finally:
        client.close()
    assert publish_any(shop.feature_store, next_version(shop)).n_late == 1
    assert served(shop, "late") == [7.0]


@pytest.mark.parametrize("step", ["load", "index", "verify", "switch", "carry", "clear"])
def test_a_publish_outlives_a_restart(program: str, tmp_path: Path, step: str) -> None:
    """SIGKILL as a step begins, and a start at once: what was asked meanwhile is asked again."""
    server = Program(program, tmp_path / "qdrant")
    try:
        shop = shop_at(server.start(), tmp_path)
        killed: list[str] = []

        def restart(begun: str) -> None:
            if begun == step and not killed:
                killed.append(begun)
                server.end(signal.SIGKILL)
                server.begin()

        newer = next_version(shop)
        assert publish_any(shop.feature_store, newer, on_step=restart).changed
        assert killed == [step]
        assert EmbeddingStore(shop.feature_store, "shop").rank("u-1").version == newer.manifest.version
    finally:
        server.end()
