"""Copies of versions in an object store, laid out as on disk: ``<url>/<model>/<version>/manifest.json`` and so on.

The manifest is written last and deleted first, so a version is there completely or not at all, and what a killed
process left is no version. It names the checksum of each file, which a pull verifies.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
import uuid
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import pyarrow as pa
from pyarrow.fs import FileSelector, FileSystem, FileType, LocalFileSystem, copy_files

from feast_embeddings.artifact import Artifact, Manifest, delete_artifacts, load_artifact, version_folders
from feast_embeddings.artifact.history import refresh_history
from feast_embeddings.artifact.manifest import parse_manifest, read_manifest
from feast_embeddings.artifact.model_folder import is_version_name, validate_model_name, version_written_whole, writing
from feast_embeddings.artifact.table_files import fsync, sha256_of
from feast_embeddings.errors import ArtifactError, EmbeddingsError, InputError
from feast_embeddings.reading.faults import first_line

__all__ = ["ArtifactStore"]

_MANIFEST = "manifest.json"
_DISK = LocalFileSystem()
_PASSWORD = re.compile(r"(://[^/@]*:)[^@/]*@")


class ArtifactStore:
    """Versions of models under one URL.

    Args:
        url: ``s3://bucket/folder``, ``gs://…``, another one that Arrow knows, or an absolute path; credentials come
            from where the programs of that store look for them.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._shown = _PASSWORD.sub(r"\1***@", url).partition("?")[0]

    @cached_property
    def _opened(self) -> tuple[FileSystem, str]:
        """The file system, and the path in it. Opened late: its threads do not survive a fork."""
        try:
            files, root = FileSystem.from_uri(self._url)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise InputError(f"artifact_store {self._shown}: {first_line(error)}") from None
        return files, root.rstrip("/")

    @property
    def _files(self) -> FileSystem:
        return self._opened[0]

    def __str__(self) -> str:
        return self._shown

    def __repr__(self) -> str:
        return f"ArtifactStore({self._shown!r})"

    def versions(self, model: str) -> list[str]:
        """Return the versions of a model that are here, oldest first."""
        folder = self._path(validate_model_name(model))
        with self._failures("cannot be listed"):
            found = self._files.get_file_info(FileSelector(folder, recursive=True, allow_not_found=True))
        names = (posixpath.basename(posixpath.dirname(f.path)) for f in found if f.base_name == _MANIFEST)
        return sorted(name for name in names if is_version_name(name))

    def push(self, artifact: Artifact) -> bool:
        """Copy to here what of a version is not here, and return whether there was anything.

        Files that the version no longer has are deleted.

        Raises:
            ArtifactError: a file of the version is damaged; or users or items were forgotten from the copy here that
                this one still has.
            EmbeddingsError: the store failed. The version is not here then, or as it was before.
        """
        manifest = artifact.manifest
        folder, raw = self._path(manifest.model, manifest.version), (artifact.path / _MANIFEST).read_bytes()
        there = self._manifest(manifest.model, manifest.version)
        before = None if there is None else self._parsed(there, manifest.model, manifest.version)
        if before is not None and not _has_forgotten(manifest, before):
            raise ArtifactError(
                f"users or items were forgotten from version {manifest.version} in {self} that {artifact.path} still "
                f"has: run feast-embeddings pull --model {manifest.model} --version {manifest.version}"
            )
        old = {} if before is None else before.files
        with self._failures(f"cannot take version {manifest.version}"):
            self._files.create_dir(folder)
            found = {f.base_name for f in self._files.get_file_info(FileSelector(folder)) if f.type == FileType.File}
            missing = [name for name, info in manifest.files.items() if name not in found or old.get(name) != info]
            try:
                for name in missing:
                    file = str(artifact.verified_file(name))
                    with self._whole(f"{folder}/{name}") as target:
                        copy_files(file, target, source_filesystem=_DISK, destination_filesystem=self._files)
                if there != raw:
                    with (
                        self._whole(f"{folder}/{_MANIFEST}") as target,
                        self._files.open_output_stream(target) as written,
                    ):
                        written.write(raw)
                # Also what a push left that was killed here.
                for name in found - manifest.files.keys() - {_MANIFEST}:
                    self._files.delete_file(f"{folder}/{name}")
            except FileNotFoundError:
                # Another push of this version may have finished, and deleted what this one was writing.
                if self._manifest(manifest.model, manifest.version) != raw:
                    raise
        return bool(missing) or there != raw

    def pull(self, data: Path, model: str, version: str) -> Artifact:
        """Copy a version into the folder of trained versions, verify it, and return it.

        One that is there already stays, unless it is damaged, or users or items were forgotten here that it still has.

        Raises:
            InputError: it is not here; the message lists the ones here.
            ArtifactError: it is damaged here.
            EmbeddingsError: the store failed.
        """
        folder = data / validate_model_name(model)
        if (raw := self._manifest(model, version)) is None:
            known = ", ".join(self.versions(model)[-5:]) or "none"
            raise InputError(f"model {model!r} has no version {version!r} in {self}; there are: {known}")
        parsed = self._parsed(raw, model, version)
        folder.mkdir(parents=True, exist_ok=True)
        target = folder / version
        if target.exists() and not _may_stay(target, parsed):
            delete_artifacts(data, model, [version])
        with writing(folder):
            if not target.exists():
                with version_written_whole(folder, version) as temporary:
                    self._download(parsed, raw, temporary)
                refresh_history(folder, version_folders(data, model))
        return load_artifact(data, model, version)

    def delete(self, model: str, versions: Iterable[str]) -> None:
        """Delete versions; a version that is not here is no error."""
        for version in versions:
            folder = self._path(model, version)
            with self._failures(f"cannot delete version {version}"):
                with contextlib.suppress(FileNotFoundError):
                    self._files.delete_file(f"{folder}/{_MANIFEST}")
                with contextlib.suppress(FileNotFoundError):
                    self._files.delete_dir(folder)

    def _download(self, manifest: Manifest, raw: bytes, target: Path) -> None:
        folder = self._path(manifest.model, manifest.version)
        with self._failures(f"cannot give version {manifest.version}"):
            for name, info in manifest.files.items():
                try:
                    file = str(target / name)
                    copy_files(f"{folder}/{name}", file, source_filesystem=self._files, destination_filesystem=_DISK)
                except FileNotFoundError:
                    raise ArtifactError(f"{self}: version {manifest.version} lacks {name}; push it again") from None
                if (found := sha256_of(target / name)) != info.sha256:
                    raise ArtifactError(
                        f"{self}: {name} of version {manifest.version} was changed (sha256 {found[:12]}…, its manifest "
                        f"says {info.sha256[:12]}…); delete the version there, and publish it again from where it is"
                    )
                fsync(target / name)
            (target / _MANIFEST).write_bytes(raw)
            fsync(target / _MANIFEST)

    @contextlib.contextmanager
    def _whole(self, path: str) -> Iterator[str]:
        """Give a path to write to, which becomes this one in one step: a folder would show half of a file.

        An object appears as a whole anyway.
        """
        if not isinstance(self._files, LocalFileSystem):
            yield path
            return
        folder, name = posixpath.split(path)
        unfinished = f"{folder}/.{name}.{uuid.uuid4().hex[:8]}"
        yield unfinished
        self._files.move(unfinished, path)

    def _manifest(self, model: str, version: str) -> bytes | None:
        """Return the bytes of the manifest of a version here; None if it is not."""
        if not is_version_name(version):
            return None
        path = self._path(model, version, _MANIFEST)
        with self._failures("cannot be read"):
            try:
                with self._files.open_input_stream(path) as file:
                    raw: bytes = file.readall()
            except FileNotFoundError:
                return None
        return raw

    def _parsed(self, raw: bytes, model: str, version: str) -> Manifest:
        return parse_manifest(raw, model, version, f"{self}/{model}/{version}")

    def _path(self, *parts: str) -> str:
        return "/".join((self._opened[1], *parts))

    @contextlib.contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        """Turn what Arrow raises into an error of ours."""
        try:
            yield
        except EmbeddingsError:
            raise
        except (OSError, pa.ArrowException) as error:
            raise EmbeddingsError(f"{self} {what}: {first_line(error)}") from error


def _may_stay(path: Path, stored: Manifest) -> bool:
    """Return whether a copy on this disk is whole, and has nothing that was forgotten from the stored one."""
    try:
        artifact = Artifact(path, read_manifest(path))
        for name in artifact.manifest.files:
            artifact.verified_file(name)
    except ArtifactError:
        return False
    return _has_forgotten(artifact.manifest, stored)


def _has_forgotten(manifest: Manifest, other: Manifest) -> bool:
    """Return whether everything that was forgotten from one copy of a version was forgotten from this one, too."""
    return manifest.forgotten[: len(other.forgotten)] == other.forgotten
