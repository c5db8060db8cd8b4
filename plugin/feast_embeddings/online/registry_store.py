"""Feast's registry file, replaced atomically. Selected in feature_store.yaml::

    registry:
      registry_store_type: feast_embeddings.AtomicFileRegistryStore
      path: data/registry.db

Feast's own store rewrites the file in place: a process that is killed meanwhile leaves half of a file, which
`feast apply` cannot read. The format is the same, so a repo can switch between the two stores at any time.
"""

from __future__ import annotations

from pathlib import Path

from feast.repo_config import RegistryConfig

from feast_embeddings._feast.registry import RegistryFile
from feast_embeddings.errors import InputError
from feast_embeddings.files import written_whole

__all__ = ["AtomicFileRegistryStore"]


class AtomicFileRegistryStore(RegistryFile):
    """Readers see the file from before a write or after it, even if the writer is killed.

    Stability: stable, see docs/compatibility.md.
    """

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        if "://" in str(registry_config.path):  # Feast would take it for a local path
            raise InputError(
                f"registry.path is {registry_config.path}, and registry_store_type {type(self).__name__} is for local "
                "files: leave out registry_store_type, and Feast uses its own store for that address"
            )
        super().__init__(registry_config, repo_path)

    def write(self, path: Path, content: bytes) -> None:
        """Replace the file atomically."""
        with written_whole(path) as file:
            file.write(content)
