"""Write attributes that were set without a training into a collection, where the point is older than the value.

A version serves the attributes of its own rows, and values set after the time of a row. A value never makes a point: a
row that a version does not have stays away.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from feast import ValueType

from feast_embeddings.artifact import Entity
from feast_embeddings.artifact.attributes import RESERVED_COLUMNS
from feast_embeddings.codec.attribute_values import as_type, attribute_column
from feast_embeddings.codec.collection import added_indexes
from feast_embeddings.codec.columns import payload_values
from feast_embeddings.codec.rows import PointCodec
from feast_embeddings.engines.engine import TIMESTAMP_KEY, Engine, PointId
from feast_embeddings.events import SetAttributes, SetValue
from feast_embeddings.times import to_microseconds

__all__ = ["apply_set_attributes", "attribute_types", "carry_set_attributes", "row_times"]

_POINTS = 1_000


def attribute_types(codec: PointCodec) -> dict[str, ValueType]:
    """Return the attributes given at training, in the order of the view, then the added ones, and their types."""
    keys = codec.view.join_keys
    return {name: kind for name, kind in codec.types.items() if name not in keys and name not in RESERVED_COLUMNS}


def carry_set_attributes(
    engine: Engine, codec: PointCodec, entity: Entity, collection: str, kept: SetAttributes
) -> tuple[int, list[str]]:
    """Write the attributes set after the training of a version, and all added ones, into its collection.

    Safe to repeat.

    Returns:
        How many values were written, and the attributes with values that do not fit the version.
    """
    if not kept.path.exists():
        return 0, []
    as_of = engine.describe(collection).as_of
    after = to_microseconds(datetime.fromisoformat(as_of)) if as_of else 0
    with kept.changing():
        found = [value for page in kept.since(entity, after, codec.added) for value in page]
        written, unfit = apply_set_attributes(engine, codec, collection, found)
    return written, sorted(unfit)


def apply_set_attributes(
    engine: Engine, codec: PointCodec, collection: str, values: Iterable[SetValue]
) -> tuple[int, set[str]]:
    """Write values into the points that are older; returns how many, and the attributes with values that do not fit.

    An added attribute is in no row of a version, so its values are written however new the row is.
    """
    types, unfit = attribute_types(codec), set[str]()
    fitting: dict[str, dict[Any, tuple[SetValue, Any]]] = defaultdict(dict)
    for value in values:
        fits, plain = as_type(value.value, value.type, types.get(value.name, ValueType.UNKNOWN))
        if fits:
            fitting[value.name][value.id] = value, plain
        else:
            unfit.add(value.name)
    ids = list(dict.fromkeys(id for by_id in fitting.values() for id in by_id))
    times = row_times(engine, codec, collection, ids)
    payloads: dict[PointId, dict[str, Any]] = defaultdict(dict)
    written = 0
    for name, by_id in fitting.items():
        late = [
            (times[id][0], plain)
            for id, (value, plain) in by_id.items()
            if id in times and (name in codec.added or value.set_at > times[id][1])
        ]
        keys = payload_values(codec, name, attribute_column([plain for _, plain in late], types[name])) if late else []
        written += len(late)
        for (point, _), changed in zip(late, keys, strict=True):
            payloads[point] |= changed
    # A write copies the embedded engine's collection, so do not start one for nothing.
    if changed_payloads := _differing(engine, collection, payloads):
        _index(engine, codec, collection, fitting)
        engine.set_payload(collection, changed_payloads)
    return written, unfit


def _index(engine: Engine, codec: PointCodec, collection: str, names: Iterable[str]) -> None:
    """Index added attributes that a collection was made without."""
    there = engine.describe(collection).payload_indexes
    indexes = added_indexes({name: codec.added[name] for name in names if name in codec.added})
    if missing := {name: kind for name, kind in indexes.items() if name not in there}:
        engine.add_indexes(collection, missing)


def row_times(engine: Engine, codec: PointCodec, collection: str, ids: Sequence[Any]) -> dict[Any, tuple[PointId, int]]:
    """Return the point of each id that the collection has, and its event timestamp."""
    (key,) = codec.view.join_keys
    wanted = str if codec.types[key] == ValueType.STRING else int
    usable = [id for id in ids if isinstance(id, wanted)]  # ids may have been of another type once
    found: dict[Any, tuple[PointId, int]] = {}
    for start in range(0, len(usable), _POINTS):
        part = usable[start : start + _POINTS]
        points = engine.retrieve(collection, codec.point_ids_of(part), vectors=[], payload=[TIMESTAMP_KEY])
        found |= {
            id: (point.id, int(point.payload[TIMESTAMP_KEY]))
            for id, point in zip(part, points, strict=True)
            if point is not None
        }
    return found


def _differing(
    engine: Engine, collection: str, payloads: Mapping[PointId, Mapping[str, Any]]
) -> dict[PointId, Mapping[str, Any]]:
    """Return the payloads that would change their point."""
    points, changed = list(payloads), dict[PointId, Mapping[str, Any]]()
    for start in range(0, len(points), _POINTS):
        part = points[start : start + _POINTS]
        for id, stored in zip(part, engine.retrieve(collection, part, vectors=[]), strict=True):
            if stored is not None and any(stored.payload.get(key) != value for key, value in payloads[id].items()):
                changed[id] = payloads[id]
    return changed
