"""A small model on disk and in a Feast repo, made without training: random vectors are as good for serving."""

from __future__ import annotations

import contextlib
import functools
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from feast import FeatureStore
from qdrant_client import QdrantClient
from tests.support.job import CONTEXT, PRELOADED, TIMEOUT, Job
from tests.support.publishing import publish_any

from feast_embeddings import embedding_views
from feast_embeddings._feast.private import online_store_of
from feast_embeddings.artifact import Alignment, Artifact, EmbeddingTable, TrainerInfo, write_artifact
from feast_embeddings.engines.embedded import shards as edge_shards
from feast_embeddings.engines.server.engine import ServerEngine
from feast_embeddings.online.store import QdrantEmbeddingOnlineStore
from feast_embeddings.publish import verify
from feast_embeddings.query.store import EmbeddingStore
from feast_embeddings.repo import Repo, init_repo

DIM = 8
AS_OF = datetime(2026, 5, 1, 12, tzinfo=UTC)

WriteVersion = Callable[..., Artifact]


def user_table(
    rng: np.random.Generator, ids: pa.Array, seen: list[list[Any]] | None = None, dim: int = DIM
) -> EmbeddingTable:
    n = len(ids)
    return EmbeddingTable(
        ids=ids,
        embedding=rng.standard_normal((n, dim)).astype(np.float32),
        n_interactions=np.arange(1, n + 1),
        seen_items=None if seen is None else pa.array(seen),
        attributes=pa.table({"country": pa.array(["NL", "DE"] * n).slice(0, n)}),
    )


def item_table(rng: np.random.Generator, ids: pa.Array, dim: int = DIM) -> EmbeddingTable:
    n = len(ids)
    attributes = {
        "title": [f"Item {i}" for i in range(n)],
        "category": ["Books" if i % 3 else "Toys" for i in range(n)],
        "price": [None if i == 4 else i * 1.1 for i in range(n)],
        "tags": [["new", "red"] if i % 2 else [] for i in range(n)],
    }
    return EmbeddingTable(
        ids=ids,
        embedding=rng.standard_normal((n, dim)).astype(np.float32),
        n_interactions=np.arange(1, n + 1),
        bias=rng.standard_normal(n).astype(np.float32),
        attributes=pa.table(attributes),
    )


def write_version(
    data: Path,
    *,
    seed: int = 0,
    as_of: datetime = AS_OF,
    n_users: int = 20,
    n_items: int = 40,
    model: str = "shop",
    dim: int = DIM,
    alignment: Alignment | None = None,
    trainer: TrainerInfo | None = None,
    metrics: dict[str, float] | None = None,
    interactions: dict[str, Any] | None = None,
) -> Artifact:
    """A version with random vectors, said to be of a trainer; user u-i has seen items i and i + 1."""
    rng = np.random.default_rng(seed)
    users = pa.array([f"u-{i}" for i in range(n_users)])
    items = pa.array([f"sku-{i}" for i in range(n_items)])
    seen = [[f"sku-{i % n_items}", f"sku-{(i + 1) % n_items}"] for i in range(n_users)]
    return write_artifact(
        data,
        model,
        users=user_table(rng, users, seen, dim),
        items=item_table(rng, items, dim),
        as_of=as_of,
        trainer=trainer or TrainerInfo(name="random", config={}),
        seed=seed,
        metrics=metrics or {},
        fingerprint="0" * 64,
        n_interactions=2 * n_users,
        interactions=interactions,
        alignment=alignment,
    )


def write_tables(
    data: Path,
    users: EmbeddingTable | None = None,
    items: EmbeddingTable | None = None,
    *,
    model: str = "shop",
    as_of: datetime = AS_OF,
    seed: int = 0,
) -> Artifact:
    """A version of these tables, said to be of a trainer."""
    return write_artifact(
        data,
        model,
        users=users,
        items=items,
        as_of=as_of,
        trainer=TrainerInfo(name="random", config={}),
        seed=seed,
        metrics={},
        fingerprint="0" * 64,
        n_interactions=1,
    )


@contextlib.contextmanager
def graphs_of_few() -> Iterator[None]:
    """What is published in the block gets graphs, however few the vectors, and whatever the graphs find."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(edge_shards, "_GRAPH_KB", 1)
        patch.setattr(verify, "_LARGE_BYTES", 1)
        patch.setattr(verify, "MIN_RECALL", 0.0)
        yield


def alignment_to(artifact: Artifact) -> Alignment:
    """What training writes down after it has rotated a version into the space of another."""
    return Alignment(
        version=artifact.manifest.version,
        space_id=artifact.manifest.space_id,
        residual=0.25,
        shared_users=10,
        shared_items=20,
        cosine_before=0.0,
        cosine=0.875,
    )


@dataclass(frozen=True)
class Shop:
    """A repo with one applied model."""

    repo: Repo
    artifact: Artifact
    feature_store: FeatureStore

    def publish(self) -> EmbeddingStore:
        publish_any(self.feature_store, self.artifact)
        return EmbeddingStore(self.feature_store, "shop")


def apply(repo: Repo, model: str = "shop") -> FeatureStore:
    """What `feast apply` does in this repo, in this process."""
    feature_store = repo.feature_store()
    feature_store.apply(list(embedding_views(model, repo.data).by_name().values()))
    return feature_store


# The stand-in runs our server code against the client's in-process imitation of a server.
ENGINES = ["embedded", "server-stand-in", "server"]


def new_repo(request: pytest.FixtureRequest, path: Path) -> Repo:
    """A repo of a project of its own, on the engine that `request.param` names."""
    repo = init_repo(path)
    config = yaml.safe_load((repo.path / "feature_store.yaml").read_text())
    config["project"] = f"shop_{uuid.uuid4().hex}"  # a server may be shared
    if request.param == "server":
        server = request.getfixturevalue("qdrant_server")
        config["online_store"] = {"type": config["online_store"]["type"], "url": server.url}
        config["online_store"]["grpc_port"] = server.grpc_port
    (repo.path / "feature_store.yaml").write_text(yaml.safe_dump(config))
    return repo


def served_shop(request: pytest.FixtureRequest, folder: Path, write: WriteVersion = write_version) -> Iterator[Shop]:
    """A published version in a repo on the engine that `request.param` names; for fixtures of any scope."""
    repo = new_repo(request, folder / "repo")
    yield from serving(request, repo, write(repo.data))


def serving(request: pytest.FixtureRequest, repo: Repo, artifact: Artifact, *more: Artifact) -> Iterator[Shop]:
    """A repo of `new_repo` with a published version of the shop, and of any other applied models."""
    feature_store = apply(repo)
    if request.param == "server-stand-in":
        qdrant(feature_store)._engine = ServerEngine(QdrantClient(":memory:"), streams=1)
    for each in (artifact, *more):
        publish_any(feature_store, each)
    yield Shop(repo, artifact, feature_store)
    feature_store.teardown()  # type: ignore[no-untyped-call]
    qdrant(feature_store).engine(feature_store.config).close()


METRICS = {"recall@20": 0.25, "popular_recall@20": 0.125}


@pytest.fixture(scope="session", params=["embedded"])
def common_shop(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """One published shop for all tests that only read."""
    write = functools.partial(write_version, metrics=METRICS)
    yield from served_shop(request, tmp_path_factory.mktemp("shop"), write)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    """A repo with one trained and applied, but not yet published, version."""
    repo = init_repo(tmp_path / "repo")
    artifact = write_version(repo.data)
    return Shop(repo, artifact, apply(repo))


MakeStore = Callable[..., FeatureStore]


def qdrant(feature_store: FeatureStore) -> QdrantEmbeddingOnlineStore:
    online = online_store_of(feature_store)
    assert isinstance(online, QdrantEmbeddingOnlineStore)
    return online


@pytest.fixture(params=["embedded", "server"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeStore]:
    """Makes Feast repos of any feature views, whose online store is each engine in turn; settings by keyword."""
    made: list[FeatureStore] = []

    def make(*, registry: dict[str, Any] | None = None, **settings: Any) -> FeatureStore:
        online: dict[str, Any] = {"type": "feast_embeddings.QdrantEmbeddingOnlineStore", **settings}
        if request.param == "server":
            server = request.getfixturevalue("qdrant_server")
            online |= {"url": server.url, "grpc_port": server.grpc_port}
        folder = tmp_path / f"repo{len(made)}"
        folder.mkdir()
        config = {
            "project": f"t{len(made)}" + tmp_path.name.replace("-", "_").lower()[-40:],
            "provider": "local",
            "registry": {"path": "registry.db", "serve_features_while_materializing": True} | (registry or {}),
            "offline_store": {"type": "duckdb"},
            "online_store": online,
            "entity_key_serialization_version": 3,
        }
        (folder / "feature_store.yaml").write_text(yaml.safe_dump(config))
        made.append(FeatureStore(repo_path=str(folder)))
        return made[-1]

    yield make
    for feature_store in made:
        feature_store.teardown()  # type: ignore[no-untyped-call]
        engine = qdrant(feature_store).engine(feature_store.config)
        assert not [alias for alias in engine.aliases() if alias.startswith(feature_store.project)]
        engine.close()


@pytest.fixture
def store(make_store: MakeStore) -> FeatureStore:
    """A Feast repo with an empty registry, its online store each engine in turn."""
    return make_store()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Job]]:
    """Starts jobs, and ends those that are left at the end of the test."""
    # The other process imports process_jobs under the name that pytest gave it.
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    CONTEXT.set_forkserver_preload(PRELOADED)
    started: list[Job] = []

    def make(function: Callable[..., None], *arguments: Any) -> Job:
        started.append(Job(function, *arguments))
        return started[-1]

    yield make
    for job in started:
        job.process.kill()
        job.process.join(TIMEOUT)
        job.process.close()
        job.pipe.close()
