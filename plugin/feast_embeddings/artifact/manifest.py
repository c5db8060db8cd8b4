"""`manifest.json`: the description of a version, its training data and quality, and the checksums of its tables.

Format 1 has no checksum of the manifest itself; formats 1 and 2 have one file for each table.
"""

from __future__ import annotations

import hashlib
import re
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, ValidationError, model_serializer

from feast_embeddings.artifact.table import ENTITIES, Entity
from feast_embeddings.errors import ArtifactError

__all__ = [
    "FORMAT_VERSION",
    "Alignment",
    "FileInfo",
    "Forgotten",
    "Manifest",
    "TrainerInfo",
    "alignment_fields",
    "parse_manifest",
    "read_manifest",
]

FORMAT_VERSION = 3
_READABLE = (1, 2, 3)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class TrainerInfo(_Frozen):
    """Name of the trainer and its hyper-parameters, JSON types only."""

    name: str
    config: dict[str, Any]


class FileInfo(_Frozen):
    rows: int
    sha256: str


class Forgotten(_Frozen):
    """That rows were removed from a version after its training; not whose."""

    at: datetime
    entity: Entity
    count: int
    """Rows removed; 0 if only lists of seen items named the item."""


class Alignment(_Frozen):
    """How the vectors of a version were rotated into the space of an earlier one."""

    version: str
    """The earlier version."""
    space_id: str
    """Its space, which both now share."""
    residual: float
    """0 for vectors that agree up to a rotation, 1 for unrelated vectors."""
    shared_users: int
    shared_items: int
    cosine_before: float
    """Mean cosine between the vectors of shared ids in both versions, weighted by interactions, before the rotation."""
    cosine: float
    """The same after the rotation."""


class Manifest(_Frozen):
    """`manifest.json`; times are UTC."""

    format_version: int
    model: str
    version: str
    space_id: str
    """The vector space. Vectors of different spaces must never be compared."""
    as_of: datetime
    """Time of the newest interaction that the run saw (time of training for a log without times)."""
    created_at: datetime
    trainer: TrainerInfo
    seed: int | None
    dim: int
    n_users: int
    n_items: int
    n_interactions: int
    metrics: dict[str, float]
    """Ranking quality on a holdout of the interactions, e.g. ``recall@20``; empty if not evaluated."""
    evaluated_on: str = ""
    """The kind of holdout; empty if not evaluated."""
    fingerprint: str
    """Hash of the interactions: equal for equal training data."""
    interactions: dict[str, Any] | None = None
    """How the log was read: names of its columns, filters and weights. None if not recorded."""
    tuning: dict[str, Any] | None = None
    """How the hyper-parameters were found: objective, holdout, all trials. None if they were given."""
    content: dict[str, Any] | None = None
    """What the vectors of items without interactions were made of. None if the version makes none of content."""
    user_content: dict[str, Any] | None = None
    """The same of users."""
    probes: dict[str, str] | None = None
    """Tables of labels that a model of the live version's vectors is scored on, by name: ``FILE:COLUMN``."""
    aligned_to: str | None = None
    """The earlier version into whose space the vectors were rotated; None if they were not."""
    alignment_residual: float | None = None
    """This and the next are None if `aligned_to` is; see `Alignment`."""
    alignment_shared_users: int | None = None
    alignment_shared_items: int | None = None
    alignment_cosine_before: float | None = None
    alignment_cosine: float | None = None
    new_space_reason: str = ""
    """Why the version started a new space; empty if it did not."""
    history: int | None = None
    """How many items of each user are kept as seen, the newest; None if all are."""
    forgotten: tuple[Forgotten, ...] = ()
    """What was removed since; see `feast_embeddings.artifact.forgetting`."""
    files: dict[str, FileInfo]
    """Rows and checksum of each file, by name: ``users.parquet``, or parts ``users-00000.parquet`` and so on; and
    ``content.parquet`` and ``user_content.parquet``, if there is `content` and `user_content`; and ``network.parquet``,
    for a trainer that has a network."""
    checksum: str = ""
    """SHA-256 of the file's bytes with this field empty."""

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        fields: dict[str, Any] = handler(self)
        # Older releases refuse a manifest that has these.
        if not self.forgotten:
            fields.pop("forgotten", None)
        for name in ("history", "user_content", "probes"):
            if fields[name] is None:
                fields.pop(name)
        return fields

    @property
    def sides(self) -> tuple[Entity, ...]:
        """The sides that the version has: users and items, or one of them."""
        return tuple(entity for entity in ENTITIES if self.rows(entity) or self.parts(entity))

    def rows(self, entity: Entity) -> int:
        """Return the number of users or items."""
        return self.n_users if entity == "user" else self.n_items

    @property
    def text_columns(self) -> list[str]:
        """The columns of items that are text among their content."""
        columns = (self.content or {}).get("columns", [])
        return [column["name"] for column in columns if column.get("kind") == "text"]

    def content_of(self, entity: Entity) -> dict[str, Any] | None:
        """Return what vectors of users or items without interactions were made of; None if of nothing."""
        return self.user_content if entity == "user" else self.content

    def log_column(self, entity: Entity) -> str | None:
        """Return the name that the log's column of user or item ids had; None if not recorded."""
        columns: dict[str, str | None] = (self.interactions or {}).get("columns", {})
        return columns.get(entity)

    @property
    def event_weights(self) -> dict[str, float]:
        """The weight of each type of event in the training; empty if it knew no types."""
        weights: dict[str, float] = (self.interactions or {}).get("preparation", {}).get("event_weights", {})
        return weights

    def parts(self, entity: str) -> dict[str, FileInfo]:
        """Return the files of the users or items, in the order of the rows."""
        pattern = re.compile(rf"{entity}s(-\d{{5}})?\.parquet")
        return {name: info for name, info in sorted(self.files.items()) if pattern.fullmatch(name)}

    def hash_of(self, entity: str) -> str:
        """Return a hash of the users' or items' table: equal for equal bytes."""
        hashes = [info.sha256 for info in self.parts(entity).values()]
        return hashes[0] if len(hashes) == 1 else hashlib.sha256(" ".join(hashes).encode()).hexdigest()

    def signed(self) -> Manifest:
        """Return a copy with its checksum."""
        return self.model_copy(update={"checksum": hashlib.sha256(self.to_bytes()).hexdigest()})

    def to_bytes(self) -> bytes:
        """Return the content of the file."""
        return self.model_dump_json(indent=2).encode() + b"\n"


def alignment_fields(alignment: Alignment | None, reason: str) -> dict[str, Any]:
    """Return the fields of a manifest for an alignment, or for the reason why there is none."""
    if alignment is None:
        return {"new_space_reason": reason}
    measured = alignment.model_dump(exclude={"version", "space_id"})
    return {"aligned_to": alignment.version, **{f"alignment_{name}": value for name, value in measured.items()}}


def read_manifest(version: Path) -> Manifest:
    """Read the manifest of the version in this folder.

    Raises:
        ArtifactError: it is missing, damaged, of a newer format, or of another version.
    """
    try:
        raw = (version / "manifest.json").read_bytes()
    except OSError as error:
        raise ArtifactError(f"{version} has no readable manifest.json ({error.strerror})") from None
    return parse_manifest(raw, version.parent.name, version.name, str(version))


def parse_manifest(raw: bytes, model: str, version: str, where: str) -> Manifest:
    """Read the manifest of a version from its bytes.

    Args:
        where: the folder of the version, for errors.

    Raises:
        ArtifactError: it is damaged, of a newer format, or of another version.
    """
    try:
        manifest = Manifest.model_validate_json(raw)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "manifest"
        raise ArtifactError(f"{where}/manifest.json is damaged: {field}: {first['msg']}") from None
    if manifest.format_version not in _READABLE:
        raise ArtifactError(
            f"{where} has artifact format {manifest.format_version}, but this release reads "
            f"{_READABLE[0]} to {_READABLE[-1]}; upgrade feast-embeddings"
        )
    if (manifest.version, manifest.model) != (version, model):
        raise ArtifactError(
            f"{where} holds the manifest of {manifest.model}/{manifest.version}; restore the folder under its name"
        )
    if manifest.format_version > 1:
        unsigned = raw.replace(f'"checksum": "{manifest.checksum}"'.encode(), b'"checksum": ""')
        if hashlib.sha256(unsigned).hexdigest() != manifest.checksum:
            raise ArtifactError(f"{where}/manifest.json was changed after training; restore it or train a new version")
    return manifest
