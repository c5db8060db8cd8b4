"""Derive a collection from a feature view: its named vectors and payload indexes. Pure functions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta

from feast import FeatureView, Field, ValueType

from feast_embeddings.engines.engine import TIMESTAMP_KEY, CollectionSpec, Distance, IndexType, VectorSpec
from feast_embeddings.errors import InputError, MetricError

__all__ = [
    "BIAS_TAG",
    "SCANNED_TAG",
    "UNINDEXED_TAG",
    "UNLINKED_TAG",
    "VectorField",
    "added_indexes",
    "collection_spec",
    "parse_metric",
    "same_join_keys",
    "value_types",
    "vector_fields",
    "view_ttl",
]

# A vector field with this tag is stored with the value of the named bias feature as one more coordinate.
BIAS_TAG = "bias"
# A feature with this tag, whose value is the length, is one more vector: of unit length, so that the dot product is the
# cosine without a second copy, and without a graph, which would make a publish take twice as long.
SCANNED_TAG = "scanned_vector"
# A feature with this tag can be filtered on, but has no payload index (for long lists that are rarely filtered on).
UNINDEXED_TAG = "unindexed"
# An integer feature with this tag has a payload index, but no edges in the graphs for its ranges (if it is rarely
# filtered on): they take longer to build than the graph itself.
UNLINKED_TAG = "unlinked"

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

    The vector itself is stored under the feature's name with a distance that keeps it bit for bit as written.
    Qdrant normalizes vectors with Cosine, so a feature with that metric gets a second, searched copy.
    """

    name: str
    dim: int
    """Length of the feature's vectors; 0 until the first write if the view does not set it."""
    distance: Distance
    bias: str | None
    declared: bool = True
    """Whether the field names its metric. Without one, Feast requests L2 unless the caller names another."""
    indexed: bool = True
    """Whether its searched vector may have a graph; without one, a search is an exact scan."""

    @property
    def search_name(self) -> str:
        """The named vector that is searched with the feature's own metric."""
        return f"{self.name}__cosine" if self.distance == "Cosine" else self.name

    def vector_specs(self, dim: int) -> dict[str, VectorSpec]:
        """Return the named vectors of a collection whose vectors have this length."""
        size = dim + (self.bias is not None)
        if self.distance != "Cosine":
            return {self.name: VectorSpec(size=size, distance=self.distance, indexed=self.indexed)}
        # The copy that is read back supports a second metric: L2 if Feast may request it, else the dot product.
        second: Distance = "Dot" if self.declared or self.bias is not None else "Euclid"
        return {
            self.name: VectorSpec(size=size, distance=second, indexed=not self.declared or self.bias is not None),
            self.search_name: VectorSpec(size=dim, distance="Cosine", indexed=True),
        }


def vector_fields(view: FeatureView, default_metric: str = "cosine") -> dict[str, VectorField]:
    """Return the features of a view that are stored as vectors by name, the one that Feast searches first.

    Raises:
        InputError: a metric that Qdrant does not have, or a bias that is not a feature of the view.
    """
    searched = {f.name: _vector_field(view, f, default_metric) for f in view.features if f.vector_index}
    return searched | {
        f.name: VectorField(f.name, int(f.tags[SCANNED_TAG]), "Dot", None, indexed=False)
        for f in view.features
        if SCANNED_TAG in f.tags
    }


def _vector_field(view: FeatureView, field: Field, default_metric: str) -> VectorField:
    where = f"feature view {view.name!r}, field {field.name!r}"
    metric = field.vector_search_metric or default_metric
    distance = parse_metric(metric, f"{where}: vector_search_metric")
    bias = field.tags.get(BIAS_TAG)
    if bias is not None and bias not in {f.name for f in view.features}:
        raise InputError(f"{where}: there is no bias feature {bias!r}")
    if bias is not None and distance not in ("Cosine", "Dot"):
        raise InputError(f"{where}: a bias needs cosine or dot, not {metric}")
    return VectorField(field.name, field.vector_length, distance, bias, bool(field.vector_search_metric))


def parse_metric(metric: str, what: str) -> Distance:
    """Return Qdrant's distance for Feast's name of a metric.

    Raises:
        MetricError: Qdrant does not have it; the message begins with `what`.
    """
    if metric.lower() not in _METRICS:
        raise MetricError(f"{what} {metric!r} is not supported; expected one of {', '.join(_METRICS)}")
    return _METRICS[metric.lower()]


def value_types(view: FeatureView) -> dict[str, ValueType]:
    """Return the Feast value type of every join key and feature of a view, by name."""
    return {field.name: field.dtype.to_value_type() for field in [*view.entity_columns, *view.features]}


def view_ttl(view: FeatureView) -> timedelta | None:
    """Return how long rows of a view are valid; None or 0 for forever. On-demand views of Feast have none."""
    return getattr(view, "ttl", None)


def same_join_keys(view: FeatureView, spec: CollectionSpec) -> bool:
    """Return whether a collection was made for the join keys that the view has now; its rows have only those."""
    return all(column.name in spec.payload_indexes for column in view.entity_columns if _is_indexed(column))


def _is_indexed(field: Field) -> bool:
    # Qdrant's paths cannot express these two characters.
    return field.dtype.to_value_type() in _INDEXES and not set(field.name) & set('"\\')


def added_indexes(added: Mapping[str, ValueType]) -> dict[str, IndexType]:
    """Return the payload indexes of added attributes, without edges in the graphs: a live graph has none for them."""
    kinds = {name: _INDEXES[value_type] for name, value_type in sorted(added.items())}
    return {name: "unlinked" if kind == "integer" else kind for name, kind in kinds.items()}


def collection_spec(
    view: FeatureView,
    alias: str,
    fields: Mapping[str, VectorField],
    dims: Mapping[str, int],
    *,
    added: Mapping[str, ValueType] | None = None,
    version: str = "",
    space: str = "",
    as_of: str = "",
) -> CollectionSpec:
    """Build the spec of a collection for this view.

    Args:
        fields: from `vector_fields`.
        dims: length of each field's vectors; a field without a value so far may be absent.
        added: see `PointCodec`.
    """
    join_keys = set(view.join_keys)
    unindexed, unlinked = (
        {field.name for field in view.features if tag in field.tags} for tag in (UNINDEXED_TAG, UNLINKED_TAG)
    )

    def index(name: str, value_type: ValueType) -> IndexType:
        kind = _INDEXES[value_type]
        if kind != "integer":
            return kind
        # No query uses ranges of ids, for which Qdrant would add edges to the graph of a large collection: many, as
        # for every number field with distinct values.
        return "lookup" if name in join_keys else "unlinked" if name in unlinked else kind

    # Searches of a view with a ttl filter on it, which without an index scans every row.
    expiry: dict[str, IndexType] = {TIMESTAMP_KEY: "integer"} if view_ttl(view) else {}
    return CollectionSpec(
        alias=alias,
        view=view.name,
        vectors={
            name: spec
            for field in fields.values()
            if field.name in dims
            for name, spec in field.vector_specs(dims[field.name]).items()
        },
        payload_indexes=expiry
        | {
            field.name: index(field.name, field.dtype.to_value_type())
            for field in sorted([*view.entity_columns, *view.features], key=lambda field: field.name)
            if _is_indexed(field) and field.name not in unindexed
        }
        | added_indexes(added or {}),
        version=version,
        space=space,
        as_of=as_of,
    )
