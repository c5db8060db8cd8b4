"""Write a new version, completely or not at all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import repeat
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from feast_embeddings.artifact.history import check_columns, check_sides, refresh_history
from feast_embeddings.artifact.manifest import (
    FORMAT_VERSION,
    Alignment,
    FileInfo,
    Manifest,
    TrainerInfo,
    alignment_fields,
)
from feast_embeddings.artifact.model_folder import (
    time_after,
    validate_model_name,
    version_at,
    version_folders,
    version_written_whole,
    writing,
)
from feast_embeddings.artifact.network import NETWORK_FILE, Network
from feast_embeddings.artifact.table import EmbeddingTable, Entity, check_table, to_arrow
from feast_embeddings.artifact.table_files import fsync, part_slices, sha256_of, write_durably, write_parts
from feast_embeddings.artifact.versions import CONTENT_FILES, Artifact

__all__ = ["ContentFile", "check_schemas", "write_artifact"]


@dataclass(frozen=True)
class ContentFile:
    """How vectors are made of content: a file of the version, whose bytes only the trainers understand.

    Attributes:
        described: for the manifest, JSON types only.
        save: writes one Parquet file.
    """

    described: dict[str, Any]
    save: Callable[[Path], None]


def check_schemas(data: Path, model: str, schemas: Mapping[Entity, pa.Schema]) -> None:
    """Check that tables with these columns can become a version, before anything is computed for it.

    Raises:
        InputError: a column's type is incompatible with that in an earlier version, two names differ only in case, or
            earlier versions have other sides.
    """
    folders = version_folders(data, model)
    check_sides(folders, model, schemas)
    check_columns(folders, schemas)


def write_artifact(
    data: Path,
    model: str,
    *,
    users: EmbeddingTable | None,
    items: EmbeddingTable | None,
    as_of: datetime,
    trainer: TrainerInfo,
    seed: int | None,
    metrics: dict[str, float],
    evaluated_on: str = "",
    fingerprint: str,
    n_interactions: int,
    alignment: Alignment | None = None,
    space: str | None = None,
    new_space_reason: str = "",
    interactions: dict[str, Any] | None = None,
    tuning: dict[str, Any] | None = None,
    content: Mapping[Entity, ContentFile] | None = None,
    network: Network | None = None,
    history: int | None = None,
    probes: Mapping[str, str] | None = None,
) -> Artifact:
    """Write a new version of a model and return it. Leaves nothing behind on failure.

    The version is the time of writing, or a millisecond after the newest version if the clock is behind that, so
    versions always sort by age.

    Args:
        users, items: None for a model that has only the other side.
        alignment: how the vectors were rotated into the space of an earlier version; None starts a new space.
        space: the space of vectors that were not rotated; by default a new one.
        new_space_reason: why a new space starts.
        content: how vectors of a side are made of content.
        network: what makes users of their histories.
        history: how many items of each user are in `users` as seen, at most; None for all.
        probes: see `Manifest.probes`.

    Raises:
        InputError: the vectors or attributes cannot be served, or earlier versions have other sides.
    """
    folder = data / validate_model_name(model)
    created_at = datetime.now(UTC)
    given: dict[Entity, EmbeddingTable | None] = {"user": users, "item": items}
    sides = {entity: check_table(entity, table) for entity, table in given.items() if table}

    def space_id() -> str:
        return alignment.space_id if alignment else space or f"{model}-{version_at(created_at)}"

    def part(entity: Entity, rows: slice) -> pa.Table:
        return to_arrow(entity, sides[entity].part(rows), as_of, created_at, version_at(created_at), space_id())

    # Before the folder is made, so that a failure leaves nothing.
    schemas = {entity: part(entity, slice(0, 0)).schema for entity in sides}
    check_schemas(data, model, schemas)
    folder.mkdir(parents=True, exist_ok=True)
    with writing(folder):
        existing = version_folders(data, model)
        check_schemas(data, model, schemas)  # again, against versions written since
        if existing and version_at(created_at) <= existing[-1].name:
            created_at = time_after(existing[-1])
        version = version_at(created_at)
        with version_written_whole(folder, version) as temporary:
            files: dict[str, FileInfo] = {}
            for entity, table in sides.items():
                parts = (map(part, repeat(entity), groups) for groups in part_slices(len(table.ids)))
                files |= write_parts(temporary, f"{entity}s", parts)
            content = content or {}
            saved = {CONTENT_FILES[entity]: made.save for entity, made in content.items()}
            if network is not None:
                saved[NETWORK_FILE] = network.save
            for name, save in saved.items():
                file = temporary / name
                save(file)
                fsync(file)
                files[file.name] = FileInfo(rows=pq.read_metadata(file).num_rows, sha256=sha256_of(file))
            manifest = Manifest(
                format_version=FORMAT_VERSION,
                model=model,
                version=version,
                space_id=space_id(),
                as_of=as_of,
                created_at=created_at,
                trainer=trainer,
                seed=seed,
                dim=next(iter(sides.values())).embedding.shape[1],
                n_users=0 if users is None else len(users.ids),
                n_items=0 if items is None else len(items.ids),
                n_interactions=n_interactions,
                metrics=metrics,
                evaluated_on=evaluated_on,
                fingerprint=fingerprint,
                interactions=interactions,
                tuning=tuning,
                content=content["item"].described if "item" in content else None,
                user_content=content["user"].described if "user" in content else None,
                history=history,
                probes=dict(probes) if probes else None,
                files=files,
                **alignment_fields(alignment, new_space_reason),
            ).signed()
            write_durably(temporary / "manifest.json", manifest.to_bytes())
        refresh_history(folder, version_folders(data, model))
    return Artifact(folder / version, manifest)
