"""How long a point-in-time join takes in each offline store, next to this package's `training_vectors`.

    python -m tests.benchmarks.offline_join
    python -m tests.benchmarks.offline_join --rows 100000

Each join runs in a process of its own and joins the same labelled rows with the same vectors, of one version a month:
Feast's `get_historical_features` from the files that training writes (dask, duckdb) and from a table that a publish
writes (postgres; the server is on this machine). Vectors are random: what they hold makes no difference to a join.
"""

from __future__ import annotations

import argparse
import multiprocessing
import shutil
import sys
import tempfile
import time
import warnings
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psycopg
import pyarrow as pa
import pytest
import yaml
from tests.support.postgres import postgres_server

from feast_embeddings import EmbeddingStore, embedding_views
from feast_embeddings.artifact import EmbeddingTable, TrainerInfo, list_artifacts, write_artifact
from feast_embeddings.model.sides import sides_of
from feast_embeddings.publish.history import history_tables, write_history
from feast_embeddings.repo import Repo, init_repo

_START = datetime(2026, 1, 1, tzinfo=UTC)
_MONTH = timedelta(days=30)
_TABLE = (
    'CREATE TABLE users ("user_id" text, "embedding" real[], "n_interactions" bigint, "event_timestamp" timestamptz, '
    '"created_timestamp" timestamptz, "version" text, "space" text)'
)


def make_versions(data: Path, versions: int, n_users: int, dim: int) -> None:
    """A model of users, so many versions, a month apart."""
    rng = np.random.default_rng(0)
    for version in range(versions):
        users = EmbeddingTable(
            ids=pa.array(np.char.add("u-", np.arange(n_users).astype(str))),
            embedding=rng.standard_normal((n_users, dim), dtype=np.float32),
            n_interactions=np.ones(n_users, dtype=np.int64),
        )
        write_artifact(
            data,
            "shop",
            users=users,
            items=None,
            as_of=_START + version * _MONTH,
            trainer=TrainerInfo(name="random", config={}),
            seed=0,
            metrics={},
            fingerprint="",
            n_interactions=n_users,
        )


def make_labels(rows: int, versions: int, n_users: int) -> pd.DataFrame:
    """Rows of random users, a tenth of them unknown, at random times from before the first version on."""
    rng = np.random.default_rng(1)
    seconds = rng.integers(-10 * 86_400, int(versions * _MONTH.total_seconds()), rows)
    return pd.DataFrame(
        {
            "user_id": np.char.add("u-", rng.integers(0, n_users * 10 // 9, rows).astype(str)).astype(object),
            "event_timestamp": (pd.Timestamp(_START) + pd.to_timedelta(seconds, unit="s")).as_unit("us"),
            "label": np.arange(rows),
        }
    )


def make_repo(folder: Path, data: Path, offline: dict[str, Any]) -> None:
    """A repo over these versions, with this offline store; in PostgreSQL they are written to its table."""
    repo = init_repo(folder)
    shutil.copytree(data, repo.data)
    file = repo.path / "feature_store.yaml"
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | {"offline_store": offline}))
    feature_store = repo.feature_store()
    if offline["type"] != "postgres":
        feature_store.apply(list(embedding_views("shop", repo.data).by_name().values()))
        return
    from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource

    source = PostgreSQLSource(
        table="users", timestamp_field="event_timestamp", created_timestamp_column="created_timestamp"
    )
    feature_store.apply(list(embedding_views("shop", repo.data, user_source=source).by_name().values()))
    side = sides_of(feature_store, "shop")["user"]
    began, written = time.perf_counter(), 0
    for artifact in list_artifacts(repo.data, "shop"):
        tables = history_tables(feature_store, artifact.manifest, [(side, artifact.verified("user"))])
        written += write_history(tables, repo.data / "shop")
    seconds = time.perf_counter() - began
    print(f"written to postgres: {written:,} rows in {seconds:.1f} s, {written / seconds:,.0f} a second", flush=True)


def measure(name: str, folder: Path, rows: int, versions: int, n_users: int) -> None:
    """Join once and print; runs in a process of its own."""
    warnings.simplefilter("ignore")
    feature_store = Repo.open(folder).feature_store()
    store = EmbeddingStore(feature_store, "shop")
    labels = make_labels(rows, versions, n_users)
    feature_store.list_feature_views()
    began = time.perf_counter()
    if name == "training_vectors":
        returned, found = rows, int(store.training_vectors(labels, allow_mixed_spaces=True).sides["user"].found.sum())
    else:
        features = ["shop_user_embeddings:embedding", "shop_user_embeddings:version"]
        joined = feature_store.get_historical_features(labels, features).to_df()
        returned, found = len(joined), int(joined["version"].notna().sum())
    seconds = time.perf_counter() - began
    print(f"{name:16} {seconds:8.1f} s: {returned:,} of {rows:,} rows, {found:,} with a vector", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--versions", type=int, default=5)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=64)
    options = parser.parse_args()
    print(f"{options.versions} versions of {options.users:,} users, {options.dim} factors; {options.rows:,} labels")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_versions(folder / "data", options.versions, options.users, options.dim)

        def join(what: str, repo: str) -> None:
            process = multiprocessing.get_context("spawn").Process(
                target=measure, args=(what, folder / repo, options.rows, options.versions, options.users)
            )
            process.start()
            process.join()
            if process.exitcode:
                print(f"{what} failed with exit code {process.exitcode}", file=sys.stderr)

        make_repo(folder / "duckdb", folder / "data", {"type": "duckdb"})
        join("training_vectors", "duckdb")
        join("duckdb", "duckdb")
        try:
            with postgres_server() as uri:
                about = psycopg.conninfo.conninfo_to_dict(uri)
                with psycopg.connect(uri) as connection:
                    connection.execute(_TABLE)
                place = {"host": about["host"], "port": int(about["port"] or 0), "database": about["dbname"]}
                login = {"user": about["user"], "password": about["password"], "sslmode": "disable"}
                make_repo(folder / "postgres", folder / "data", {"type": "postgres"} | place | login)
                join("postgres", "postgres")
        except pytest.skip.Exception as reason:
            print(f"postgres: not measured, {reason}")
        make_repo(folder / "dask", folder / "data", {"type": "dask"})
        join("dask", "dask")


if __name__ == "__main__":
    main()
