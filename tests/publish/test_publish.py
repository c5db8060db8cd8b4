"""Publish: users and items switch together, queries answer from one version, what was live stays until then."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.support.publishing import publish_any
from tests.support.shop import AS_OF, Shop, apply, qdrant, write_version

from feast_embeddings._feast.private import online_store_of
from feast_embeddings.artifact import Entity
from feast_embeddings.errors import ArtifactError, InputError, VersionMismatchError
from feast_embeddings.online.store import QdrantEmbeddingOnlineStore
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import init_repo


def live_payloads(shop: Shop, view: str) -> list[dict[str, object]]:
    """Every live point of a view: payload and vectors, in the order of the ids."""
    store = online_store_of(shop.feature_store)
    assert isinstance(store, QdrantEmbeddingOnlineStore)
    engine = store.engine(shop.feature_store.config)
    collection = engine.aliases()[f"embeddings_{view}"]
    vectors = sorted(engine.describe(collection).vectors)
    entity: Entity = "user" if "user" in view else "item"
    codec = store.codec(shop.feature_store.config, shop.feature_store.get_feature_view(view))
    ids = codec.point_ids_of(shop.artifact.table(entity)[f"{entity}_id"].to_pylist())
    points = engine.retrieve(collection, ids, vectors=vectors)
    return [
        {"payload": point.payload, **{name: vector.tobytes() for name, vector in point.vectors.items()}}
        for point in points
        if point is not None
    ]


def test_vectors_are_served_bit_for_bit(shop: Shop) -> None:
    """After publish, by-id reads give the artifact's vectors, through us and through Feast."""
    store = shop.publish()
    items = shop.artifact.table("item")
    expected = items["embedding"].combine_chunks().flatten().to_numpy().reshape(40, 8)
    ids = items["item_id"].to_pylist()
    assert store.item_embeddings(ids).vectors.tobytes() == expected.tobytes()
    rows = shop.feature_store.get_online_features(
        features=["shop_item_embeddings:embedding", "shop_item_embeddings:bias", "shop_item_embeddings:price"],
        entity_rows=[{"item_id": id} for id in ids],
    ).to_dict()
    assert np.array(rows["embedding"], dtype=np.float32).tobytes() == expected.tobytes()
    assert rows["bias"] == items["bias"].to_pylist()
    assert rows["price"] == items["price"].to_pylist()


def test_publish_and_materialize_write_the_same_points(shop: Shop) -> None:
    """Our column-wise path and Feast's row-wise path agree on every payload and every byte of every vector."""
    for view in ("shop_user_embeddings", "shop_item_embeddings"):
        shop.feature_store.materialize(AS_OF - timedelta(days=1), AS_OF, feature_views=[view])
    by_feast = [live_payloads(shop, view) for view in ("shop_user_embeddings", "shop_item_embeddings")]
    shop.feature_store.teardown()  # type: ignore[no-untyped-call]
    apply(shop.repo)
    shop.publish()
    by_us = [live_payloads(shop, view) for view in ("shop_user_embeddings", "shop_item_embeddings")]
    assert [len(points) for points in by_us] == [20, 40]
    assert by_us == by_feast


@pytest.mark.parametrize("asynchronous", [False, True])
def test_one_request_of_feast_is_of_one_version(
    shop: Shop, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another version goes live after Feast has read the users and before it reads the items; the next sees it."""
    shop.publish()
    newer = write_version(shop.repo.data, seed=1)
    engine = qdrant(shop.feature_store).engine(shop.feature_store.config)
    retrieve = engine.retrieve

    def overtaken(*arguments: Any, **options: Any) -> Any:
        found = retrieve(*arguments, **options)
        monkeypatch.undo()
        assert publish_any(shop.feature_store, newer).changed
        return found

    def versions() -> list[str]:
        request: dict[str, Any] = {
            "features": [f"shop_{side}_embeddings:version" for side in ("user", "item")],
            "entity_rows": [{"user_id": "u-1", "item_id": "sku-1"}],
            "full_feature_names": True,
        }
        if asynchronous:
            answer = asyncio.run(shop.feature_store.get_online_features_async(**request))
        else:
            answer = shop.feature_store.get_online_features(**request)
        rows = answer.to_dict()
        return [rows[f"shop_{side}_embeddings__version"][0] for side in ("user", "item")]

    monkeypatch.setattr(engine, "retrieve", overtaken)
    assert versions() == [shop.artifact.manifest.version] * 2
    assert versions() == [newer.manifest.version] * 2


def test_publishing_again_changes_nothing(shop: Shop) -> None:
    """The same version twice is once."""
    assert publish_any(shop.feature_store, shop.artifact).changed
    assert not publish_any(shop.feature_store, shop.artifact).changed


def test_a_newer_version_replaces_both_sides(shop: Shop) -> None:
    """Queries answer from the new version, all of it; going back is publishing the old version again."""
    store = shop.publish()
    newer = write_version(shop.repo.data, seed=1, as_of=AS_OF + timedelta(days=1), n_items=10)
    publish_any(shop.feature_store, newer)
    found = store.item_embeddings(["sku-1", "sku-39"])
    assert (found.version, found.missing) == (newer.manifest.version, ["sku-39"])
    assert store.user_embeddings(["u-1"]).version == newer.manifest.version
    publish_any(shop.feature_store, shop.artifact)
    assert store.live_version() == shop.artifact.manifest.version
    assert store.item_embeddings(["sku-39"]).missing == []


def test_old_versions_are_dropped(shop: Shop) -> None:
    """The live version and two before it stay in Qdrant."""
    shop.publish()
    versions = [write_version(shop.repo.data, seed=seed, n_users=3, n_items=3) for seed in range(4)]
    for artifact in versions:
        publish_any(shop.feature_store, artifact)
    store = online_store_of(shop.feature_store)
    assert isinstance(store, QdrantEmbeddingOnlineStore)
    kept = store.engine(shop.feature_store.config).collections("embeddings_shop_item_embeddings")
    assert sorted(spec.version for spec in kept.values()) == [a.manifest.version for a in versions[1:]]
    shards = shop.repo.path / "qdrant_storage" / "shards"
    assert len(list(shards.iterdir())) == 6


def test_a_damaged_artifact_is_refused_and_the_live_version_stays(shop: Shop) -> None:
    """A flipped bit is found before anything is written."""
    store = shop.publish()
    newer = write_version(shop.repo.data, seed=1)
    path = newer.path / "users.parquet"
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    before = sorted((shop.repo.path / "qdrant_storage" / "shards").iterdir())
    with pytest.raises(ArtifactError, match="was changed after training"):
        publish_any(shop.feature_store, newer)
    assert store.live_version() == shop.artifact.manifest.version
    assert sorted((shop.repo.path / "qdrant_storage" / "shards").iterdir()) == before


def test_a_model_must_be_applied_first(tmp_path: Path) -> None:
    """Without `feast apply` the error says to run it, and nothing is written."""
    repo = init_repo(tmp_path / "repo")
    artifact = write_version(repo.data)
    with pytest.raises(InputError, match="run feast apply"):
        publish_any(repo.feature_store(), artifact)
    assert not (repo.path / "qdrant_storage").exists()


def test_another_schema_must_be_applied_first(shop: Shop) -> None:
    """A version with another dimension is refused until `feast apply` has told Feast of it, and then works."""
    shop.publish()
    newer = write_version(shop.repo.data, seed=1, dim=4)
    with pytest.raises(InputError, match=r"\(registered dimension 8, artifact 4\); run feast apply"):
        publish_any(shop.feature_store, newer)
    feature_store = apply(shop.repo)
    publish_any(feature_store, newer)
    assert EmbeddingStore(feature_store, "shop").item_embeddings(["sku-1"]).vectors.shape == (1, 4)


def test_materialize_does_not_mix_versions(shop: Shop) -> None:
    """Feast's own materialize cannot write an unpublished version into the live one."""
    store = shop.publish()
    newer = write_version(shop.repo.data, seed=1, as_of=AS_OF + timedelta(days=1))
    with pytest.raises(VersionMismatchError, match=f"version {newer.manifest.version}; publish that version"):
        shop.feature_store.materialize(
            AS_OF - timedelta(days=9), AS_OF + timedelta(days=9), feature_views=["shop_item_embeddings"]
        )
    assert store.item_embeddings(["sku-1"]).version == shop.artifact.manifest.version
    publish_any(shop.feature_store, newer)
    shop.feature_store.materialize(AS_OF - timedelta(days=9), AS_OF + timedelta(days=9))
    assert store.item_embeddings(["sku-1"]).version == newer.manifest.version


def test_rank_refuses_mixed_spaces(shop: Shop) -> None:
    """Users of one space and items of another: an error that names both, never a number."""
    first = shop.artifact.manifest
    shop.feature_store.materialize(AS_OF - timedelta(days=1), AS_OF, feature_views=["shop_user_embeddings"])
    second = write_version(shop.repo.data, seed=1, as_of=AS_OF + timedelta(days=1)).manifest
    shop.feature_store.materialize(
        AS_OF - timedelta(days=1), AS_OF + timedelta(days=1), feature_views=["shop_item_embeddings"]
    )
    store = EmbeddingStore(shop.feature_store, "shop")
    with pytest.raises(VersionMismatchError) as error:
        store.rank("u-1")
    assert first.space_id in str(error.value)
    assert second.space_id in str(error.value)


def test_feast_knows_that_the_views_are_served(shop: Shop) -> None:
    """Publish records the cut-off as materialized, so that Feast's state and freshness are right."""
    shop.publish()
    view = shop.feature_store.get_feature_view("shop_item_embeddings")
    assert view.materialization_intervals[-1][1] == AS_OF
    assert view.most_recent_end_time == AS_OF


def test_the_pointer_file_is_plain_json(shop: Shop) -> None:
    """What is live can be read without this package."""
    shop.publish()
    pointer = json.loads((shop.repo.path / "qdrant_storage" / "pointer.json").read_text())
    version = shop.artifact.manifest.version
    assert pointer["aliases"] == {
        f"embeddings_shop_{side}_embeddings": f"embeddings_shop_{side}_embeddings__{version}"
        for side in ("item", "user")
    }
