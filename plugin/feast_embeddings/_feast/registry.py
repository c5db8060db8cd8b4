"""Feast's registry in a file, with a hook to write the file."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from pathlib import Path

from feast.infra.registry.file import FileRegistryStore
from feast.protos.feast.core.Registry_pb2 import Registry as RegistryProto

__all__ = ["RegistryFile"]


class RegistryFile(FileRegistryStore):
    """Feast's store, with `write` to override."""

    def write(self, path: Path, content: bytes) -> None:
        """Write the registry to its file."""
        raise NotImplementedError

    def _write_registry(self, registry_proto: RegistryProto) -> None:
        registry_proto.version_id = str(uuid.uuid4())
        registry_proto.last_updated.FromDatetime(datetime.now(UTC))
        path = self._filepath.resolve()
        path.parent.mkdir(exist_ok=True)
        self.write(path, registry_proto.SerializeToString())
