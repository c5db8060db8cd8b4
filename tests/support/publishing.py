"""Publish past all gates: the versions of tests are random, each in a space of its own."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from feast import FeatureStore

from feast_embeddings.artifact import Artifact
from feast_embeddings.publish.gates import Gates
from feast_embeddings.publish.run import PublishResult, publish_artifact

__all__ = ["ANY", "in_space", "publish_any"]

ANY = Gates(allow_worse=True, allow_shrink=True, allow_new_space=True, allow_future=True)


def publish_any(feature_store: FeatureStore, artifact: Artifact, **more: Any) -> PublishResult:
    """`publish_artifact`, whatever the gates say."""
    return publish_artifact(feature_store, artifact, gates=ANY, **more)


def in_space(artifact: Artifact, space: str) -> Artifact:
    """The same version, rewritten as one that is aligned: of the given space."""
    files = {}
    for name, info in artifact.manifest.files.items():
        table = pq.read_table(artifact.path / name, partitioning=None)
        number = table.column_names.index("space")
        # The offline history has a link to the old file.
        (artifact.path / name).unlink()
        pq.write_table(table.set_column(number, "space", pa.repeat(space, table.num_rows)), artifact.path / name)
        sha256 = hashlib.sha256((artifact.path / name).read_bytes()).hexdigest()
        files[name] = info.model_copy(update={"sha256": sha256})
    changes = {"space_id": space, "files": files, "checksum": ""}
    manifest = artifact.manifest.model_copy(update=changes).signed()
    (artifact.path / "manifest.json").write_bytes(manifest.to_bytes())
    return Artifact(artifact.path, manifest)
