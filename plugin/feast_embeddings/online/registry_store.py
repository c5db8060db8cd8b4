"""Feast's registry file, replaced as a whole. Selected in feature_store.yaml::

    registry:
      registry_store_type: feast_embeddings.AtomicFileRegistryStore
      path: data/registry.db

Feast's own store rewrites the file in place: a process that is killed meanwhile leaves half of it, which
`feast apply` cannot read. The file is the same, so a repo can change from the one to the other at any time.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

from feast.infra.registry.file import FileRegistryStore
from feast.repo_config import RegistryConfig

from feast_embeddings._feast import RegistryProto
from feast_embeddings.errors import InputError
from feast_embeddings.files import written_whole

__all__ = ["AtomicFileRegistryStore"]


class AtomicFileRegistryStore(FileRegistryStore):
    """Readers find the file before a write or after it, whenever the writer is killed."""

    def __init__(self, registry_config: RegistryConfig, repo_path: Path) -> None:
        if "://" in str(registry_config.path):  # Feast would make a local path of it
            raise InputError(
                f"registry.path is {registry_config.path}, and registry_store_type {type(self).__name__} is for files "
                "of this machine: leave out registry_store_type, and Feast takes its own store for that address"
            )
        super().__init__(registry_config, repo_path)

    def _write_registry(self, registry_proto: RegistryProto) -> None:
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(datetime.now(UTC))
        path = self._filepath.resolve()
        path.parent.mkdir(exist_ok=True)
        with written_whole(path) as file:
            file.write(registry_proto.SerializeToString())
