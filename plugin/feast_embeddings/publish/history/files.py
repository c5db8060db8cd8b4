"""A history in a folder of Parquet files that the repo gave: a file per version, whole or not there."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq
from feast import FeatureStore, FileSource

from feast_embeddings._feast.offline_store import file_system, first_line
from feast_embeddings.artifact.history import folder_of_source
from feast_embeddings.artifact.table_files import fsync
from feast_embeddings.errors import EngineError, InputError
from feast_embeddings.publish.history.rows import HistoryRows, check_columns

__all__ = ["FileTable"]

_ROWS = 10_000


class FileTable:
    """The folder of a `FileSource`. Feast's own write would rewrite a file in place, and a kill leave half of it."""

    def __init__(self, feature_store: FeatureStore, rows: HistoryRows, source: FileSource) -> None:
        self._feature_store = feature_store
        self._rows = rows
        path = source.path if "://" in source.path else str(folder_of_source(source.path))
        self._system, self._folder = file_system(feature_store, source, path)
        self.name = f"folder {path}"

    def check(self) -> None:
        """Check that the path can be a folder, and that the files in it have the columns."""
        try:
            if self._system.get_file_info(self._folder).type == pafs.FileType.File:
                raise InputError(
                    f"{self.name} is a file, expected a folder, which gets a file per version. Nothing was changed"
                )
            schema = self._schema
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(f"{self.name} cannot be read: {first_line(self._feature_store, error)}") from None
        types = {field.name: field.type for field in schema}
        check_columns(self.name, self._rows, types, {field.type: (field.type,) for field in self._rows.schema})

    def write(self) -> int:
        """Write the version's file, unless it is there."""
        target = f"{self._folder}/{self._rows.version}.parquet"
        try:
            if self._system.get_file_info(target).type == pafs.FileType.File:
                return 0
            self._system.create_dir(self._folder, recursive=True)
            if not isinstance(self._system, pafs.LocalFileSystem):  # an object appears when it is complete
                self._write(target)
                return self._rows.n
            # Next to the folder: Feast reads every file in it. One that a kill left is written over.
            temporary = Path(f"{self._folder}.{self._rows.version}.tmp")
            self._write(str(temporary))
            fsync(temporary)
            temporary.replace(target)
        except OSError as error:
            raise EngineError(
                f"{self.name} cannot be written: {first_line(self._feature_store, error)}; the live version stays"
            ) from None
        return self._rows.n

    def _write(self, path: str) -> None:
        schema = self._schema
        with self._system.open_output_stream(path) as file, pq.ParquetWriter(file, schema) as writer:
            for batch in self._rows.batches(_ROWS):
                arrays = [
                    batch.column(field.name) if field.name in batch.schema.names else pa.nulls(len(batch), field.type)
                    for field in schema
                ]
                writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=schema))

    @cached_property
    def _schema(self) -> pa.Schema:
        """The columns of the files that are there, which may have more than this version; else its rows' columns."""
        selector = pafs.FileSelector(self._folder, allow_not_found=True)
        paths = sorted(info.path for info in self._system.get_file_info(selector) if info.path.endswith(".parquet"))
        if not paths:
            return self._rows.schema
        return pq.read_schema(paths[0], filesystem=self._system).remove_metadata()
