"""Check before anything is written that there is room, and that every row can be stored."""

from __future__ import annotations

import os
from pathlib import Path

from feast import FeatureStore

from feast_embeddings.codec.columns import encode_batches
from feast_embeddings.engines.room import room_for
from feast_embeddings.errors import EngineError
from feast_embeddings.model.sides import qdrant_store
from feast_embeddings.online.open_engine import embedded_folder
from feast_embeddings.publish.target import Target

__all__ = ["check_room", "check_rows"]


def check_room(feature_store: FeatureStore, targets: list[Target]) -> None:
    """Check for free space: a full disk kills the embedded engine, which maps its files into memory.

    Raises:
        EngineError: the embedded engine's folder cannot be written, or has too little room.
    """
    config = feature_store.config
    engine = qdrant_store(feature_store).engine(config)
    free = engine.free_bytes()
    if free is None:
        return
    _check_writable(embedded_folder(config.online_store, Path(config.repo_path or ".")))
    needed = sum(room_for(target.spec, target.rows.num_rows) for target in targets if not target.is_loaded(engine))
    if free < needed:
        raise EngineError(
            f"no space left for this version: it may take {needed / 2**20:.0f} MiB in the embedded store's "
            f"folder, which has {free / 2**20:.0f} MiB; make room (feast-embeddings prune) or move it. "
            "The live version stays"
        )


def _check_writable(folder: Path) -> None:
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        is_read_only = os.statvfs(folder).f_flag & os.ST_RDONLY
        reason = "Read-only file system" if is_read_only else "Permission denied"
        raise EngineError(f"{folder} cannot be written: {reason}. The live version stays")


def check_rows(targets: list[Target]) -> None:
    """Encode every row to load into points, as loading does, and keep none.

    Raises:
        EmbeddingsError: loading would fail.
    """
    for target in targets:
        for _ in encode_batches(target.side.codec, map(target.side.renamed, target.rows.batches())):
            pass
