"""Convert rows of a feature view to and from Qdrant points. Pure: no calls to Feast's stores or to Qdrant.

One entity is one point, whose id is derived from the entity key, so that writing an entity twice gives one point. Its
payload is flat, because nested objects are the slowest to write. It holds the join keys and features in native JSON
types, for filters, and

* ``_event_timestamp``: microseconds since the epoch;
* ``_exact_<name>``: for a value that Qdrant's JSON cannot return exactly; for a number its float64 bits as an integer,
  for all other types Feast's serialized value, base64. A list with the tag ``unindexed`` has only this form: Qdrant's
  library looks at every element of a list, which made 20 seen items the greater part of loading a user.
"""

from __future__ import annotations

import base64
import struct
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt
from feast import FeatureView, ValueType

from feast_embeddings._feast.private import EntityKeyProto, ValueProto, encode_entity_key
from feast_embeddings.codec.collection import UNINDEXED_TAG, VectorField, value_types
from feast_embeddings.codec.numbers import EXACT, from_bits
from feast_embeddings.engines.engine import TIMESTAMP_KEY, PointId, StoredPoint
from feast_embeddings.errors import InputError
from feast_embeddings.times import from_microseconds

__all__ = [
    "FeastRow",
    "PointCodec",
    "hashed_ids",
    "key_prefix",
    "point_ids",
    "text_key_part",
]


# Feast value type -> the field of its Value message, for the types that JSON represents exactly.
_NATIVE_SCALARS = {
    ValueType.STRING: "string_val",
    ValueType.INT32: "int32_val",
    ValueType.INT64: "int64_val",
    ValueType.FLOAT: "float_val",
    ValueType.DOUBLE: "double_val",
    ValueType.BOOL: "bool_val",
    ValueType.UNIX_TIMESTAMP: "unix_timestamp_val",
}
_NATIVE_LISTS = {
    ValueType.STRING_LIST: "string_list_val",
    ValueType.INT32_LIST: "int32_list_val",
    ValueType.INT64_LIST: "int64_list_val",
    ValueType.BOOL_LIST: "bool_list_val",
}

# Feast value type -> the number of bits of its integers.
_ID_BITS = {ValueType.INT32: 32, ValueType.INT64: 64}
_UNSIGNED = 0xFFFF_FFFF_FFFF_FFFF

FeastRow = tuple[EntityKeyProto, dict[str, ValueProto], datetime, datetime | None]


def point_ids(keys: Sequence[EntityKeyProto]) -> list[PointId]:
    """Return the point ids of entities: the number for a key of one whole number, else BLAKE2b of Feast's bytes.

    A negative number is taken as unsigned, in two's complement, so that ids are distinct. A hash has 122 bits.
    """
    numbers = [_whole_number(key) for key in keys]
    hashed = iter(hashed_ids([encode_entity_key(key) for key, n in zip(keys, numbers, strict=True) if n is None]))
    return [next(hashed) if n is None else n for n in numbers]


def _whole_number(key: EntityKeyProto) -> int | None:
    values = key.entity_values
    if len(values) == 1 and (kind := (value := values[0]).WhichOneof("val")) in ("int32_val", "int64_val"):
        return int(getattr(value, kind)) & _UNSIGNED
    return None


def key_prefix(join_keys: Sequence[str]) -> bytes:
    """Return Feast's bytes of an entity key with these join keys, sorted, up to its first value."""
    names = [name.encode() for name in join_keys]
    parts = (struct.pack("<II", ValueType.STRING.value, len(name)) + name for name in names)
    return struct.pack("<I", len(names)) + b"".join(parts)


def text_key_part(text: bytes) -> bytes:
    """Return Feast's bytes of a text in an entity key."""
    return struct.pack("<II", ValueType.STRING.value, len(text)) + text


def hashed_ids(entity_keys: Sequence[bytes]) -> list[PointId]:
    """Hash Feast's bytes of entity keys by BLAKE2b to UUIDs; formatted column-wise, without the `uuid` module."""
    digests = np.frombuffer(b"".join(blake2b(key, digest_size=16).digest() for key in entity_keys), dtype=np.uint8)
    rows = digests.reshape(-1, 16).copy()
    rows[:, 6] = rows[:, 6] & 0x0F | 0x50  # version 5
    rows[:, 8] = rows[:, 8] & 0x3F | 0x80  # variant of RFC 4122
    texts = [row.hex() for row in rows.view("V16").ravel().tolist()]
    return [f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}" for text in texts]


class PointCodec:
    """Decodes the rows of one feature view; `feast_embeddings.codec.columns` encodes them.

    Args:
        fields: from `vector_fields`.
        added: types of attributes that points may have without the view; those that it has are left out.

    Attributes:
        features: of the view.
        types: of the join keys, the features and the added attributes.
    """

    def __init__(
        self, view: FeatureView, fields: dict[str, VectorField], added: Mapping[str, ValueType] | None = None
    ) -> None:
        self.view = view
        self.fields = fields
        own = value_types(view)
        self.added = {name: value_type for name, value_type in (added or {}).items() if name not in own}
        self.types = own | self.added
        self.features = [field.name for field in view.features]
        # Precomputed, because every value that is read needs it.
        self._exact_keys = {name: EXACT + name for name in self.types}
        # Name -> the field of its value's message, for values stored as JSON.
        self.scalars = {name: _NATIVE_SCALARS.get(value_type) for name, value_type in self.types.items()}
        self.lists = {name: _NATIVE_LISTS.get(value_type) for name, value_type in self.types.items()}
        # Lists stored as one value, which no filter can look into.
        self.whole = {field.name for field in view.features if UNINDEXED_TAG in field.tags and self.lists[field.name]}
        # The rows of an embedding view carry their model version.
        self.versioned = "version" in self.types and "space" in self.types

    def named_vectors(
        self,
        field: VectorField,
        matrix: npt.NDArray[np.float32],
        present: npt.NDArray[np.bool_],
        bias: npt.NDArray[np.float32] | None,
    ) -> dict[str, tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]]:
        """Build the stored vectors of one field: (n, dim) vectors, (n,) mask and (n,) bias -> named vectors."""
        if not np.isfinite(matrix).all() or (bias is not None and not np.isfinite(bias).all()):
            raise InputError(
                f"feature view {self.view.name!r}, field {field.name!r}: NaN or infinity in a vector or its bias; "
                "nothing was written"
            )
        if not present.any() and not field.dim:
            return {}
        stored = matrix if bias is None else np.column_stack([matrix, bias])
        vectors = {field.name: (stored, present)}
        if field.search_name != field.name:
            vectors[field.search_name] = (matrix, present)
        return vectors

    def wrong_length(self, field: VectorField, expected: int, got: int) -> InputError:
        """Return the error for a vector whose length differs from that in the view or the collection."""
        return InputError(
            f"feature view {self.view.name!r}, field {field.name!r}: expected vectors of length {expected}, "
            f"got one of length {got}; nothing was written"
        )

    def decode(
        self, point: StoredPoint, requested: Sequence[str] | None = None
    ) -> tuple[datetime, dict[str, ValueProto]]:
        """Return the event timestamp (UTC) and the requested features (all if None) of a stored point."""
        payload, values = point.payload, {}
        for name in self.features if requested is None else requested:
            kind = self.scalars[name]
            if kind is not None and name in payload and self._exact_keys[name] not in payload:
                # The fast path: most values of a read.
                values[name] = value = ValueProto()
                setattr(value, kind, payload[name])
            else:
                values[name] = self._decode_value(name, point)
        return from_microseconds(payload[TIMESTAMP_KEY]), values

    def _decode_value(self, name: str, point: StoredPoint) -> ValueProto:
        value, payload = ValueProto(), point.payload
        exact = payload.get(self._exact_keys[name])
        if isinstance(exact, str):
            value.ParseFromString(base64.b64decode(exact))
        elif (native := payload.get(name) if exact is None else from_bits(exact)) is not None:
            if (kind := self.scalars[name]) is not None:
                setattr(value, kind, native)
            else:
                message = getattr(value, str(self.lists[name]))
                message.SetInParent()  # an empty list is a value, not a null
                message.val.extend(native)
        elif name in self.fields and name in point.vectors:
            vector = point.vectors[name]
            vector = vector[:-1] if self.fields[name].bias else vector
            # Protobuf's floats are little-endian, like every machine that Qdrant supports.
            value.ParseFromString(_float_list_header(len(vector)) + vector.tobytes())
        return value

    def payload_keys(self, name: str) -> list[str]:
        """Return the payload keys that may hold a feature."""
        return [name, self._exact_keys[name]]

    def native(self, name: str, payload: Mapping[str, Any]) -> Any:
        """Return a join key or feature of a JSON type exactly, or a list of such; None if there is none."""
        exact = payload.get(self._exact_keys[name])
        if exact is None:
            return payload.get(name)
        if not isinstance(exact, str):
            return from_bits(exact)
        value = ValueProto.FromString(base64.b64decode(exact))
        kind = value.WhichOneof("val")
        return list(getattr(value, kind).val) if kind == self.lists[name] else getattr(value, kind)

    def entity_key(self, point: StoredPoint) -> EntityKeyProto:
        """Return the entity key of a stored point, with its join keys in Feast's order."""
        names = sorted(self.view.join_keys)
        return EntityKeyProto(join_keys=names, entity_values=[self._decode_value(name, point) for name in names])

    def point_ids_of(self, ids: Sequence[Any]) -> list[PointId]:
        """Return the ids as `point_ids` does, for a view with one join key of type string, int32 or int64.

        Args:
            ids: `str` or `int`, according to the type.

        Raises:
            ValueError: Feast's type of the join key cannot hold an id.
        """
        (join_key,) = [column.name for column in self.view.entity_columns]
        bits = _ID_BITS.get(self.types[join_key])
        if not ids:
            return []
        if bits is None:
            prefix = key_prefix([join_key])
            return hashed_ids([prefix + text_key_part(id.encode()) for id in ids])
        least, most = -(1 << bits - 1), (1 << bits - 1) - 1
        if not (least <= min(ids) and max(ids) <= most):
            raise ValueError(f"an id has more than {bits} bits")
        return [id & _UNSIGNED for id in ids]


@lru_cache
def _float_list_header(length: int) -> bytes:
    """Return the header of a serialized list of floats; the floats follow as in memory, so parsing copies them."""
    empty = ValueProto()
    empty.float_list_val.val.extend([0.0] * length)
    serialized: bytes = empty.SerializeToString()
    return serialized[: len(serialized) - 4 * length]
