"""A repo that had a store keeps it: every old answer stays the same to the byte, and embeddings come next to it."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import yaml
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, PushSource, ValueType
from feast.data_source import PushMode
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64, String
from tests.support.shop import AS_OF, write_version

from feast_embeddings import EmbeddingStore, RoutedOnlineStoreConfig, embedding_views, publish_artifact
from feast_embeddings.doctor import examine
from feast_embeddings.errors import InputError
from feast_embeddings.online.store import QdrantEmbeddingOnlineStore
from feast_embeddings.repo import Repo

# Feast says so of every view that is computed on demand.
pytestmark = [
    pytest.mark.filterwarnings("ignore:On demand feature view is an experimental feature:RuntimeWarning"),
    # Feast's store in PostgreSQL never closes its connections.
    pytest.mark.filterwarnings("ignore:<psycopg.Connection:ResourceWarning"),
]

NOW = AS_OF + timedelta(days=1)
IDS = [f"u-{i}" for i in range(20)]
OLD = ["customer_stats:orders", "customer_stats:spend", "doubled:twice", "pushed_stats:orders"]
SQLITE = {"type": "sqlite", "path": "online.db"}


def sections(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The section online_store of the repo as it was."""
    if request.param == "sqlite":
        return dict(SQLITE)
    if request.param == "redis":
        pytest.importorskip("redis", reason="Feast's store in Redis needs redis")
        return {"type": "redis", "connection_string": request.getfixturevalue("redis_server")}
    pytest.importorskip("psycopg_pool", reason="Feast's store in PostgreSQL needs psycopg")
    uri = request.getfixturevalue("postgres")
    user, _, rest = uri.removeprefix("postgresql://").partition(":")
    password, _, place = rest.partition("@")
    host, _, port = place.removesuffix("/postgres").partition(":")
    return {
        "type": "postgres",
        "host": host,
        "port": int(port),
        "database": "postgres",
        "db_schema": "public",
        "user": user,
        "password": password,
        "sslmode": "disable",
    }


def definitions(folder: Path) -> list[Any]:
    """What the team had: a view of files, one that is pushed to, one computed on demand, and a service of them."""
    frame = pd.DataFrame(
        {
            "user_id": IDS,
            "orders": range(20),
            "spend": [i * 1.5 for i in range(20)],
            "event_timestamp": AS_OF,
        }
    )
    frame.to_parquet(folder / "stats.parquet")
    user = Entity(name="customer", join_keys=["user_id"], value_type=ValueType.STRING)
    source = FileSource(name="stats", path=str(folder / "stats.parquet"), timestamp_field="event_timestamp")
    schema = [
        Field(name="user_id", dtype=String),
        Field(name="orders", dtype=Int64),
        Field(name="spend", dtype=Float64),
    ]
    stats = FeatureView(name="customer_stats", entities=[user], schema=schema, source=source)
    pushed = FeatureView(
        name="pushed_stats", entities=[user], schema=schema, source=PushSource(name="push", batch_source=source)
    )

    @on_demand_feature_view(  # type: ignore[untyped-decorator]
        sources=[stats], schema=[Field(name="twice", dtype=Float64)], mode="pandas"
    )
    def doubled(frame: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"twice": frame["spend"] * 2})

    service = FeatureService(name="everything", features=[stats, doubled, pushed])
    return [user, source, stats, pushed, doubled, service]


def configure(folder: Path, online: dict[str, Any]) -> FeatureStore:
    config = {
        "project": "team",
        "provider": "local",
        "registry": str(folder / "registry.db"),
        "offline_store": {"type": "duckdb"},
        "online_store": online,
        "entity_key_serialization_version": 3,
    }
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(config))
    return FeatureStore(repo_path=str(folder))


def answer(feature_store: FeatureStore, features: Any = None) -> bytes:
    """Online features of all users and of a stranger, as they go over the wire."""
    rows = [{"user_id": id} for id in [*IDS, "stranger"]]
    found = feature_store.get_online_features(features or OLD, rows, full_feature_names=True).proto
    return bytes(found.SerializeToString(deterministic=True))


# Feast's store in Redis leaves those of an event loop open: connection, socket, transport.
REDIS = pytest.param("redis", marks=pytest.mark.filterwarnings("ignore::ResourceWarning"))


@pytest.fixture(params=["sqlite", "postgres", REDIS])
def team(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Path, FeatureStore, dict[str, Any]]]:
    """The repo before, with values in its store."""
    section = sections(request)
    feature_store = configure(tmp_path, section)
    feature_store.apply(definitions(tmp_path))
    feature_store.materialize(AS_OF - timedelta(days=1), NOW)
    more = pd.DataFrame({"user_id": ["u-1"], "orders": [99], "spend": [0.5], "event_timestamp": [NOW]})
    feature_store.push("push", more, to=PushMode.ONLINE)
    yield tmp_path, feature_store, section
    with warnings.catch_warnings():
        if request.param == "redis":
            warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()  # what is left open is noticed here, not in another test


def routed(section: dict[str, Any]) -> dict[str, Any]:
    return {"type": "feast_embeddings.RoutedOnlineStore", "default": section}


def test_nothing_of_theirs_changes(team: tuple[Path, FeatureStore, dict[str, Any]]) -> None:
    """Old answers are equal to the byte, new ones have both, and writes and teardown go where they went."""
    folder, before, section = team
    old, old_service = answer(before), answer(before, before.get_feature_service("everything"))

    feature_store = configure(folder, routed(section))
    artifact = write_version(folder / "data")
    (folder / "embeddings.py").write_text(
        'from feast_embeddings import embedding_views\nembedding_views("shop", "data")\n'
    )
    views = embedding_views("shop", folder / "data")
    feature_store.apply([*definitions(folder), *views.by_name().values()])
    publish_artifact(feature_store, artifact)
    assert answer(feature_store) == old
    assert answer(feature_store, feature_store.get_feature_service("everything")) == old_service

    # Both in one service, online ...
    stats = feature_store.get_feature_view("customer_stats")
    mixed = FeatureService(name="mixed", features=[stats, feature_store.get_feature_view("shop_user_embeddings")])
    feature_store.apply([mixed])
    found = feature_store.get_online_features(mixed, [{"user_id": "u-3"}, {"user_id": "x"}]).to_dict()
    expected = artifact.table("user")["embedding"].to_pylist()[3]
    assert (found["orders"], found["embedding"]) == ([3, None], [expected, None])
    on_loop = asyncio.run(feature_store.get_online_features_async(mixed, [{"user_id": "u-3"}])).to_dict()
    assert on_loop["embedding"] == [expected]
    # ... and offline.
    labels = pd.DataFrame({"user_id": ["u-3"], "event_timestamp": [NOW]})
    joined = feature_store.get_historical_features(labels, mixed).to_df()
    assert joined["orders"].tolist() == [3]
    assert joined["embedding"][0].tolist() == expected

    # Writes go to the store of the view.
    more = pd.DataFrame({"user_id": ["u-2"], "orders": [7], "spend": [7.5], "event_timestamp": [NOW]})
    feature_store.push("push", more, to=PushMode.ONLINE)
    feature_store.materialize(AS_OF - timedelta(days=1), NOW, feature_views=["customer_stats"])
    read = feature_store.get_online_features(["pushed_stats:orders"], [{"user_id": "u-2"}]).to_dict()
    assert read["orders"] == [7]
    assert answer(before) == answer(feature_store)  # the old configuration sees the same rows

    store = EmbeddingStore(feature_store, "shop")
    assert len(store.similar_users("u-3", k=5).ids) == 5
    assert [f.message for f in examine(Repo.open(folder)).findings if f.level == "problem"] == []

    feature_store.teardown()  # type: ignore[no-untyped-call]
    assert QdrantEmbeddingOnlineStore().engine(before_with_qdrant(folder).config).aliases() == {}
    before.apply(definitions(folder))
    assert answer(before) != old  # their rows are gone as well, as teardown says


def before_with_qdrant(folder: Path) -> FeatureStore:
    return configure(folder, {"type": "feast_embeddings.QdrantEmbeddingOnlineStore"})


def test_their_features_do_not_need_qdrant(tmp_path: Path) -> None:
    """With a server that is down every ordinary view is read and written; only embeddings fail."""
    feature_store = configure(tmp_path, {**routed(SQLITE), "url": "http://127.0.0.1:9", "retries": 0, "timeout": 1})
    write_version(tmp_path / "data")
    views = embedding_views("shop", tmp_path / "data")
    configure(tmp_path, routed(SQLITE)).apply([*definitions(tmp_path), *views.by_name().values()])
    feature_store = configure(tmp_path, {**routed(SQLITE), "url": "http://127.0.0.1:9", "retries": 0, "timeout": 1})
    feature_store.materialize(AS_OF - timedelta(days=1), NOW, feature_views=["customer_stats"])
    read = feature_store.get_online_features(["customer_stats:orders"], [{"user_id": "u-2"}]).to_dict()
    assert read["orders"] == [2]
    on_loop = asyncio.run(feature_store.get_online_features_async(["customer_stats:orders"], [{"user_id": "u-2"}]))
    assert on_loop.to_dict()["orders"] == [2]
    with pytest.raises(Exception, match="Qdrant could not list aliases"):
        feature_store.get_online_features(["shop_user_embeddings:embedding"], [{"user_id": "u-2"}])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "default"),
        ({"default": {"path": "x"}}, "default needs the type"),
        ({"default": {"type": "feast_embeddings.RoutedOnlineStore"}}, "would route to itself"),
        ({"default": {"type": "sqlite", "paths": "s3cret"}}, "settings of 'sqlite' cannot be used"),
        ({"default": {"type": "no.Such.Store"}}, "settings of 'no.Such.Store' cannot be used"),
        ({"default": SQLITE, "shards": 1}, "Extra inputs"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str) -> None:
    """When the repo is opened, in words of ours, and without what may be a password."""
    with pytest.raises(InputError, match=message) as error:
        RoutedOnlineStoreConfig(**settings)
    assert "s3cret" not in str(error.value)


def test_the_settings_of_the_other_store_are_not_shown() -> None:
    """Its password is in none of the texts of ours."""
    section = {"type": "postgres", "host": "h", "database": "d", "user": "u", "password": "s3cret"}
    pytest.importorskip("psycopg_pool", reason="Feast's store in PostgreSQL needs psycopg")
    settings = RoutedOnlineStoreConfig(default=section)
    assert "s3cret" not in repr(settings) + str(settings)


def test_a_template_repo_can_route(tmp_path: Path) -> None:
    """The ten lines of docs/into-your-repo.md, in a repo made by `feast init`."""
    from feast.repo_operations import init_repo as feast_init

    feast_init("ordinary", "local", repo_path=str(tmp_path / "ordinary"))
    folder = next((tmp_path / "ordinary").rglob("feature_store.yaml")).parent
    config = yaml.safe_load((folder / "feature_store.yaml").read_text())
    config["online_store"] = routed(config["online_store"])
    (folder / "feature_store.yaml").write_text(yaml.safe_dump(config))
    feature_store = FeatureStore(repo_path=str(folder))
    artifact = write_version(folder / "embeddings")
    feature_store.apply(list(embedding_views("shop", folder / "embeddings").by_name().values()))
    publish_artifact(feature_store, artifact)
    assert EmbeddingStore(feature_store, "shop").live_version() == artifact.manifest.version
