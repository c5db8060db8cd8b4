"""Whatever reads a version gives the same from several files as from one."""

from __future__ import annotations

import dataclasses
from datetime import timedelta
from pathlib import Path

import pandas as pd
import pytest
from tests.support.shop import AS_OF, Shop, apply, write_version

from feast_embeddings import EmbeddingFeatures, EmbeddingStore, publish_artifact
from feast_embeddings.artifact import table_files
from feast_embeddings.doctor import examine
from feast_embeddings.offline.diff import diff_artifacts
from feast_embeddings.offline.training_frame import training_frame
from feast_embeddings.repo import init_repo


@pytest.fixture
def shops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Shop]:
    """The same version in one file and in parts of 7 rows, published."""
    shops = []
    for name, rows in (("whole", table_files.PART_ROWS), ("parts", 7)):
        monkeypatch.setattr(table_files, "PART_ROWS", rows)
        repo = init_repo(tmp_path / name)
        shops.append(Shop(repo, write_version(repo.data), apply(repo)))
        publish_artifact(shops[-1].feature_store, shops[-1].artifact)
    return shops


def test_what_is_served_does_not_depend_on_the_files(shops: list[Shop]) -> None:
    """Ids, scores and exported rows are equal; a second publish finds nothing to do."""
    whole, parts = (EmbeddingStore(shop.feature_store, "shop") for shop in shops)
    assert whole.rank("u-3", k=40).ids == parts.rank("u-3", k=40).ids
    assert whole.similar_items("sku-9", k=39).ids == parts.similar_items("sku-9", k=39).ids
    exported = [
        store.export("user").read_all().drop_columns(["version", "space"]).sort_by("user_id")
        for store in (whole, parts)
    ]
    assert exported[0].equals(exported[1])
    assert not publish_artifact(shops[1].feature_store, shops[1].artifact).changed


def test_training_frames_and_features_do_not_depend_on_the_files(shops: list[Shop]) -> None:
    """The join by time, and the look-up in the newest version."""
    labels = pd.DataFrame({"user_id": ["u-0", "u-19", "u-7", "x"], "event_timestamp": AS_OF + timedelta(days=1)})
    one, many = (
        training_frame(shop.feature_store, "shop", labels, vectors="columns").filter(regex="embedding|user_id")
        for shop in shops
    )
    pd.testing.assert_frame_equal(one, many)
    one, many = (
        pd.DataFrame(EmbeddingFeatures(str(shop.repo.path), "shop", "user").fit_transform(labels[["user_id"]][:3]))
        for shop in shops
    )
    pd.testing.assert_frame_equal(one, many)


def test_versions_in_other_files_are_equal(shops: list[Shop], monkeypatch: pytest.MonkeyPatch) -> None:
    """A version differs from itself in nothing."""
    whole, parts = (shop.artifact for shop in shops)
    same = dataclasses.replace(parts, manifest=parts.manifest.model_copy(update={"space_id": whole.manifest.space_id}))
    found = diff_artifacts(whole, same)
    assert (found.top_overlap, found.sides["item"].neighbour_overlap, found.sides["user"].n_kept) == (1.0, 1.0, 20)
    assert found.sides["user"].cosine == pytest.approx(1.0)


def test_doctor_finds_nothing_wrong_with_parts_but_a_part_that_the_history_lost(shops: list[Shop]) -> None:
    """It compares the files one by one."""
    repo = shops[1].repo
    assert not [finding for finding in examine(repo).findings if finding.level == "problem"]
    next((repo.data / "shop" / "history" / "users").glob("*-00001.parquet")).unlink()
    (found,) = [finding for finding in examine(repo).findings if finding.level == "problem"]
    assert f"lacks versions ({shops[1].artifact.manifest.version}-00001)" in found.message
