"""Export a model's live users or items as Arrow record batches, with one page of the vector store in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain

import pyarrow as pa
from feast.types import from_feast_to_pyarrow_type, from_value_type

from feast_embeddings.artifact.attributes import TIMESTAMP
from feast_embeddings.engines.engine import TIMESTAMP_KEY, StoredPoint
from feast_embeddings.errors import EngineError
from feast_embeddings.model.sides import Filter
from feast_embeddings.query.collection import LiveCollection

__all__ = ["export_side", "rows_of"]


def export_side(live: LiveCollection, filter: Filter | None) -> pa.RecordBatchReader:
    """Return the rows of one version that have a vector and pass the filter; see `EmbeddingStore.export`.

    The first page is read at once, so that bad arguments raise here; the others are read on demand.
    """
    schema = _schema(live, added=True)
    name = live.side.field.name
    pages = live.scroll(live.side.translate(filter))
    first = next(pages)

    def batches() -> Iterator[pa.RecordBatch]:
        try:
            for page in chain([first], pages):
                yield _batch(live, schema, [point for point in page if name in point.vectors])
        except EngineError as error:
            if live.is_loaded():
                raise
            raise EngineError(
                f"version {live.spec.version} was dropped while its {live.side.entity}s were exported, because "
                "newer ones were published; export again"
            ) from error

    return pa.RecordBatchReader.from_batches(schema, batches())


def _schema(live: LiveCollection, *, added: bool) -> pa.Schema:
    """Derive the schema from the feature view, not from values: a column may have only nulls.

    Args:
        added: with the attributes that were added without a training, which the view does not have.
    """
    view, spec = live.side.codec.view, live.spec
    types = {field.name: from_feast_to_pyarrow_type(field.dtype) for field in [*view.entity_columns, *view.features]}
    more = live.side.codec.added if added else {}
    types |= {name: from_feast_to_pyarrow_type(from_value_type(value_type)) for name, value_type in more.items()}
    types |= dict.fromkeys(live.side.codec.fields, pa.list_(pa.float32(), live.dim))
    types["event_timestamp"] = TIMESTAMP
    # In the schema, so that an export without rows has its version too.
    return pa.schema(types, metadata={"version": spec.version, "space": spec.space, "as_of": spec.as_of})


def rows_of(live: LiveCollection, points: Sequence[StoredPoint]) -> pa.RecordBatch:
    """Return the rows of points as Feast writes them: the columns of `export_side` that are of the feature view."""
    return _batch(live, _schema(live, added=False), points)


def _batch(live: LiveCollection, schema: pa.Schema, points: Sequence[StoredPoint]) -> pa.RecordBatch:
    return pa.record_batch([_column(live, field, points) for field in schema], schema=schema)


def _column(live: LiveCollection, field: pa.Field, points: Sequence[StoredPoint]) -> pa.Array:
    if field.name in live.side.codec.fields:
        missing = pa.array([field.name not in point.vectors for point in points], pa.bool_())
        values = pa.array(live.matrix(points, field.name).reshape(-1))
        return pa.FixedSizeListArray.from_arrays(values, type=field.type, mask=missing)
    if field.name == "event_timestamp":
        return pa.array([point.payload[TIMESTAMP_KEY] for point in points], pa.int64()).cast(field.type)
    values = [live.side.codec.native(field.name, point.payload) for point in points]
    if pa.types.is_timestamp(field.type):
        return pa.array(values, pa.int64()).cast(pa.timestamp("s", "UTC")).cast(field.type)
    return pa.array(values, field.type)
