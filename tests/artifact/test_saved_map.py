"""Saved maps: read as written, without those who are forgotten, and gone with their version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.maps import save_any_map
from tests.support.shop import write_version

from feast_embeddings.artifact import Artifact, delete_artifacts
from feast_embeddings.artifact.forgetting import forget_on_disk
from feast_embeddings.artifact.saved_map import SavedMap, map_path, read_map
from feast_embeddings.errors import ArtifactError


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return write_version(tmp_path, n_users=12, n_items=9)


def read(artifact: Artifact, entity: str = "item") -> SavedMap:
    found = read_map(artifact.path, entity)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_it_is_read_as_written(artifact: Artifact) -> None:
    """All but what was never saved."""
    written, found = save_any_map(artifact, "item", ["<b>", "second"]), read(artifact)
    assert (found.ids, found.titles, found.labels) == (
        written.ids,
        written.titles,
        [(0.0, 1.0, "<b>"), (1.0, 1.0, "second")],
    )
    assert (found.places == written.places).all()
    for one, other in zip(found.colourings, written.colourings, strict=True):
        assert (one.name, one.groups, one.of_segments) == (other.name, other.groups, other.of_segments)
        assert (one.numbers == other.numbers).all()
    assert read_map(artifact.path, "user") is None


def test_those_who_are_forgotten_leave_it(artifact: Artifact, tmp_path: Path) -> None:
    """With a group of which they were the last, and the names of segments; the others stay where they were."""
    before = save_any_map(artifact, "item", ["a name"])
    odd = [f"sku-{row}" for row in range(9) if row % 2]
    assert forget_on_disk(tmp_path, "shop", {"item": pa.array(odd)}) == [artifact.manifest.version]
    after = read(artifact)
    assert after.ids.to_pylist() == [f"sku-{row}" for row in range(0, 9, 2)]
    assert (after.places == before.places[::2]).all()
    assert (after.titles, after.labels) == (before.titles[::2], [])
    assert [each.groups for each in after.colourings] == [["even"], ["segment 1"]]
    assert not any(each.numbers.any() for each in after.colourings)


def test_segments_of_users_may_be_named_by_an_item(artifact: Artifact, tmp_path: Path) -> None:
    """So the names go with any item; without one, they and all else stay."""
    before = save_any_map(artifact, "user", ["sku-1"])
    forget_on_disk(tmp_path, "shop", {"user": pa.array(["no-one"])})
    assert read(artifact, "user").labels == before.labels
    assert read(artifact, "user").colourings[1].groups == ["all", "sku-1"]
    forget_on_disk(tmp_path, "shop", {"item": pa.array(["sku-1"])})
    assert read(artifact, "user").labels == []
    assert [each.groups for each in read(artifact, "user").colourings] == [["even", "odd"], ["segment 1", "segment 2"]]
    assert read(artifact, "user").ids == before.ids


def test_what_cannot_be_read_is_forgotten_whole(artifact: Artifact, tmp_path: Path) -> None:
    """A damaged file, and what a killed writer left."""
    path = map_path(artifact.path, "item")
    left = path.with_name(f".{path.name}.0123.tmp")
    for file in (path, left):
        file.write_bytes(b"sku-1")
    with pytest.raises(ArtifactError, match=r"is damaged .* write it again with map --save"):
        read_map(artifact.path, "item")
    forget_on_disk(tmp_path, "shop", {"item": pa.array(["sku-1"])})
    assert [path.exists(), left.exists()] == [False, False]


def test_it_goes_with_its_version(artifact: Artifact, tmp_path: Path) -> None:
    save_any_map(artifact, "item")
    write_version(tmp_path, seed=1)
    delete_artifacts(tmp_path, "shop", [artifact.manifest.version])
    assert list(tmp_path.rglob("map-*")) == []


def test_only_all(artifact: Artifact) -> None:
    """Of no change, names stay."""
    drawn = save_any_map(artifact, "item", ["a name"])
    assert drawn.only(np.ones(9, np.bool_)) is drawn


def test_one_of_before_there_were_several_colourings(artifact: Artifact) -> None:
    """It had one, in the same column."""
    ids = pa.array(["sku-1", "sku-2"])
    table = pa.table(
        {"item_id": ids, "x": [1.0, 2.0], "y": [0.0, 0.0], "title": ["a", "b"], "group": pa.array([1, 0], pa.uint8())}
    )
    about = {"groups": '["even", "odd"]', "labels": '[[1.0, 0.0, "a name"]]'}
    pq.write_table(table.replace_schema_metadata(about), map_path(artifact.path, "item"))
    found = read(artifact)
    (only,) = found.colourings
    assert (only.name, only.groups, only.numbers.tolist()) == ("group", ["even", "odd"], [1, 0])
    assert found.labels == [(1.0, 0.0, "a name")]
