"""A team's repo whose feature views read tables of its own offline store, in PostgreSQL, files or a stand-in."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import numpy as np
import psycopg
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.data_format import ParquetFormat
from feast.data_source import DataSource
from feast.types import Int64, String
from tests.support.shop import AS_OF, DIM, item_table, write_tables
from tests.support.warehouse import WarehouseSource, run_sql

from feast_embeddings import embedding_views
from feast_embeddings.artifact import Artifact, EmbeddingTable
from feast_embeddings.repo import Repo, init_repo

__all__ = ["DAY", "ITEMS", "USERS", "Store", "Team", "make_team"]

Store = Literal["postgres", "duckdb", "dask", "warehouse"]
USERS = ["u-1", 'a "quoted", {brace} \\ back', "", "ünïcode\n", "u-5"]
ITEMS = [f"sku-{i}" for i in range(12)]
COMMON = (
    '"embedding" real[], "n_interactions" bigint, "made" timestamptz, "at" timestamptz, "version" text, "space" text'
)
USER_COLUMNS = f'"customer" text, {COMMON}, "seen_items" text[], "country" text, "note" text DEFAULT \'ours\''
ITEM_COLUMNS = (
    f'"item_id" text, {COMMON}, "bias" real, "title" text, "category" text, "price" double precision, "tags" text[]'
)
DAY = timedelta(days=1)


@dataclass
class Team:
    """A repo whose views read the team's own tables, and the dictionary of its versions."""

    store: Store
    repo: Repo
    uri: str
    schema: str
    truth: dict[tuple[str, str], list[tuple[datetime, str, list[float]]]] = field(default_factory=dict)

    def source(self, name: str, **more: Any) -> DataSource:
        if self.store == "postgres":
            from feast.infra.offline_stores.contrib.postgres_offline_store.postgres_source import PostgreSQLSource

            return PostgreSQLSource(name=name, table=f"{self.schema}.{name}", timestamp_field="at", **more)
        if self.store == "warehouse":
            return WarehouseSource(name=name, timestamp_field="at", **more)
        folder = self.repo.path / "warehouse" / name
        return FileSource(name=name, path=str(folder), file_format=ParquetFormat(), timestamp_field="at", **more)

    def apply(self, **more: Any) -> FeatureStore:
        feature_store = self.repo.feature_store()
        customer = Entity(name="customer", join_keys=["user_id"], value_type=ValueType.STRING)
        created = {"created_timestamp_column": "made"}
        views = embedding_views(
            "shop",
            self.repo.data,
            user_entity=customer,
            **{
                "user_source": self.source("users", field_mapping={"customer": "user_id"}, **created),
                "item_source": self.source("items", **created),
            }
            | more,
        )
        stats = FeatureView(
            name="stats",
            entities=[customer],
            schema=[Field(name="user_id", dtype=String), Field(name="orders", dtype=Int64)],
            source=self.source("stats"),
        )
        both = [views.user_embeddings, views.item_embeddings]
        service = FeatureService(name="both", features=[stats, *(view for view in both if view is not None)])
        feature_store.apply([customer, stats, service, *views.by_name().values()])
        return feature_store

    def train(self, seed: int, as_of: datetime, users: list[str], items: list[str]) -> Artifact:
        rng = np.random.default_rng(seed)
        table = EmbeddingTable(
            ids=pa.array(users),
            embedding=rng.standard_normal((len(users), DIM)).astype(np.float32),
            n_interactions=np.arange(len(users)),
            seen_items=pa.array([[], *[["sku-1", 'x"\\,{}'] for _ in users[1:]]]),
            attributes=pa.table({"country": pa.array([None, "", "NULL", *["DE"] * len(users)][: len(users)])}),
        )
        items_table = item_table(rng, pa.array(items))
        return write_tables(self.repo.data, table, items_table, as_of=as_of, seed=seed)

    def remember(self, artifact: Artifact) -> None:
        for entity in artifact.manifest.sides:
            table = artifact.table(entity)
            for id, vector in zip(table[f"{entity}_id"].to_pylist(), table["embedding"].to_pylist(), strict=True):
                at = (artifact.manifest.as_of, artifact.manifest.version, vector)
                self.truth.setdefault((entity, id), []).append(at)

    def newest(self, entity: str, id: str, time: datetime) -> tuple[str | None, list[float] | None]:
        known = [(version, vector) for as_of, version, vector in self.truth.get((entity, id), []) if as_of <= time]
        return known[-1] if known else (None, None)

    def sql(self, command: str) -> list[tuple[Any, ...]]:
        """Run SQL in the team's database."""
        if self.store == "warehouse":
            return run_sql(self.repo.path, command)
        with psycopg.connect(self.uri, autocommit=False) as connection:
            cursor = connection.execute(f"SET search_path = {self.schema}".encode())
            cursor.execute(command.encode())
            return cursor.fetchall() if cursor.description else []

    def rows(self, side: str) -> list[tuple[str, str]]:
        """The id and version of each row of a table, in order."""
        key = "customer" if side == "users" else "item_id"
        if self.store in ("postgres", "warehouse"):
            return sorted(self.sql(f'SELECT "{key}", version FROM {side}'))  # noqa: S608
        table = pq.read_table(self.repo.path / "warehouse" / side, columns=[key, "version"])
        return sorted(zip(*table.to_pydict().values(), strict=True))

    def all_of(self, *artifacts: Artifact) -> dict[str, list[tuple[str, str]]]:
        return {
            f"{side}s": sorted(
                (id, artifact.manifest.version)
                for artifact in artifacts
                for id in artifact.table(side)[f"{side}_id"].to_pylist()
            )
            for side in ("user", "item")
        }

    def both(self) -> dict[str, list[tuple[str, str]]]:
        return {side: self.rows(side) for side in ("users", "items")}


def make_team(store: Store, folder: Path, uri: str = "") -> Team:
    repo = init_repo(folder / "repo")
    file = repo.path / "feature_store.yaml"
    config = yaml.safe_load(file.read_text())
    schema = f"t{uuid.uuid4().hex}"  # the server is shared
    config["offline_store"] = {"type": store}
    if store == "warehouse":
        config["offline_store"] = {"type": "tests.support.warehouse.WarehouseOfflineStore", "password": "s3cret"}
    if store == "postgres":
        about = psycopg.conninfo.conninfo_to_dict(uri)
        config["offline_store"] |= {
            "host": about["host"],
            "port": int(about["port"] or 0),
            "database": about["dbname"],
            "user": about["user"],
            "password": about["password"],
            "sslmode": "disable",
            "db_schema": schema,
        }
    file.write_text(yaml.safe_dump(config))
    team = Team(store, repo, uri, schema)
    orders = {"user_id": USERS[:3], "orders": [1, 2, 3], "at": [AS_OF - DAY] * 3}
    if store == "postgres":
        with psycopg.connect(uri) as connection:
            connection.execute(f"CREATE SCHEMA {schema}".encode())
        team.sql(f"CREATE TABLE users ({USER_COLUMNS}); CREATE TABLE items ({ITEM_COLUMNS})")
        team.sql("CREATE TABLE stats (user_id text, orders bigint, at timestamptz)")
        with psycopg.connect(uri) as connection:
            connection.cursor().executemany(
                f"INSERT INTO {schema}.stats VALUES (%s, %s, %s)".encode(),  # noqa: S608
                list(zip(*orders.values(), strict=True)),
            )
    elif store == "warehouse":
        team.sql(f"CREATE TABLE users ({USER_COLUMNS}); CREATE TABLE items ({ITEM_COLUMNS})")
    else:
        (repo.path / "warehouse" / "stats").mkdir(parents=True)
        schema_of = pa.schema([("user_id", pa.string()), ("orders", pa.int64()), ("at", pa.timestamp("us", "UTC"))])
        pq.write_table(pa.table(orders, schema_of), repo.path / "warehouse" / "stats" / "1.parquet")
    return team
