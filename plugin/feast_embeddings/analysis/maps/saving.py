"""Save the map of the live version, for the page of the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.analysis.members import Members
from feast_embeddings.artifact import Artifact, Entity, list_artifacts
from feast_embeddings.artifact.saved_map import SavedMap, read_map, write_map
from feast_embeddings.errors import InputError
from feast_embeddings.events import event_log_of
from feast_embeddings.query.store import EmbeddingStore

__all__ = ["earlier_versions", "save_map", "saved_before", "version_folder"]


def version_folder(data: Path, model: str, version: str) -> Path:
    """Return the folder of a live version.

    Raises:
        InputError: its files are not there.
    """
    folder = data / model / version
    if not folder.is_dir():
        raise InputError(
            f"--save: version {version} is live, but its files are not in {data / model}; run map where they are"
        )
    return folder


def earlier_versions(data: Path, model: str, version: str) -> list[Artifact]:
    """Return the versions on disk that are older than this one and of the same space, the newest first.

    None if this one is not there, as no one knows its space.
    """
    found = {each.manifest.version: each for each in list_artifacts(data, model)}
    if version not in found:
        return []
    space = found[version].manifest.space_id
    return [each for name, each in reversed(found.items()) if name < version and each.manifest.space_id == space]


def saved_before(earlier: list[Artifact], entity: Entity) -> tuple[str, dict[Any, tuple[float, float]]] | None:
    """Return the first of these versions that has a saved map, and the places on it by id; None if none has.

    Raises:
        ArtifactError: that map is damaged.
    """
    for artifact in earlier:
        if (found := read_map(artifact.path, entity)) is not None:
            places = zip(*found.places.T.tolist(), strict=True)
            return artifact.manifest.version, dict(zip(found.ids.to_pylist(), places, strict=True))
    return None


def save_map(store: EmbeddingStore, data: Path, members: Members, drawn: SavedMap) -> Path:
    """Write the map of these members; those who were forgotten since they were read are left out.

    Raises:
        InputError: another version went live since they were read, or the version's files are gone.
    """
    # No one is forgotten between the look at who is live and the writing.
    with event_log_of(data, store.model).changing():
        folder = version_folder(data, store.model, members.version)
        reader = store.export(members.entity)
        live = pa.concat_arrays([batch.column(members.id_name) for batch in reader] or [drawn.ids.slice(0, 0)])
        if reader.schema.metadata[b"version"].decode() != members.version:
            raise InputError(
                f"another version than {members.version} went live while its map was drawn; run map --save again"
            )
        there = pc.is_in(drawn.ids, value_set=live.cast(drawn.ids.type)).to_numpy(zero_copy_only=False)
        try:
            return write_map(folder, members.entity, drawn.only(np.asarray(there, np.bool_)))
        except OSError as error:
            raise InputError(f"the map cannot be saved in {folder}: {error.strerror}; make it writable") from None
