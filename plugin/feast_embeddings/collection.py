"""Feature view -> collection: which named vectors and payload indexes its rows need. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from feast import FeatureView, Field, ValueType

from feast_embeddings.engine import CollectionSpec, Distance, IndexType, VectorSpec
from feast_embeddings.errors import InputError

__all__ = ["BIAS_TAG", "UNINDEXED_TAG", "VectorField", "collection_spec", "value_types", "vector_fields"]

# A vector field with this tag is stored with the value of the named bias feature as one more coordinate.
BIAS_TAG = "bias"
# A feature with this tag can be filtered on, but has no payload index (for long lists that nobody filters on).
UNINDEXED_TAG = "unindexed"

_METRICS: dict[str, Distance] = {
    "cosine": "Cosine",
    "dot": "Dot",
    "dot_product": "Dot",
    "inner_product": "Dot",
    "ip": "Dot",
    "l2": "Euclid",
    "euclidean": "Euclid",
    "l1": "Manhattan",
    "manhattan": "Manhattan",
}

_INDEXES: dict[ValueType, IndexType] = {
    ValueType.STRING: "keyword",
    ValueType.INT32: "integer",
    ValueType.INT64: "integer",
    ValueType.UNIX_TIMESTAMP: "integer",
    ValueType.FLOAT: "float",
    ValueType.DOUBLE: "float",
    ValueType.BOOL: "bool",
    ValueType.STRING_LIST: "keyword",
    ValueType.INT32_LIST: "integer",
    ValueType.INT64_LIST: "integer",
}


@dataclass(frozen=True)
class VectorField:
    """How one vector-indexed feature is stored.

    The vector itself is kept under the feature's name with a distance that leaves it bit for bit as written.
    Qdrant normalises vectors under Cosine, so a feature with that metric gets a second, searched copy.
    """

    name: str
    dim: int
    """Length of the feature's vectors; 0 until the first write when the view does not state it."""
    distance: Distance
    bias: str | None

    @property
    def search_name(self) -> str:
        """The named vector that answers the feature's own metric."""
        return f"{self.name}__cosine" if self.distance == "Cosine" else self.name

    def vector_specs(self, dim: int) -> dict[str, VectorSpec]:
        """The named vectors of a collection whose vectors have this length."""
        size = dim + (self.bias is not None)
        if self.distance != "Cosine":
            return {self.name: VectorSpec(size=size, distance=self.distance, indexed=True)}
        return {
            self.name: VectorSpec(size=size, distance="Dot", indexed=self.bias is not None),
            self.search_name: VectorSpec(size=dim, distance="Cosine", indexed=True),
        }


def vector_fields(view: FeatureView, default_metric: str = "cosine") -> dict[str, VectorField]:
    """The vector-indexed features of a view by name.

    Raises:
        InputError: a metric that Qdrant does not have, or a bias that is not a feature of the view.
    """
    return {f.name: _vector_field(view, f, default_metric) for f in view.features if f.vector_index}


def _vector_field(view: FeatureView, field: Field, default_metric: str) -> VectorField:
    metric = (field.vector_search_metric or default_metric).lower()
    if metric not in _METRICS:
        raise InputError(
            f"feature view {view.name!r}, field {field.name!r}: vector_search_metric {metric!r} is not supported; "
            f"expected one of {', '.join(_METRICS)}"
        )
    bias = field.tags.get(BIAS_TAG)
    if bias is not None and bias not in {f.name for f in view.features}:
        raise InputError(f"feature view {view.name!r}, field {field.name!r}: there is no bias feature {bias!r}")
    if bias is not None and _METRICS[metric] not in ("Cosine", "Dot"):
        raise InputError(f"feature view {view.name!r}, field {field.name!r}: a bias needs cosine or dot, not {metric}")
    return VectorField(field.name, field.vector_length, _METRICS[metric], bias)


def value_types(view: FeatureView) -> dict[str, ValueType]:
    """Feast value type of every join key and feature of a view, by name."""
    return {field.name: field.dtype.to_value_type() for field in [*view.entity_columns, *view.features]}


def collection_spec(
    view: FeatureView,
    alias: str,
    fields: Mapping[str, VectorField],
    dims: Mapping[str, int],
    *,
    version: str = "",
    space: str = "",
    as_of: str = "",
) -> CollectionSpec:
    """What a collection for this view must be like.

    Args:
        fields: from `vector_fields`.
        dims: length of each field's vectors; a field that no row has had yet may be absent.
    """
    unindexed = {field.name for field in view.features if UNINDEXED_TAG in field.tags}
    return CollectionSpec(
        alias=alias,
        vectors={
            name: spec
            for field in fields.values()
            if field.name in dims
            for name, spec in field.vector_specs(dims[field.name]).items()
        },
        payload_indexes={
            name: _INDEXES[value_type]
            for name, value_type in sorted(value_types(view).items())
            # Qdrant's paths have no way to write these two characters.
            if value_type in _INDEXES and name not in unindexed and not set(name) & set('"\\')
        },
        version=version,
        space=space,
        as_of=as_of,
    )
