"""The manifest of a backup, and the verification of its files."""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from feast_embeddings.artifact import validate_model_name
from feast_embeddings.artifact.table_files import sha256_of
from feast_embeddings.engines.engine import CollectionSpec
from feast_embeddings.errors import InputError

__all__ = [
    "ADDED",
    "EVENTS",
    "FORMAT_VERSION",
    "HIDDEN",
    "MANIFEST",
    "REGISTRY",
    "Contents",
    "File",
    "StoredCollection",
    "read_contents",
    "verify_files",
    "write_contents",
]

FORMAT_VERSION = 1
MANIFEST, REGISTRY, EVENTS = "manifest.json", "registry.pb", "events.sqlite"
HIDDEN, ADDED = "hidden.json", "attributes.json"
# No other file is read: a name from elsewhere must not lead out of the folder.
_NAME = re.compile(
    r"registry\.pb|collections/\d+\.parquet|"
    r"models/[a-z][a-z0-9_]{0,39}/"
    r"(events\.sqlite|(hidden|attributes)\.json|versions/\d{8}T\d{9}Z/[A-Za-z0-9_][A-Za-z0-9_.-]*)"
)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class File(_Frozen):
    """One file: its size, and the SHA-256 of its bytes in hex."""

    bytes: int
    sha256: str


class StoredCollection(_Frozen):
    """A collection: the file of its points, how many, and its spec."""

    file: str
    points: int
    spec: CollectionSpec


class Contents(_Frozen):
    """What a backup has.

    Attributes:
        created_at: when it was begun, UTC.
        feast_embeddings, feast: versions of the packages that wrote it.
        models: those with files of their own.
        aliases: alias -> its live collection.
        checksum: SHA-256 of the manifest with an empty one in its place.
    """

    format_version: int
    created_at: datetime
    feast_embeddings: str
    feast: str
    project: str
    models: list[str]
    aliases: dict[str, str]
    collections: dict[str, StoredCollection]
    files: dict[str, File]
    checksum: str = ""

    @property
    def tables(self) -> set[str]:
        """The aliases of all collections, live or kept."""
        return {collection.spec.alias for collection in self.collections.values()} | set(self.aliases)

    def versions_of(self, model: str) -> dict[str, list[str]]:
        """Return the versions of a model that were on disk, and the names of the files of each."""
        found: dict[str, list[str]] = {}
        start = f"models/{model}/versions/"
        for name in self.files:
            if name.startswith(start):
                version, _, file = name.removeprefix(start).partition("/")
                found.setdefault(version, []).append(file)
        return found


def write_contents(folder: Path, contents: Contents) -> None:
    """Write the manifest, with its checksum."""
    checksum = _checksum(contents)
    (folder / MANIFEST).write_text(contents.model_copy(update={"checksum": checksum}).model_dump_json(indent=1))


def _checksum(contents: Contents) -> str:
    return hashlib.sha256(contents.model_copy(update={"checksum": ""}).model_dump_json().encode()).hexdigest()


def read_contents(folder: Path, name: Path) -> Contents:
    """Read the manifest of a backup in this folder; `name` is the user's name for it.

    Raises:
        InputError: it is missing, damaged, or of a newer format.
    """
    try:
        raw = (folder / MANIFEST).read_bytes()
    except OSError as error:
        raise InputError(f"{name} is no backup: {MANIFEST} cannot be read ({error.strerror})") from None
    if (said := re.search(rb'"format_version":\s*(\d+)', raw)) and int(said[1]) > FORMAT_VERSION:
        raise InputError(
            f"{name} has backup format {int(said[1])}, but this release reads {FORMAT_VERSION}; "
            "upgrade feast-embeddings"
        )
    try:
        contents = Contents.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or MANIFEST
        raise InputError(f"{name} is damaged: {MANIFEST}: {where}: {first['msg']}; take another backup") from None
    files = {collection.file for collection in contents.collections.values()}
    wrong = [file for file in contents.files if not _NAME.fullmatch(file)] + sorted(files - contents.files.keys())
    unknown = set(contents.aliases.values()) - contents.collections.keys()
    if _checksum(contents) != contents.checksum or wrong or unknown:
        raise InputError(f"{name} is damaged: {MANIFEST} was changed; take another backup")
    for model in contents.models:
        validate_model_name(model)
    return contents


def verify_files(folder: Path, name: Path, contents: Contents) -> None:
    """Compare each file with its checksum; what the folder has in addition is never read.

    Raises:
        InputError: a file is missing, or is not the one that was written.
    """
    for file, expected in contents.files.items():
        path = folder / file
        if not path.is_file():
            raise InputError(f"{name} is damaged: {file} is missing; take another backup")
        if path.stat().st_size != expected.bytes or (found := sha256_of(path)) != expected.sha256:
            size = path.stat().st_size
            what = f"{size} bytes instead of {expected.bytes}" if size != expected.bytes else f"sha256 {found[:12]}…"
            raise InputError(f"{name} is damaged: {file} is not what was written ({what}); take another backup")
