"""Feast compute engine that moves Arrow from Parquet files to the online store. Selected in feature_store.yaml::

    batch_engine:
      type: feast_embeddings.ArrowComputeEngine

`feast materialize` and `materialize-incremental` then make no protobuf message per row. Views that this engine does
not support, e.g. with a transformation, run as in Feast's own local engine, which it extends; the log gives the reason
at debug level.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from feast import FeatureView, FileSource
from feast.data_format import ParquetFormat
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.compute_engines.local.compute import LocalComputeEngineConfig
from feast.infra.compute_engines.local.job import LocalMaterializationJob
from feast.infra.registry.base_registry import BaseRegistry

from feast_embeddings._feast.compute_engine import ViewEngine
from feast_embeddings._feast.private import source_columns
from feast_embeddings.artifact.history import folder_of_source
from feast_embeddings.artifact.plain_columns import plain_type
from feast_embeddings.artifact.seen import SEEN, SEEN_WEIGHTS
from feast_embeddings.errors import InputError
from feast_embeddings.online.store import QdrantEmbeddingOnlineStore
from feast_embeddings.times import to_microseconds

__all__ = ["ArrowComputeEngine", "ArrowComputeEngineConfig"]

_log = logging.getLogger(__name__)
_ROWS = 10_000
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_INT64 = np.iinfo(np.int64)


class ArrowComputeEngineConfig(LocalComputeEngineConfig):
    """The `batch_engine` section of feature_store.yaml; `backend` is for views that run as in Feast's own engine.

    Stability: stable, see docs/compatibility.md.
    """

    type: Literal["feast_embeddings.ArrowComputeEngine"] = "feast_embeddings.ArrowComputeEngine"  # type: ignore[assignment]


class ArrowComputeEngine(ViewEngine):
    """Materializes feature views over Parquet files into `QdrantEmbeddingOnlineStore`, column by column.

    The result is the same as with Feast's local engine: per entity the row with the latest event timestamp in the
    window, both ends included; of equal ones the latest created timestamp; of equal ones the first in the file. The
    files are read twice, first the keys and timestamps, then the kept rows, so that memory does not grow with the
    vectors.

    Stability: stable, see docs/compatibility.md.
    """

    def materialize_view(
        self, registry: BaseRegistry, task: MaterializationTask, **kwargs: Any
    ) -> LocalMaterializationJob:
        """Materialize supported views column by column, others as Feast does."""
        job_id = f"{task.feature_view.name}-{task.start_time}-{task.end_time}"
        try:
            understood = self._understand(registry, task)
            if understood is not None:
                self._write(*understood, task)
        except Exception as error:
            # As in Feast's engine: the caller raises it after it has rolled back the state of the view.
            return LocalMaterializationJob(job_id, MaterializationJobStatus.ERROR, error)
        if understood is None:
            return super().materialize_view(registry, task, **kwargs)
        return LocalMaterializationJob(job_id, MaterializationJobStatus.SUCCEEDED)

    def _understand(
        self, registry: BaseRegistry, task: MaterializationTask
    ) -> tuple[QdrantEmbeddingOnlineStore, _Source] | None:
        try:
            return self._plan(registry, task)
        except _NotUnderstoodError as reason:
            _log.debug("feature view %r is materialized by Feast's local engine: %s", task.feature_view.name, reason)
            return None

    def _plan(self, registry: BaseRegistry, task: MaterializationTask) -> tuple[QdrantEmbeddingOnlineStore, _Source]:
        view, store = task.feature_view, self.online_store
        if not isinstance(store, QdrantEmbeddingOnlineStore):
            raise _NotUnderstoodError(f"the online store is {type(store).__name__}")
        if not store.holds(view):
            raise _NotUnderstoodError("it is in another online store")
        if type(view) is not FeatureView:
            raise _NotUnderstoodError(f"it is a {type(view).__name__}")
        for name in ("feature_transformation", "aggregations", "source_views", "filter", "enable_validation"):
            if getattr(view, name, None):
                raise _NotUnderstoodError(f"it has {name}")
        if view.offline or not view.online or not task.only_latest:
            raise _NotUnderstoodError("it needs more than the latest rows in the online store")
        dataset = _open(view.batch_source, Path(self.repo_config.repo_path or "."))
        entities = [registry.get_entity(name, task.project) for name in view.entities]
        return store, _Source(view, dataset, *source_columns(view, entities))

    def _write(self, store: QdrantEmbeddingOnlineStore, source: _Source, task: MaterializationTask) -> None:
        window = source.window(task.start_time, task.end_time)
        kept = source.latest(window)
        if not kept.mask.any():
            return
        n = int(kept.mask.sum())
        bar = task.tqdm_builder(n) if task.tqdm_builder else None
        try:
            store.online_write_table(
                self.repo_config,
                source.view,
                source.rows(window, kept),
                bar.update if bar is not None else None,
                versions=kept.versions,
                timestamp_field=source.name(source.timestamp),
            )
        finally:
            if bar is not None:
                bar.close()


class _NotUnderstoodError(Exception):
    """The reason why a view is left to Feast's own engine."""


@dataclass(frozen=True)
class _Kept:
    """The rows in a window that are written.

    Attributes:
        mask: bool (n,), over the rows in the window in the order of the files.
        moments: int64 (n,), their event timestamps, to notice that the files changed between the two readings.
        versions: number of kept rows by the value of their feature ``version``, if they have it.
    """

    mask: npt.NDArray[np.bool_]
    moments: npt.NDArray[np.int64]
    versions: Counter[str]


class _Source:
    """The files behind a feature view, and their column names."""

    def __init__(
        self,
        view: FeatureView,
        dataset: ds.Dataset,
        join_keys: list[str],
        features: list[str],
        timestamp: str,
        created: str | None,
    ) -> None:
        self.view = view
        self.dataset = dataset
        self.timestamp = timestamp
        self._mapping = dict((view.batch_source and view.batch_source.field_mapping) or {})
        self._join_keys = join_keys
        self._created = created
        # No feature, but it goes with one.
        weights = [SEEN_WEIGHTS] if SEEN in features and SEEN_WEIGHTS in dataset.schema.names else []
        self._columns = [*dict.fromkeys([*join_keys, *features, *weights, timestamp, *([created] if created else [])])]
        if not join_keys:
            raise _NotUnderstoodError("it has no entities")
        if missing := [name for name in self._columns if name not in dataset.schema.names]:
            raise InputError(
                f"feature view {view.name!r}: its source has no column {missing[0]!r}; "
                f"there are {', '.join(dataset.schema.names)}"
            )
        for name in (timestamp, created):
            if name is not None and not pa.types.is_timestamp(dataset.schema.field(name).type):
                raise _NotUnderstoodError(f"{name!r} is not of an Arrow timestamp type")

    def name(self, column: str) -> str:
        """Return Feast's name for a column of the files."""
        return str(self._mapping.get(column, column))

    def window(self, start: datetime, end: datetime) -> pc.Expression:
        """Return the condition for an event timestamp in [start, end]."""
        dtype = self.dataset.schema.field(self.timestamp).type
        scale = _PER_SECOND[dtype.unit]
        lower, upper = -(-to_microseconds(start) * scale // 10**6), to_microseconds(end) * scale // 10**6
        first, last = (pa.scalar(min(max(v, _INT64.min + 1), _INT64.max), pa.int64()) for v in (lower, upper))
        moment = ds.field(self.timestamp)
        return (moment >= first.cast(dtype)) & (moment <= last.cast(dtype))

    def latest(self, window: pc.Expression) -> _Kept:
        """Find the latest row of each entity in the window."""
        columns = [*self._join_keys, self.timestamp, *([self._created] if self._created else [])]
        version = next((name for name in self._columns if self.name(name) == "version"), None)
        if version is not None and version not in columns:
            columns.append(version)
        table = self.dataset.to_table(columns=columns, filter=window)
        moments = table[self.timestamp].cast(pa.int64()).to_numpy()
        by = [(name, "descending") for name in (self.timestamp, self._created) if name is not None]
        # Stable, so the first of equal rows stays first, and nulls last; Feast's engine sorts the same way.
        order = pc.sort_indices(table, sort_keys=by).to_numpy()
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        best = pa.table({**{f"key_{i}": table[name] for i, name in enumerate(self._join_keys)}, "rank": rank})
        best = best.group_by([f"key_{i}" for i in range(len(self._join_keys))]).aggregate([("rank", "min")])
        mask = np.zeros(len(order), dtype=np.bool_)
        mask[order[best["rank_min"].to_numpy()]] = True
        versions: Counter[str] = Counter()
        if version is not None:
            for entry in table[version].filter(pa.array(mask)).value_counts().to_pylist():
                versions["" if entry["values"] is None else str(entry["values"])] += entry["counts"]
        return _Kept(mask, moments, versions)

    def rows(self, window: pc.Expression, kept: _Kept) -> Iterator[pa.RecordBatch]:
        """Yield the kept rows under Feast's names, in batches.

        Raises:
            InputError: the files have changed since `latest` read them.
        """
        columns = {self.name(name): ds.field(name) for name in self._columns}
        scanner = self.dataset.scanner(
            # One batch ahead: the writer is slower than the reader, and more read-ahead would fill the memory.
            columns=columns, filter=window, batch_size=_ROWS, batch_readahead=1, fragment_readahead=1,
        )  # fmt: skip
        done = 0
        for batch in scanner.to_batches():
            moments = batch.column(self.name(self.timestamp)).cast(pa.int64()).to_numpy()
            mask = kept.mask[done : done + len(moments)]
            if not np.array_equal(moments, kept.moments[done : done + len(moments)]):
                raise self._changed()
            done += len(moments)
            if mask.any():
                yield batch if mask.all() else batch.filter(pa.array(mask))
        if done != len(kept.mask):
            raise self._changed()

    def _changed(self) -> InputError:
        return InputError(f"the source of feature view {self.view.name!r} changed while it was read; materialize again")


def _open(source: Any, repo_path: Path) -> ds.Dataset:
    if type(source) is not FileSource:
        raise _NotUnderstoodError(f"its source is a {type(source).__name__}")
    if not isinstance(source.file_format, ParquetFormat) and not (
        source.file_format is None and source.path.endswith(".parquet")
    ):
        raise _NotUnderstoodError("its source is not of Parquet files")
    if "://" in source.path or source.s3_endpoint_override:
        raise _NotUnderstoodError("its source is not on this machine")
    path = repo_path / folder_of_source(source.path)
    if path.is_dir():
        files = sorted(path.iterdir())
        if not files or any(not file.is_file() or file.suffix != ".parquet" for file in files):
            raise _NotUnderstoodError(f"{path} holds other files than Parquet")
    elif path.is_file():
        files = [path]
    else:
        raise _NotUnderstoodError(f"there is no {path}")
    dataset = ds.dataset([str(file) for file in files], format="parquet")
    schema = dataset.schema.remove_metadata()
    if any(not fragment.physical_schema.remove_metadata().equals(schema) for fragment in dataset.get_fragments()):
        raise _NotUnderstoodError(f"the files in {path} have different columns")
    # Arrow cannot filter columns of view types.
    plain = pa.schema([field.with_type(plain_type(field.type)) for field in schema])
    return ds.dataset([str(file) for file in files], format="parquet", schema=plain)
