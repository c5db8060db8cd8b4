"""Back up everything that commands wrote for a repo, and restore it, on the same engine or the other.

::

    manifest.json                                the contents, with a checksum of each file and of itself
    registry.pb                                  Feast's registry
    collections/<n>.parquet                      the points of one collection: ids, payloads, vectors
    models/<model>/versions/<version>/<file>     the files of a version
    models/<model>/events.sqlite                 interactions and attributes that came after the training
    models/<model>/hidden.json                   who is hidden
    models/<model>/attributes.json               attributes that were added without a training

What people write is not in it: feature_store.yaml, which may hold passwords, embeddings.toml and definitions.
"""

from __future__ import annotations

from feast_embeddings.backup.restore import Restored, restore
from feast_embeddings.backup.write import BackedUp, back_up

__all__ = ["BackedUp", "Restored", "back_up", "restore"]
