"""Versions over every engine: listed wherever they are, gone back to at once, cleared but for the live one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest
from tests.conftest import Command
from tests.support.publishing import publish_any
from tests.support.shop import ENGINES, Shop, qdrant, served_shop, write_version
from tests.support.shop import shop as unpublished_shop

from feast_embeddings.artifact import Artifact, version_folders
from feast_embeddings.artifact.history import history_folder
from feast_embeddings.engines.engine import Engine
from feast_embeddings.errors import InputError, NotPublishedError
from feast_embeddings.publish.versions import list_versions, prune_versions, roll_back
from feast_embeddings.query.store import EmbeddingStore

fresh = unpublished_shop  # one that nothing is published of, on the embedded engine


@pytest.fixture(params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shop]:
    """A shop with one version live."""
    yield from served_shop(request, tmp_path)


def engine_of(shop: Shop) -> Engine:
    return qdrant(shop.feature_store).engine(shop.feature_store.config)


def publish_more(shop: Shop, count: int) -> list[Artifact]:
    """All versions, oldest first, the newest live."""
    artifacts = [shop.artifact, *(write_version(shop.repo.data, seed=seed) for seed in range(1, count + 1))]
    for artifact in artifacts[1:]:
        publish_any(shop.feature_store, artifact)
    return artifacts


def marks(shop: Shop) -> list[tuple[str, str]]:
    """Per version: live, kept, on disk."""
    return [
        (
            row.version,
            "".join(mark for mark, is_so in zip("lkd", (row.live, row.kept, row.on_disk), strict=True) if is_so),
        )
        for row in list_versions(shop.feature_store, shop.repo.data, "shop")
    ]


def test_versions_are_listed_wherever_they_are(shop: Shop) -> None:
    """Live, kept and on disk are three things; sizes and counts are those of files and collections."""
    first, second = publish_more(shop, 1)
    third = write_version(shop.repo.data, seed=9)
    shutil.rmtree(first.path)
    (third.path / "manifest.json").write_text("{}")
    names = [artifact.manifest.version for artifact in (first, second, third)]
    assert marks(shop) == list(zip(names, ["k", "lkd", "d"], strict=True))
    gone, live, damaged = list_versions(shop.feature_store, shop.repo.data, "shop")
    assert (gone.space, gone.as_of, gone.points) == (
        first.manifest.space_id,
        first.manifest.as_of.isoformat(),
        {"user": 20, "item": 40},
    )
    assert live.manifest == second.manifest
    assert live.bytes_on_disk == sum(path.stat().st_size for path in second.path.iterdir()) > 1000
    assert damaged.manifest is None
    assert "is damaged" in str(damaged.problem)


def test_rollback_is_one_switch(shop: Shop) -> None:
    """Back to the version before, and to that before it, without a point being written; Feast is told."""
    first, second, third = publish_more(shop, 2)
    engine, store = engine_of(shop), EmbeddingStore(shop.feature_store, "shop")
    before = {alias: engine.collections(alias) for alias in engine.aliases()}

    def nothing_is_written(*_: object, **__: object) -> None:
        raise AssertionError("a rollback writes no point")

    with pytest.MonkeyPatch.context() as patch:
        for method in ("create", "upsert"):
            patch.setattr(engine, method, nothing_is_written)
        for older, newer in ((second, third), (first, second)):
            result = roll_back(shop.feature_store, shop.repo.data, "shop")
            assert (result.version, result.previous) == (older.manifest.version, newer.manifest.version)
            assert (result.changed, result.n_users, result.n_items) == (True, 20, 40)
            vectors = older.table("item")["embedding"].to_pylist()
            assert store.item_embeddings(["sku-0"]).vectors[0].tolist() == vectors[0]
            assert store.rank("u-1").version == older.manifest.version
        assert roll_back(shop.feature_store, shop.repo.data, "shop", third.manifest.version).changed
        assert not roll_back(shop.feature_store, shop.repo.data, "shop", third.manifest.version).changed
    assert {alias: engine.collections(alias) for alias in engine.aliases()} == before
    intervals = shop.feature_store.get_feature_view("shop_item_embeddings").materialization_intervals
    assert intervals[-1][1] == third.manifest.as_of


def test_rollback_loads_what_is_only_on_disk(shop: Shop) -> None:
    """Named, an old version that Qdrant has dropped is published again, past the gates; unnamed, there is none."""
    artifacts = publish_more(shop, 3)
    oldest = artifacts[0].manifest.version
    assert marks(shop)[0] == (oldest, "d")
    assert roll_back(shop.feature_store, shop.repo.data, "shop", oldest).n_items == 40
    assert EmbeddingStore(shop.feature_store, "shop").live_version() == oldest
    with pytest.raises(InputError, match=r"before the live one is kept in Qdrant; name one with --to"):
        roll_back(shop.feature_store, shop.repo.data, "shop")
    with pytest.raises(InputError, match="no version 'x'"):
        roll_back(shop.feature_store, shop.repo.data, "shop", "x")


def test_prune_leaves_the_live_version(shop: Shop) -> None:
    """Collections go but for the live one and the newest others; a dry run only says so."""
    versions = [artifact.manifest.version for artifact in publish_more(shop, 2)]
    engine = engine_of(shop)
    aliases = list(engine.aliases())
    roll_back(shop.feature_store, shop.repo.data, "shop", versions[1])
    planned = prune_versions(shop.feature_store, shop.repo.data, "shop", keep=1, dry_run=True)
    assert sorted(planned.collections) == sorted(f"{alias}__{versions[0]}" for alias in aliases)
    assert marks(shop)[0] == (versions[0], "kd")
    assert prune_versions(shop.feature_store, shop.repo.data, "shop", keep=1) == planned
    assert marks(shop) == [(versions[0], "d"), (versions[1], "lkd"), (versions[2], "kd")]
    prune_versions(shop.feature_store, shop.repo.data, "shop", keep=0)
    assert marks(shop) == [(versions[0], "d"), (versions[1], "lkd"), (versions[2], "d")]
    assert EmbeddingStore(shop.feature_store, "shop").live_version() == versions[1]


def test_artifacts_are_pruned_with_their_history(shop: Shop) -> None:
    """From disk go old ones only: not the live one, nor what is newer; DuckDB reads what is left."""
    versions = [artifact.manifest.version for artifact in publish_more(shop, 2)]
    waiting = write_version(shop.repo.data, seed=9).manifest.version
    pruned = prune_versions(shop.feature_store, shop.repo.data, "shop", keep=0, artifacts=True)
    assert pruned.artifacts == versions[:2]
    assert [path.name for path in version_folders(shop.repo.data, "shop")] == [versions[2], waiting]
    assert not list((shop.repo.data / "shop").glob(".*"))
    for entity in ("user", "item"):
        rows = duckdb.read_parquet(str(history_folder(shop.repo.data / "shop", entity))).project("version").fetchall()
        assert {version for (version,) in rows} == {versions[2], waiting}
    assert marks(shop) == [(versions[2], "lkd"), (waiting, "d")]


def test_before_anything_is_live(fresh: Shop) -> None:
    """There is nothing to go back to, the version on disk is listed, and pruning leaves it."""
    version = fresh.artifact.manifest.version
    with pytest.raises(NotPublishedError, match="run feast-embeddings publish"):
        roll_back(fresh.feature_store, fresh.repo.data, "shop")
    assert marks(fresh) == [(version, "d")]
    assert prune_versions(fresh.feature_store, fresh.repo.data, "shop", keep=0, artifacts=True).artifacts == []


def test_the_command_lines(fresh: Shop, command: Command) -> None:
    """versions, rollback and prune print what they did, as text and as JSON."""
    place = ("--repo", fresh.repo.path)
    fresh.publish()
    first = fresh.artifact.manifest.version
    second = write_version(fresh.repo.data, seed=1)
    publish_any(fresh.feature_store, second)
    lines = command("versions", *place).out.splitlines()
    assert lines[0].startswith(
        f"+ {first}  as of 2026-05-01T12:00:00  space shop-{first}  0.0 MiB on disk  random 8 dims"
    )
    assert lines[1].startswith(f"* {second.manifest.version}")
    assert lines[2] == "* is live, + is kept in Qdrant"
    rolled = json.loads(command("rollback", *place, "--json").out)
    assert (rolled["version"], rolled["previous"]) == (first, second.manifest.version)
    refused = command("rollback", *place)
    assert (refused.code, refused.err.count("\n")) == (2, 1)
    dry = command("prune", *place, "--keep", "0", "--dry-run")
    assert len(dry.out.splitlines()) == 2
    assert all(line.startswith("to be deleted: embeddings_shop_") for line in dry.out.splitlines())
    assert len(json.loads(command("prune", *place, "--keep", "0", "--json").out)["collections"]) == 2
    assert command("prune", *place, "--keep", "0").out == "nothing to delete\n"
    rows = json.loads(command("versions", *place, "--json").out)["versions"]
    assert [(row["version"], row["live"], row["kept"], row["on_disk"]) for row in rows] == [
        (first, True, True, True),
        (second.manifest.version, False, False, True),
    ]
    assert rows[0]["points"] == {"user": 20, "item": 40}
    assert rows[0]["space"] == fresh.artifact.manifest.space_id
    assert rows[0]["metrics"] == {}
