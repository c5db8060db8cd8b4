"""A stand-in for a warehouse: an offline store of another package, which appends as Feast's for BigQuery does.

Its tables are in a DuckDB file in the repo. It reads whole tables and appends; it joins nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import duckdb
import pyarrow as pa
from feast import FeatureView, RepoConfig
from feast.data_source import DataSource
from feast.infra.offline_stores.offline_store import OfflineStore
from feast.infra.offline_stores.offline_utils import get_pyarrow_schema_from_batch_source
from feast.protos.feast.core.DataSource_pb2 import DataSource as DataSourceProto
from feast.repo_config import FeastConfigBaseModel
from feast.value_type import ValueType

__all__ = ["ReadOnlyOfflineStore", "WarehouseOfflineStore", "WarehouseSource", "run_sql"]

_TYPES = {
    "VARCHAR": ValueType.STRING,
    "BIGINT": ValueType.INT64,
    "FLOAT": ValueType.FLOAT,
    "DOUBLE": ValueType.DOUBLE,
    "TIMESTAMP WITH TIME ZONE": ValueType.UNIX_TIMESTAMP,
    "FLOAT[]": ValueType.FLOAT_LIST,
    "DOUBLE[]": ValueType.DOUBLE_LIST,
    "VARCHAR[]": ValueType.STRING_LIST,
}


def run_sql(repo: Path, command: str, **tables: pa.Table) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(repo / "warehouse.duckdb")) as connection:
        for name, table in tables.items():
            connection.register(name, table)
        return connection.execute(command).fetchall()


class WarehouseSource(DataSource):
    """A table, which has the name of the source."""

    def source_type(self) -> Any:
        return DataSourceProto.CUSTOM_SOURCE

    @staticmethod
    def from_proto(data_source: DataSourceProto) -> WarehouseSource:
        return WarehouseSource(
            name=data_source.name,
            timestamp_field=data_source.timestamp_field,
            created_timestamp_column=data_source.created_timestamp_column,
            field_mapping=dict(data_source.field_mapping),
        )

    def _to_proto_impl(self) -> DataSourceProto:
        return DataSourceProto(
            name=self.name,
            type=DataSourceProto.CUSTOM_SOURCE,
            data_source_class_type=f"{__name__}.WarehouseSource",
            custom_options=DataSourceProto.CustomSourceOptions(configuration=json.dumps({}).encode()),
            timestamp_field=self.timestamp_field,
            created_timestamp_column=self.created_timestamp_column,
            field_mapping=self.field_mapping,
        )

    def validate(self, config: RepoConfig) -> None:
        pass

    def get_table_column_names_and_types(self, config: RepoConfig) -> Iterable[tuple[str, str]]:
        known = "SELECT column_name, data_type FROM duckdb_columns() "
        names = f"{known} WHERE table_name = '{self.name}' ORDER BY column_index"
        if not (found := run_sql(Path(config.repo_path or "."), names)):
            raise ValueError(f"no table {self.name} for the password s3cret\nwith more")
        return [(name, dtype) for name, dtype in found]

    @staticmethod
    def source_datatype_to_feast_value_type() -> Callable[[str], ValueType]:
        return lambda name: _TYPES[name]

    def get_table_query_string(self) -> str:
        return self.name


class WarehouseOfflineStoreConfig(FeastConfigBaseModel):
    type: Literal["tests.support.warehouse.WarehouseOfflineStore"] = "tests.support.warehouse.WarehouseOfflineStore"
    password: str = ""


class WarehouseOfflineStore(OfflineStore):
    @staticmethod
    def get_historical_features(*arguments: Any, **more: Any) -> Any:
        raise NotImplementedError

    @staticmethod
    def pull_latest_from_table_or_query(*arguments: Any, **more: Any) -> Any:
        raise NotImplementedError

    @staticmethod
    def pull_all_from_table_or_query(
        config: RepoConfig,
        data_source: DataSource,
        join_key_columns: list[str],
        feature_name_columns: list[str],
        timestamp_field: str,
        created_timestamp_column: str | None = None,
        start_date: datetime | None = None,
        end_date: datetime | None = None,
    ) -> Any:
        columns = ", ".join(f'"{name}"' for name in [*join_key_columns, *feature_name_columns, timestamp_field])
        with duckdb.connect(str(Path(config.repo_path or ".") / "warehouse.duckdb")) as connection:
            query = f'SELECT {columns} FROM {data_source.name} WHERE "{timestamp_field}" BETWEEN ? AND ?'  # noqa: S608
            table = connection.sql(query, params=[start_date, end_date]).to_arrow_table()
        return SimpleNamespace(to_arrow=lambda: table)

    @staticmethod
    def offline_write_batch(
        config: RepoConfig, feature_view: FeatureView, table: pa.Table, progress: Callable[[int], Any] | None
    ) -> None:
        source = feature_view.batch_source
        assert source is not None
        schema, names = get_pyarrow_schema_from_batch_source(config, source)
        if names != table.column_names or table.schema != schema:
            raise ValueError(f"expected {schema}, got {table.schema}")
        run_sql(Path(config.repo_path or "."), f"INSERT INTO {source.name} SELECT * FROM new_rows", new_rows=table)  # noqa: S608


class ReadOnlyOfflineStoreConfig(FeastConfigBaseModel):
    type: Literal["tests.support.warehouse.ReadOnlyOfflineStore"] = "tests.support.warehouse.ReadOnlyOfflineStore"


class ReadOnlyOfflineStore(WarehouseOfflineStore):
    """One that does not write, as Feast's in PostgreSQL."""

    offline_write_batch = OfflineStore.offline_write_batch
