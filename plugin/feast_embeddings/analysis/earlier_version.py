"""The version before the live one whose vectors can be compared with it."""

from __future__ import annotations

from pathlib import Path

from feast_embeddings.artifact import Artifact, list_artifacts

__all__ = ["earlier_version"]


def earlier_version(data: Path, model: str, version: str) -> Artifact | None:
    """Return the newest version on disk that is older than this one and of the same space; None if there is none."""
    found = {each.manifest.version: each for each in list_artifacts(data, model)}
    if version not in found:
        return None
    space = found[version].manifest.space_id
    older = [each for name, each in found.items() if name < version and each.manifest.space_id == space]
    return older[-1] if older else None
