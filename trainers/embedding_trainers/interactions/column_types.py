"""The types of ids and attributes of a version, which the next version is read with."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from feast_embeddings.artifact import RESERVED_COLUMNS, Artifact, Entity, load_artifact
from feast_embeddings.errors import ArtifactError, InputError
from feast_embeddings.reading import ColumnType, IdType

__all__ = ["VersionTypes", "types_of", "types_of_newest", "types_of_version"]

_WORDS: dict[pa.DataType, ColumnType] = {
    pa.string(): "text",
    pa.int64(): "int",
    pa.float64(): "float",
    pa.bool_(): "bool",
    pa.timestamp("us", "UTC"): "time",
}


@dataclass(frozen=True)
class VersionTypes:
    """Types of one version; empty where there is none.

    Attributes:
        ids: of users and items.
        attributes: by name; lists, which no text is read as, are not among them.
    """

    ids: dict[Entity, IdType] = field(default_factory=dict)
    attributes: dict[Entity, dict[str, ColumnType]] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As it stands in the manifest."""
        return {"ids": dict(self.ids), "attributes": {entity: dict(types) for entity, types in self.attributes.items()}}


def types_of(schemas: dict[Entity, pa.Schema]) -> VersionTypes:
    """The types of tables of users and items."""
    return VersionTypes(
        {
            entity: "int" if schema.field(f"{entity}_id").type == pa.int64() else "text"
            for entity, schema in schemas.items()
        },
        {
            entity: {
                column.name: _WORDS[column.type]
                for column in schema
                if column.name not in RESERVED_COLUMNS and column.type in _WORDS
            }
            for entity, schema in schemas.items()
        },
    )


def types_of_version(artifact: Artifact) -> VersionTypes:
    """Those of a version, from its manifest; of its tables, where that does not have them yet."""
    recorded = (artifact.manifest.interactions or {}).get("types")
    if recorded is not None:
        return VersionTypes(recorded["ids"], recorded["attributes"])
    return types_of({entity: artifact.schema(entity) for entity in artifact.manifest.sides})


def types_of_newest(data: Path, model: str) -> VersionTypes:
    """Those of the newest version of a model that can be read; none if there is no such version."""
    try:
        return types_of_version(load_artifact(data, model))
    except (InputError, ArtifactError):
        return VersionTypes()
