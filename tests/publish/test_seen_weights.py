"""Weights of what was seen, in a version of another program: served if they fit, else refused before any load."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.support.publishing import publish_any
from tests.support.shop import apply, item_table, qdrant, user_table, write_tables

from feast_embeddings.artifact import Artifact
from feast_embeddings.artifact.seen import NEXT_TO_SEEN
from feast_embeddings.codec.seen_weights import unpacked
from feast_embeddings.errors import InputError
from feast_embeddings.model.sides import side_of
from feast_embeddings.repo import init_repo

USERS, ITEMS = ["u-0", "u-1", "u-2"], ["a", "b"]
SEEN, WEIGHTS = [["b", "a"], [], ["a"]], [[0.1, 10.0], [], [3.0]]


def version(data: Path) -> Artifact:
    rng = np.random.default_rng(0)
    weights = pa.array(WEIGHTS, NEXT_TO_SEEN["seen_weights"])
    users = dataclasses.replace(user_table(rng, pa.array(USERS), SEEN), seen_weights=weights)
    return write_tables(data, users, item_table(rng, pa.array(ITEMS)))


def with_weights(artifact: Artifact, weights: pa.Array) -> Artifact:
    """The version as another program might have written it."""
    path = artifact.path / "users.parquet"
    table = pq.read_table(path, partitioning=None)
    table = table.set_column(table.column_names.index("seen_weights"), "seen_weights", weights)
    path.unlink()
    pq.write_table(table, path)
    info = artifact.manifest.files[path.name].model_copy(
        update={"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    )
    files = artifact.manifest.files | {path.name: info}
    manifest = artifact.manifest.model_copy(update={"files": files, "checksum": ""}).signed()
    (artifact.path / "manifest.json").write_bytes(manifest.to_bytes())
    return Artifact(artifact.path, manifest)


def test_points_have_them_bit_for_bit(tmp_path: Path) -> None:
    repo = init_repo(tmp_path / "repo")
    artifact = version(repo.data)
    feature_store = apply(repo)
    publish_any(feature_store, artifact)
    engine, side = qdrant(feature_store).engine(feature_store.config), side_of(feature_store, "shop", "user")
    points = engine.retrieve(engine.aliases()[side.alias], side.point_ids(USERS), vectors=[])
    for point, seen, weights in zip(points, SEEN, WEIGHTS, strict=True):
        assert point is not None
        assert side.codec.native("seen_items", point.payload) == seen
        assert unpacked(point.payload, len(seen)) == np.array(weights, np.float32).tolist()
    assert unpacked({}, 2) == [1.0, 1.0]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([[0.1, 10.0], [], []], "the row of 'u-2', column 'seen_weights': 0 values for 1 items"),
        ([[0.1, 10.0], [], [float("nan")]], "the row of 'u-2', column 'seen_weights': a weight that is not a number"),
        ([[0.1, None], [], [1.0]], "the row of 'u-0', column 'seen_weights': a null"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, weights: list[list[float | None]], message: str) -> None:
    repo = init_repo(tmp_path / "repo")
    artifact = with_weights(version(repo.data), pa.array(weights, NEXT_TO_SEEN["seen_weights"]))
    feature_store = apply(repo)
    with pytest.raises(InputError, match=message):
        publish_any(feature_store, artifact)
    assert qdrant(feature_store).engine(feature_store.config).aliases() == {}
