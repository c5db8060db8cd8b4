"""Vectors that were made elsewhere, from the command to the answers; and a model of items or users alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from qdrant_client import QdrantClient
from tests.conftest import Command
from tests.support.asking import Asking
from tests.support.serving import service_of
from tests.support.shop import ENGINES, Shop, apply, new_repo, qdrant

from embedding_trainers.importing import VectorFile, import_model
from feast_embeddings import EmbeddingFeatures, EmbeddingStore, publish_artifact
from feast_embeddings.artifact import Artifact, Entity
from feast_embeddings.doctor import examine
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.errors import FoldInError, InputError, MissingSideError
from feast_embeddings.offline.diff import diff_artifacts
from feast_embeddings.publish.versions import list_versions, prune_versions, roll_back
from feast_embeddings.repo import init_repo

N, DIM = 30, 8
OTHER: dict[Entity, Entity] = {"user": "item", "item": "user"}


def vectors(entity: Entity, seed: int = 0) -> pa.Table:
    matrix = np.random.default_rng(seed).standard_normal((N, DIM)).astype(np.float32)
    return pa.table(
        {
            f"{entity}_id": [f"{entity}-{n}" for n in range(N)],
            "embedding": pa.FixedSizeListArray.from_arrays(pa.array(matrix.reshape(-1)), DIM),
            "colour": ["red", "blue", "red"] * (N // 3),
        }
    )


def matrix_of(table: pa.Table) -> Any:
    return np.array(table["embedding"].to_pylist(), np.float32)


def nearest(table: pa.Table, row: int, k: int) -> list[str]:
    """The k nearest by cosine, without the row itself."""
    matrix = matrix_of(table).astype(np.float64)
    matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    order = np.argsort(-(matrix @ matrix[row]))
    return [table[0][int(other)].as_py() for other in order if other != row][:k]


def test_both_sides(tmp_path: Path, command: Command) -> None:
    """Import, publish, rank; the next version of the space passes the gates, one of another is refused."""
    repo = init_repo(tmp_path / "repo")
    files: list[object] = []
    for seed, entity in enumerate(OTHER):
        pq.write_table(vectors(entity, seed), tmp_path / f"{entity}s.parquet")
        files += [f"--{entity}s", tmp_path / f"{entity}s.parquet"]
    more = ["--as-of", "2026-01-31", "--source", "two-tower", "--metrics", "recall@20=0.25"]
    first = json.loads(
        command("import", "--repo", repo.path, "--model", "m", *files, *more, "--space", "tt", "--json").out
    )
    assert (first["as_of"], first["trainer"]["config"]) == ("2026-01-31T00:00:00Z", {"source": "two-tower"})
    apply(repo, "m")
    assert command("publish", "--repo", repo.path, "--quiet").code == 0
    ranked = json.loads(command("rank", "user-3", "--repo", repo.path, "-k", 5, "--json").out)
    scores = matrix_of(vectors("item", 1)) @ matrix_of(vectors("user", 0))[3]
    assert [hit["item_id"] for hit in ranked["neighbours"]] == [f"item-{n}" for n in np.argsort(-scores)[:5]]

    assert command("import", "--repo", repo.path, "--model", "m", *files, "--space", "tt").code == 0
    assert command("publish", "--repo", repo.path, "--quiet").code == 0
    assert command("import", "--repo", repo.path, "--model", "m", *files).code == 0
    refused = command("publish", "--repo", repo.path, "--quiet")
    assert (refused.code, "--allow-new-space" in refused.err) == (2, True)
    wrong = command("import", "--repo", repo.path, "--model", "m", *files, "--metrics", "recall")
    assert (wrong.code, wrong.err.count("\n"), "NAME=NUMBER" in wrong.err) == (2, 1, True)


@dataclass(frozen=True)
class OneSide:
    """A published model of one side, and the table that it came from."""

    entity: Entity
    shop: Shop
    table: pa.Table
    file: Path

    @property
    def store(self) -> EmbeddingStore:
        return EmbeddingStore(self.shop.feature_store, "shop")

    def write(self, seed: int) -> Artifact:
        pq.write_table(vectors(self.entity, seed), self.file)
        return import_model(self.shop.repo.path, "shop", {self.entity: VectorFile(self.file)}, space="s")


@pytest.fixture(params=[(engine, entity) for engine in ENGINES for entity in ("item", "user")], ids="-".join)
def one(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[OneSide]:
    engine, entity = request.param
    request.param = engine
    repo = new_repo(request, tmp_path / "repo")
    file = tmp_path / "vectors.parquet"
    pq.write_table(vectors(entity), file)
    artifact = import_model(repo.path, "shop", {entity: VectorFile(file)}, space="s")
    feature_store = apply(repo)
    if engine == "server-stand-in":
        qdrant(feature_store)._engine = ServerEngine(QdrantClient(":memory:"), streams=1)
    publish_artifact(feature_store, artifact)
    yield OneSide(entity, Shop(repo, artifact, feature_store), vectors(entity), file)
    feature_store.teardown()  # type: ignore[no-untyped-call]
    qdrant(feature_store).engine(feature_store.config).close()


def test_queries_of_one_side(one: OneSide) -> None:
    """Everything about the side is answered; everything that needs the other says in one line that there is none."""
    store, id, other = one.store, f"{one.entity}-3", OTHER[one.entity]
    similar, embeddings = (
        (store.similar_items, store.item_embeddings)
        if one.entity == "item"
        else (store.similar_users, store.user_embeddings)
    )
    assert similar(id, 5).ids == nearest(one.table, 3, 5)
    assert embeddings([id]).vectors.tobytes() == matrix_of(one.table)[3].tobytes()
    assert store.parse_id(one.entity, id) == id
    assert store.live_version() == one.shop.artifact.manifest.version
    exported = store.export(one.entity, filter="colour = 'red'").read_all()
    assert sorted(exported[f"{one.entity}_id"].to_pylist()) == sorted(
        f"{one.entity}-{n}" for n in range(N) if n % 3 != 1
    )
    assert len(store.page(one.entity, 10).ids) == 10
    assert [view.name for view in store.views] == [f"shop_{one.entity}_embeddings"]

    message = f"model 'shop' has no {other}s: its versions have vectors of {one.entity}s only"
    questions: list[Callable[[], object]] = [
        lambda: store.rank("x"),
        lambda: store.users_for_item("x"),
        lambda: store.export(other),
        lambda: store.page(other),
        lambda: store.parse_id(other, "x"),
        lambda: store.user_embeddings(["x"]) if other == "user" else store.item_embeddings(["x"]),
        lambda: store.similar_users("x") if other == "user" else store.similar_items("x"),
    ]
    for ask in questions:
        with pytest.raises(MissingSideError, match=message):
            ask()
    with pytest.raises(InputError):
        store.fold_in_users(pa.table({"user_id": ["x"], "item_id": ["item-1"], "timestamp": [0]}))
    with pytest.raises((FoldInError, MissingSideError)):
        store.rank_visitor({"item-1": 1.0})


def test_feast_and_frames_of_one_side(one: OneSide) -> None:
    """Online reads, the feature service, training frames and `EmbeddingFeatures` give the vectors of the side."""
    feature_store, key = one.shop.feature_store, f"{one.entity}_id"
    service = feature_store.get_feature_service("shop_embeddings")
    read = feature_store.get_online_features(service, [{key: f"{one.entity}-3"}], full_feature_names=True).to_dict()
    assert np.array(read[f"shop_{one.entity}_embeddings__embedding"][0], np.float32).tobytes() == (
        matrix_of(one.table)[3].tobytes()
    )
    labels = pd.DataFrame(
        {
            "user_id": ["user-1", "user-2"],
            "item_id": ["item-1", "item-2"],
            "event_timestamp": pd.Timestamp("2100-01-01", tz="UTC"),
        }
    )
    frame = one.store.training_frame(labels)
    assert [name for name in frame.columns if name.endswith("_embedding")] == [f"{one.entity}_embedding"]
    assert np.stack(list(frame[f"{one.entity}_embedding"])).tobytes() == matrix_of(one.table)[1:3].tobytes()
    with pytest.raises(MissingSideError, match=f"has no {OTHER[one.entity]}s"):
        one.store.training_frame(labels.drop(columns=key))
    features = EmbeddingFeatures(str(one.shop.repo.path), "shop", one.entity, version="newest")
    with pytest.raises(MissingSideError, match=f"has no {OTHER[one.entity]}s"):
        EmbeddingFeatures(str(one.shop.repo.path), "shop", OTHER[one.entity], version="newest").fit(["x"])
    assert features.fit_transform([f"{one.entity}-3"]).astype(np.float32).tobytes() == matrix_of(one.table)[3].tobytes()


def test_versions_of_one_side(one: OneSide) -> None:
    """A second version, its difference, doctor, rollback, publish from disk, and prune."""
    feature_store, data, first = one.shop.feature_store, one.shop.repo.data, one.shop.artifact
    second = one.write(seed=1)
    assert publish_artifact(feature_store, second).changed
    assert one.store.live_version() == second.manifest.version

    found = diff_artifacts(first, second)
    assert (list(found.sides), found.same_space, found.top_overlap) == ([one.entity], True, None)
    assert found.sides[one.entity].n_kept == N
    assert len(found.worst_moved) == 10

    counts = [(row.version, row.live, row.kept, row.points) for row in list_versions(feature_store, data, "shop")]
    assert counts == [
        (first.manifest.version, False, True, {one.entity: N}),
        (second.manifest.version, True, True, {one.entity: N}),
    ]
    back = roll_back(feature_store, data, "shop")
    assert (back.version, back.n_users + back.n_items) == (first.manifest.version, N)
    assert prune_versions(feature_store, data, "shop", keep=0).collections != []
    assert roll_back(feature_store, data, "shop", second.manifest.version).changed
    shutil.rmtree(data / "shop" / "history")
    assert prune_versions(feature_store, data, "shop", keep=9, artifacts=True).artifacts == []
    assert (
        len(
            one.store.training_frame(
                pd.DataFrame({f"{one.entity}_id": [f"{one.entity}-1"], "event_timestamp": ["2100-01-01"]})
            )
        )
        == 1
    )


def test_service_of_one_side(one: OneSide) -> None:
    """The service lists the model and answers for its side; for the other it is 404, in one line."""
    http = Asking(service_of(one.shop))
    (row,) = http.get("/v1/models").json()["models"]
    assert (row["name"], row["live_version"]) == ("shop", one.shop.artifact.manifest.version)
    assert http.get("/v1/models/shop/versions").json()["versions"][0]["loaded"] is True
    path, body = f"/v1/models/shop/similar_{one.entity}s", {f"{one.entity}_id": f"{one.entity}-3", "limit": 3}
    answer = http.post(path, body)
    assert answer.status_code == 200, answer.text
    other = OTHER[one.entity]
    missing = http.post(f"/v1/models/shop/similar_{other}s", {f"{other}_id": "x", "limit": 3})
    assert (missing.status_code, f"has no {other}s" in missing.json()["detail"]) == (404, True)
    assert "feast_embeddings_live_version" in http.get("/metrics").text


def test_doctor_of_one_side(tmp_path: Path) -> None:
    """A healthy model of items has no problem, and the one missing collection is still one."""
    repo = init_repo(tmp_path / "repo")
    pq.write_table(vectors("item"), tmp_path / "i.parquet")
    artifact = import_model(repo.path, "shop", {"item": VectorFile(tmp_path / "i.parquet")})
    publish_artifact(apply(repo), artifact)
    findings = examine(repo).findings
    assert [found for found in findings if found.level == "problem"] == []
    messages = {found.check: found.message for found in findings if found.model == "shop"}
    assert messages["registry"] == "the view of its items is applied, of dimension 8"
    assert messages["live"] == f"{artifact.manifest.version}: {N} items"
    assert messages["spaces"] == f"items are of {artifact.manifest.space_id}"
    assert messages["drift"] == f"{N} sampled vectors equal the files bit for bit"


def test_a_column_of_ids_that_was_named(tmp_path: Path, command: Command) -> None:
    """It is the only one that counts."""
    init_repo(tmp_path / "repo")
    path = tmp_path / "items.csv"
    path.write_text('item_id,embedding\na,"[1, 2]"\n')
    where = ("--repo", tmp_path / "repo", "--model", "films", "--items", path)
    ran = command("import", *where, "--item-column", "sku")
    assert (ran.code, "has no column 'sku'" in ran.err) == (2, True)
    assert command("import", *where).code == 0
