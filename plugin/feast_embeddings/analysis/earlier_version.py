"""The versions before the live one whose vectors can be compared with it."""

from __future__ import annotations

from pathlib import Path

from feast_embeddings.artifact import Artifact, list_artifacts

__all__ = ["earlier_versions"]


def earlier_versions(data: Path, model: str, version: str) -> list[Artifact]:
    """Return the versions on disk that are older than this one and of the same space, the newest first.

    None if this one is not there, as no one knows its space.
    """
    found = {each.manifest.version: each for each in list_artifacts(data, model)}
    if version not in found:
        return []
    space = found[version].manifest.space_id
    return [each for name, each in reversed(found.items()) if name < version and each.manifest.space_id == space]
