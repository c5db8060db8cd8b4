"""New users or items by their attributes: from content alone, or from content and the first interactions."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedding_trainers.content.model import ContentModel
from embedding_trainers.content.models.images import located_images
from embedding_trainers.fold_in.from_log import fold_in, known_ids, typed_ids
from embedding_trainers.interactions.attributes import AttributeFile, read_attribute_file
from embedding_trainers.interactions.column_types import types_of_version
from embedding_trainers.trainer import Folded
from feast_embeddings.artifact import (
    RESERVED_COLUMNS,
    Artifact,
    EmbeddingTable,
    Entity,
    FoldedIn,
    check_table,
    to_arrow,
)
from feast_embeddings.artifact.attributes import BOTH, CONTENT, SOURCE
from feast_embeddings.artifact.brute_force import unit
from feast_embeddings.artifact.ids import id_names
from feast_embeddings.artifact.seen import NEXT_TO_SEEN, SEEN
from feast_embeddings.errors import InputError
from feast_embeddings.reading import Source

__all__ = ["fold_in_new_rows"]

_SEEN = (SEEN, *NEXT_TO_SEEN)


def fold_in_new_rows(
    artifact: Artifact, entity: Entity, attributes: Source, interactions: Any = None, *, seed: int = 0
) -> FoldedIn:
    """Make vectors of users or items with their attributes, and with their interactions if known.

    Args:
        artifact: a version that was trained with content of this side.
        entity: whether they are users or items.
        attributes: a table with a row for each, and the columns that were content in the training.
        interactions: all their interactions, see `fold_in`; None if there are none yet.
        seed: of what randomness there is.

    Raises:
        InputError: a table cannot be used, or the version was trained without content.
        ArtifactError: the version is damaged.
        MissingExtraError: what an encoder needs is not installed.
    """
    manifest = artifact.manifest
    if (path := artifact.content(entity)) is None:
        raise InputError(
            f"version {manifest.version} was trained without content of {entity}s, so that attributes alone make no "
            f"vector; train with --{entity}s, or fold in from interactions"
        )
    model, files = ContentModel.load(path), artifact.verified(entity)
    types = types_of_version(artifact).attributes.get(entity, {})
    file = read_attribute_file(attributes, id_names(entity, manifest.log_column(entity)), types)
    served = _attributes(file, model, files.schema, entity, manifest.version)
    ids = typed_ids(file.ids, files.schema.field(f"{entity}_id").type, entity, manifest.version)
    n, as_of, n_rows, n_unknown = np.zeros(len(ids), np.int64), datetime.now(UTC), 0, 0
    own = Folded(np.zeros((len(ids), manifest.dim), np.float32), np.zeros(len(ids), np.float32))
    seen, schema = {}, files.schema
    if interactions is not None:
        folded = fold_in(artifact, entity, interactions, seed=seed)
        found = folded.table[f"{entity}_id"].combine_chunks()
        strangers = pc.index_in(pa.concat_arrays([found, folded.missing]), ids)
        if strangers.null_count:
            example = [*folded.ids, *folded.missing.to_pylist()][strangers.to_pylist().index(None)]
            raise InputError(
                f"{strangers.null_count:,} {entity}s of the interactions are not in {file.name}, e.g. {example!r}; add "
                "their rows, or leave their interactions out"
            )
        places = strangers[: len(folded.table)].to_numpy()
        own.factors[places] = folded.vectors
        if entity == "item":
            own.bias[places] = folded.table["bias"].to_numpy()
        else:
            schema = folded.table.schema  # with weights, where the version had none and the log has
            rows = pc.index_in(ids, value_set=found)
            seen = {name: _or_empty(folded.table[name], rows) for name in _SEEN if name in schema.names}
        n[places] = folded.table["n_interactions"].to_numpy()
        as_of = folded.table["event_timestamp"][0].as_py()
        n_rows, n_unknown = folded.n_interactions, folded.n_unknown
    content = located_images(file.columns, model.features.columns, file.folder, file.name)
    said = model.mixed(own, n, content)
    bias = said.bias if entity == "item" else None
    alone = unit(model.of(content).factors)
    made = EmbeddingTable(ids=ids, embedding=said.factors, content=alone, n_interactions=n, bias=bias, **seen)
    made = check_table(entity, made)
    stamp = max(as_of, manifest.as_of)
    table = to_arrow(entity, made, stamp, datetime.now(UTC), manifest.version, manifest.space_id)
    served[SOURCE] = pa.array(np.where(n > 0, BOTH, CONTENT))
    columns: dict[str, Any] = {
        field.name: table[field.name]
        if field.name in table.column_names
        else served[field.name].cast(field.type)
        if field.name in served
        else pa.nulls(len(ids), field.type)
        for field in schema
    }
    return FoldedIn(
        entity=entity,
        table=pa.table(columns, schema=schema),
        known=known_ids(artifact, files, entity, ids),
        missing=ids.slice(0, 0),
        n_interactions=n_rows,
        n_unknown=n_unknown,
    )


def _or_empty(lists: pa.ChunkedArray, places: pa.Array) -> pa.Array:
    """The lists at these places, and an empty one for a null."""
    every = pa.concat_arrays([lists.combine_chunks(), pa.array([[]], lists.type)])
    return every.take(places.fill_null(len(lists)))


def _attributes(
    file: AttributeFile, model: ContentModel, schema: pa.Schema, entity: Entity, version: str
) -> dict[str, Any]:
    """The columns of a file that the version serves."""
    content = {column.name: column for column in model.features.columns}
    names = file.columns.column_names
    if lacking := [name for name in content if name not in names]:
        raise InputError(
            f"{file.name} has no column {lacking[0]!r}, which version {version} makes vectors of; its columns are "
            f"{', '.join(names) or 'none'}"
        )
    served = [name for name in schema.names if name not in RESERVED_COLUMNS and name != SOURCE]
    if extra := [name for name in names if name not in served and name not in content]:
        raise InputError(
            f"{file.name} has a column {extra[0]!r}, which the {entity}s of version {version} have not; they have "
            f"{', '.join(served)}. Leave it out"
        )
    table = file.served(leave_out={name for name in names if name not in served})
    return dict(zip(table.column_names, table.columns, strict=True))
