"""Make a version of vectors that were made elsewhere: by a two-tower model, a sentence encoder, or an API."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa

from embedding_trainers.alignment import align
from embedding_trainers.importing.vector_tables import VectorFile, read_vectors
from embedding_trainers.interactions.column_types import types_of_newest
from embedding_trainers.trainer import IMPORTED
from feast_embeddings.artifact import (
    Alignment,
    Artifact,
    EmbeddingTable,
    Entity,
    TrainerInfo,
    list_artifacts,
    load_artifact,
    validate_model_name,
    write_artifact,
)
from feast_embeddings.errors import InputError
from feast_embeddings.reading import ColumnType

__all__ = ["import_model"]

_SPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
# A version's own space has its name.
_VERSION = re.compile(r"\d{8}T\d{9}Z")


def import_model(
    repo: Path,
    model: str,
    files: Mapping[Entity, VectorFile],
    *,
    attribute_types: Mapping[str, ColumnType] | None = None,
    as_of: datetime | None = None,
    space: str | None = None,
    align_to: str | None = None,
    source: str = "",
    metrics: Mapping[str, float] | None = None,
) -> Artifact:
    """Write a version of a model from tables of vectors.

    Args:
        repo: Feast repository; the version is written below its folder ``data``.
        files: the table of the users, of the items, or of both.
        attribute_types: types of attributes, by name; the others come from the previous version, or are inferred.
        as_of: the time from which the vectors are valid; None for now.
        space: vectors imported under one name are comparable, and share a vector space; None starts a new one.
        align_to: the version, or ``latest``, into whose space to rotate the vectors.
        source: where the vectors come from, for the manifest.
        metrics: ranking quality as measured elsewhere, e.g. ``recall@20``.

    Raises:
        InputError: a table or an argument cannot be used.
        ArtifactError: the version to align to is damaged.
    """
    if not (repo / "feature_store.yaml").is_file():
        raise InputError(f"{repo} has no feature_store.yaml; run feast-embeddings init, or name the folder with --repo")
    data = repo / "data"
    validate_model_name(model)
    space_id = None if space is None else _space_id(model, space)
    if not files:
        raise InputError("there is nothing to import; name a file with --users, --items or both")
    if space is not None and align_to is not None:
        raise InputError("--space and --align-to exclude each other: both say which space the vectors are of")
    newest = types_of_newest(data, model)
    tables: Mapping[Entity, EmbeddingTable] = {}
    unused = set(attribute_types or ())
    item_ids = None
    for entity in sorted(files):  # items first: seen items have their type
        file = files[entity]
        file = replace(file, id_type=file.id_type or newest.ids.get(entity))
        types = {**newest.attributes.get(entity, {}), **(attribute_types or {})}
        tables = {**tables, entity: read_vectors(entity, file, types, item_ids)}
        if entity == "item":
            item_ids = tables[entity].ids.type
        if (attributes := tables[entity].attributes) is not None:
            unused.difference_update(attributes.column_names)
    if unused:
        raise InputError(f"--attribute-types names {min(unused)!r}, which is not among the attributes")
    dims = {entity: table.embedding.shape[1] for entity, table in tables.items()}
    if len(set(dims.values())) > 1:
        raise InputError(
            f"users and items need vectors of one dimension, but in {files['user'].path} they have {dims['user']} and "
            f"in {files['item'].path} {dims['item']}; import unrelated vectors as two models"
        )
    dim = dims.popitem()[1]
    alignment, reason = None, "imported without --space or --align-to"
    if align_to is not None:
        tables, alignment = _aligned(data, model, align_to, tables, dim)
    elif space is not None:
        reason = _reason(data, model, space, space_id, dim)
    return write_artifact(
        data,
        model,
        users=tables.get("user"),
        items=tables.get("item"),
        as_of=as_of or datetime.now(UTC),
        trainer=TrainerInfo(name=IMPORTED, config={"source": source} if source else {}),
        seed=None,
        metrics=dict(metrics or {}),
        fingerprint=_fingerprint(tables),
        n_interactions=max(int(table.n_interactions.sum()) for table in tables.values()),
        alignment=alignment,
        space=space_id,
        new_space_reason="" if alignment else reason,
    )


def _space_id(model: str, space: str) -> str:
    if not _SPACE.fullmatch(space) or _VERSION.fullmatch(space):
        raise InputError(
            f"space name {space!r}: expected 1 to 64 letters, digits, '.', '_' and '-', and not the name of a version"
        )
    return f"{model}-{space}"


def _reason(data: Path, model: str, space: str, space_id: str | None, dim: int) -> str:
    """Return why a space starts with this version; empty if it exists."""
    for artifact in list_artifacts(data, model):
        manifest = artifact.manifest
        if manifest.space_id == space_id:
            if manifest.dim != dim:
                raise InputError(
                    f"space {space!r} has vectors of dimension {manifest.dim} (version {manifest.version}), got {dim}; "
                    "vectors of one space have one dimension: name a new space"
                )
            return ""
    return f"the first version in space {space}"


def _aligned(
    data: Path, model: str, align_to: str, tables: Mapping[Entity, EmbeddingTable], dim: int
) -> tuple[Mapping[Entity, EmbeddingTable], Alignment]:
    previous = load_artifact(data, model, align_to)
    manifest = previous.manifest
    if manifest.dim != dim:
        raise InputError(
            f"cannot align: version {manifest.version} has {manifest.dim} dimensions, the new one {dim}; leave out "
            "--align-to"
        )
    aligned = align(previous, {entity: table for entity, table in tables.items() if entity in manifest.sides})
    if aligned.alignment is None:
        raise InputError(f"cannot align: {aligned.refused}; leave out --align-to")
    return aligned.tables, aligned.alignment


def _fingerprint(tables: Mapping[Entity, EmbeddingTable]) -> str:
    """Hash the ids and vectors, as they came."""
    digest = hashlib.sha256()
    for entity, table in sorted(tables.items()):
        digest.update(f"{entity} {table.ids.type} {table.embedding.shape}".encode())
        for buffer in [*table.ids.buffers()[1:], pa.py_buffer(table.embedding)]:
            digest.update(buffer)
    return digest.hexdigest()
