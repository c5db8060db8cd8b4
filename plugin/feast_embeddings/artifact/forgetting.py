"""Remove users or items from the versions on disk, and from the offline history.

A changed table is written under a new name next to the old one, then the manifest is replaced, which names the new one,
then the old one is deleted. So a version is whole at every moment, with the old rows or without them, and what a killed
process left is no part of it; the next call deletes that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feast_embeddings.artifact.history import refresh_history
from feast_embeddings.artifact.manifest import FORMAT_VERSION, FileInfo, Forgotten, Manifest
from feast_embeddings.artifact.model_folder import validate_model_name, version_folders, writing
from feast_embeddings.artifact.saved_map import forget_in_map
from feast_embeddings.artifact.seen import NEXT_TO_SEEN, SEEN, misfit
from feast_embeddings.artifact.table import Entity
from feast_embeddings.artifact.table_files import GROUP_ROWS, fsync, sha256_of
from feast_embeddings.artifact.versions import Artifact, list_artifacts
from feast_embeddings.errors import ArtifactError
from feast_embeddings.files import written_whole

__all__ = ["forget_on_disk", "versions_with"]

Ids = Mapping[Entity, pa.Array]
_TABLE = re.compile(r"(?:user|item)s(?:-(\d{5}))?\.parquet")


def versions_with(data: Path, model: str, ids: Ids) -> list[str]:
    """Return the versions on disk that hold rows of these users or items, or name such an item as seen."""
    return [
        artifact.manifest.version
        for artifact in list_artifacts(data, model)
        if any(_holds(artifact.path / name, entity, ids) for entity, name in _tables(artifact.manifest))
    ]


def forget_on_disk(data: Path, model: str, ids: Ids) -> list[str]:
    """Remove these users and items from every version of a model, and return the changed versions. Safe to repeat.

    Items are also removed from the lists of seen items, with their weights and times. All are removed from saved maps,
    for which no version counts as changed.

    Raises:
        ArtifactError: a version is damaged, so it cannot be known whom it holds; those before it are changed.
    """
    folder = data / validate_model_name(model)
    if not folder.is_dir():
        return []
    with writing(folder):
        versions = list_artifacts(data, model)
        changed = [a.manifest.version for a in versions if _forget(a, ids)]
        for artifact in versions:
            for entity in artifact.manifest.sides:
                forget_in_map(artifact.path, entity, ids.get(entity), items="item" in ids)
        refresh_history(folder, version_folders(data, model))
    return changed


def _tables(manifest: Manifest) -> list[tuple[Entity, str]]:
    return [(entity, name) for entity in manifest.sides for name in manifest.parts(entity)]


def _forget(artifact: Artifact, ids: Ids) -> bool:
    path, manifest = artifact.path, artifact.manifest
    _delete_leftovers(path, manifest)
    files, removed = dict(manifest.files), dict.fromkeys(manifest.sides, 0)
    for entity in manifest.sides:
        parts = artifact.verified(entity).paths
        number = max(_number(part.name) for part in parts)
        for part in parts:
            if not _holds(part, entity, ids):
                continue
            # Never a name that the version had before: the history tells tables by their names.
            number += 1
            name = f"{entity}s-{number:05d}.parquet"
            files[name] = _write_without(part, path / name, entity, ids)
            removed[entity] += files.pop(part.name).rows - files[name].rows
    if files == manifest.files:
        return False
    fsync(path)
    records = [
        Forgotten(at=datetime.now(UTC), entity=entity, count=removed.get(entity, 0))
        for entity, those in ids.items()
        if len(those)
    ]
    changed = manifest.model_copy(
        update={
            "format_version": FORMAT_VERSION,
            "files": files,
            "n_users": manifest.n_users - removed.get("user", 0),
            "n_items": manifest.n_items - removed.get("item", 0),
            "forgotten": (*manifest.forgotten, *records),
            "checksum": "",
        }
    ).signed()
    with written_whole(path / "manifest.json") as file:
        file.write(changed.to_bytes())
    fsync(path)
    _delete_leftovers(path, changed)
    return True


def _delete_leftovers(path: Path, manifest: Manifest) -> None:
    for file in path.iterdir():
        if _TABLE.fullmatch(file.name) and file.name not in manifest.files:
            file.unlink()


def _number(name: str) -> int:
    found = _TABLE.fullmatch(name)
    return -1 if found is None or found[1] is None else int(found[1])


def _holds(table: Path, entity: Entity, ids: Ids) -> bool:
    """Return whether a table has to change."""
    with pq.ParquetFile(table) as parquet:
        names = [f"{entity}_id", *([SEEN] if _names_items(parquet.schema_arrow, entity, ids) else [])]
        for batch in parquet.iter_batches(GROUP_ROWS, columns=names):
            found = [_among(batch.column(names[0]), ids.get(entity))]
            found += [_among(pc.list_flatten(batch.column(name)), ids["item"]) for name in names[1:]]
            if any(pc.any(mask).as_py() for mask in found):
                return True
    return False


def _write_without(source: Path, target: Path, entity: Entity, ids: Ids) -> FileInfo:
    rows = 0
    with pq.ParquetFile(source) as parquet:
        schema = parquet.schema_arrow
        with pq.ParquetWriter(target, schema) as writer:
            for batch in parquet.iter_batches(GROUP_ROWS):
                kept = batch.filter(pc.invert(_among(batch.column(f"{entity}_id"), ids.get(entity))))
                if _names_items(schema, entity, ids):
                    seen = kept.column(SEEN)
                    stays = pc.invert(_among(pc.list_flatten(seen), ids["item"]))
                    for name in NEXT_TO_SEEN.keys() & set(schema.names):
                        if found := misfit(name, kept.column(name), seen):
                            raise ArtifactError(f"{source}: the column {name!r} has {found[1]}; restore the version")
                    for name in [name for name in schema.names if name in (SEEN, *NEXT_TO_SEEN)]:
                        lists = _only(kept.column(name), stays)
                        kept = kept.set_column(schema.get_field_index(name), schema.field(name), lists)
                writer.write_batch(kept, row_group_size=GROUP_ROWS)
                rows += kept.num_rows
    fsync(target)
    return FileInfo(rows=rows, sha256=sha256_of(target))


def _names_items(schema: pa.Schema, entity: Entity, ids: Ids) -> bool:
    return entity == "user" and bool(len(ids.get("item", ()))) and SEEN in schema.names


def _among(values: pa.Array, ids: pa.Array | None) -> pa.Array:
    return pc.is_in(values, value_set=pa.array([], values.type) if ids is None else ids.cast(values.type))


def _only(lists: pa.Array, keep: pa.Array) -> pa.Array:
    """Return lists with these elements only, of all lists together; a null stays a null."""
    owners = pc.list_parent_indices(lists).filter(keep).to_numpy()
    offsets = np.concatenate([[0], np.bincount(owners, minlength=len(lists)).cumsum()])
    kind = pa.LargeListArray if pa.types.is_large_list(lists.type) else pa.ListArray
    return kind.from_arrays(
        pa.array(offsets, pa.int64() if kind is pa.LargeListArray else pa.int32()),
        pc.list_flatten(lists).filter(keep),
        type=lists.type,
        mask=lists.is_null(),
    )
