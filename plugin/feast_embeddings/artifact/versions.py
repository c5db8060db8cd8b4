"""Versions on disk: find, read and delete them."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feast_embeddings.artifact.history import refresh_history
from feast_embeddings.artifact.manifest import FileInfo, Manifest, read_manifest
from feast_embeddings.artifact.model_folder import trained_models, validate_model_name, version_folders, writing
from feast_embeddings.artifact.network import NETWORK_FILE, Network
from feast_embeddings.artifact.table import Entity
from feast_embeddings.artifact.table_files import TableFiles, sha256_of, table_files
from feast_embeddings.errors import ArtifactError, InputError, MissingSideError

__all__ = [
    "CONTENT_FILES",
    "LATEST",
    "PREVIOUS",
    "Artifact",
    "delete_artifacts",
    "list_artifacts",
    "load_artifact",
]

CONTENT_FILES: dict[Entity, str] = {"user": "user_content.parquet", "item": "content.parquet"}
# Words that stand for a version on disk.
LATEST, PREVIOUS = "latest", "previous"


@dataclass(frozen=True)
class Artifact:
    """One version on disk."""

    path: Path
    manifest: Manifest

    def verified(self, entity: Entity) -> TableFiles:
        """Return the files of the users or items after verifying that training wrote them.

        Raises:
            ArtifactError: one is missing, or was changed.
            MissingSideError: the model has only the other side.
        """
        parts = self.manifest.parts(entity)
        if not parts and not self.manifest.rows(entity):
            raise MissingSideError(f"version {self.manifest.version} of model {self.manifest.model!r} has no {entity}s")
        if not parts:
            raise ArtifactError(f"{self.path} has no {entity}s; restore it or train a new version")
        files = table_files([self._verified(name, expected) for name, expected in parts.items()])
        self._check(entity, files)
        return files

    def content(self, entity: Entity = "item") -> Path | None:
        """Return the file that says how vectors are made of content, verified; None if the version has none.

        Raises:
            ArtifactError: it is missing, or was changed.
        """
        if self.manifest.content_of(entity) is None:
            return None
        name = CONTENT_FILES[entity]
        if (expected := self.manifest.files.get(name)) is None:
            raise ArtifactError(f"{self.path} has no {name}; restore it or train a new version")
        return self._verified(name, expected)

    def network(self) -> Network | None:
        """Return the network that makes users of their histories, verified; None if the version has none.

        Raises:
            ArtifactError: its file is missing, or was changed.
        """
        expected = self.manifest.files.get(NETWORK_FILE)
        return None if expected is None else Network.load(self._verified(NETWORK_FILE, expected))

    def verified_file(self, name: str) -> Path:
        """Return one of the files of the manifest, verified.

        Raises:
            ArtifactError: it is missing, or was changed.
        """
        return self._verified(name, self.manifest.files[name])

    def _verified(self, name: str, expected: FileInfo) -> Path:
        file = self.path / name
        if not file.is_file():
            raise ArtifactError(f"{file} is missing from the artifact; restore it or train a new version")
        if (found := sha256_of(file)) != expected.sha256:
            raise ArtifactError(
                f"{file} was changed after training (sha256 {found[:12]}…, "
                f"manifest says {expected.sha256[:12]}…); restore it or train a new version"
            )
        return file

    def schema(self, entity: Entity) -> pa.Schema:
        """Return the columns of the users' or items' table, from the file as it is now.

        Raises:
            ArtifactError: the file is missing, or cannot be read.
        """
        file = self.path / next(iter(self.manifest.parts(entity)), f"{entity}s.parquet")
        try:
            return pq.read_schema(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise ArtifactError(f"{file} cannot be read ({error}); restore it or train a new version") from None

    def table(self, entity: Entity, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the vectors of the users or items, verified against the checksums in the manifest.

        Args:
            columns: the columns to read; None reads all.

        Raises:
            ArtifactError: a file is missing, or is not the one that training wrote.
        """
        return self.verified(entity).read(columns)

    def batches(
        self, entity: Entity, columns: Sequence[str] | None = None, rows: int = 10_000
    ) -> Iterator[pa.RecordBatch]:
        """Like `table`, at most `rows` rows at a time: the table is never in memory as a whole."""
        return self.verified(entity).batches(columns, rows)

    def trained_on(self, entity: Entity, table: pa.Table) -> pa.Table:
        """Return the rows of a table of users or items that training learned from, and not from content alone.

        Args:
            table: with the column ``n_interactions``.
        """
        if self.manifest.content_of(entity) is None:
            return table
        return table.filter(pc.greater(table["n_interactions"], 0))

    def _check(self, entity: Entity, files: TableFiles) -> None:
        """Check that the manifest and the table agree; a manifest of format 1 has no checksum."""
        manifest, where = self.manifest, ", ".join(map(str, files.paths[:2]))
        names = files.schema.names
        dtype: Any = files.schema.field("embedding").type if "embedding" in names else pa.null()
        dim = dtype.list_size if pa.types.is_fixed_size_list(dtype) else None
        rows = manifest.rows(entity)
        if f"{entity}_id" not in names or dim != manifest.dim or files.num_rows != rows:
            raise ArtifactError(
                f"{where} is not what its manifest says: expected {rows} {entity}s of dimension {manifest.dim}, "
                f"found {files.num_rows} rows with the columns {', '.join(names)}, dimension {dim}; "
                "restore it or train a new version"
            )
        if manifest.format_version > 1:
            return
        said = {"version": manifest.version, "space": manifest.space_id, "event_timestamp": manifest.as_of}
        stamps = files.read(list(said))
        for name, value in said.items():
            if found := set(stamps[name].unique().to_pylist()) - {value}:
                raise ArtifactError(
                    f"{where} has a different {name} than its manifest: expected {value}, found {found.pop()}; "
                    "restore it or train a new version"
                )


def list_artifacts(data: Path, model: str) -> list[Artifact]:
    """Return all versions of a model, oldest first, except versions deleted meanwhile."""
    found = []
    for path in version_folders(data, model):
        try:
            found.append(Artifact(path, read_manifest(path)))
        except ArtifactError:
            if path.is_dir():
                raise
    return found


def delete_artifacts(data: Path, model: str, versions: Iterable[str]) -> None:
    """Delete versions from the disk, and from the offline history. Each deletion is atomic."""
    folder = data / validate_model_name(model)
    if not folder.is_dir():
        return
    unwanted = set(versions)
    with writing(folder):
        for path in version_folders(data, model):
            if path.name in unwanted:
                # Hide it first; what a crash leaves of it is deleted like other leftovers.
                hidden = folder / f".{path.name}.{uuid.uuid4().hex[:8]}"
                path.rename(hidden)
                shutil.rmtree(hidden)
        refresh_history(folder, version_folders(data, model))


def load_artifact(data: Path, model: str, version: str | None = None) -> Artifact:
    """Load one version of a model, by default the newest.

    Args:
        version: its name; or ``latest``, or ``previous`` for the one before that.

    Raises:
        InputError: there is no such model or version; the message lists the existing ones.
        ArtifactError: the manifest is damaged or of a newer format.
    """
    folder = data / validate_model_name(model)
    versions = [path.name for path in version_folders(data, model)]
    if not versions:
        known = ", ".join(trained_models(data)) or "none"
        raise InputError(f"no trained version of model {model!r} under {data} (models there: {known}); run train")
    if version in (None, LATEST):
        version = versions[-1]
    elif version == PREVIOUS:
        if len(versions) < 2:
            raise InputError(f"model {model!r} has only one version, {versions[-1]}, so there is no previous one")
        version = versions[-2]
    if version not in versions:
        raise InputError(f"model {model!r} has no version {version!r}; it has {', '.join(versions[-5:])}")
    return Artifact(folder / version, read_manifest(folder / version))
