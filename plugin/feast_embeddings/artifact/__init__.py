"""The artifact: the output of one training run on disk, and the contract between trainers and serving.

::

    <data>/<model>/<version>/
      manifest.json    what was trained, on which data, how well, and the checksums of the tables
      users.parquet    user_id, embedding, n_interactions, seen_items, …, version, space
      items.parquet    item_id, embedding, bias, n_interactions, …, version, space, + attributes
      content.parquet  how vectors are made of content, if they are; only the trainers read it
      network.parquet  what makes users of their histories, for trainers that have a network

An artifact is written to a temporary sibling and renamed, so it exists completely or not at all. Afterwards only
`forgetting` changes it. Versions of one model are siblings; together they are the offline history. A table of more
than a million rows has several files, ``users-00000.parquet`` and so on, so that it is written and read a part at a
time.

A process that writes, changes or deletes one holds the model's lock, so that each version is newer than all before, and
leftovers of killed processes can be distinguished from versions in progress.
"""

from __future__ import annotations

from feast_embeddings.artifact.attributes import RESERVED_COLUMNS, normalise_attributes
from feast_embeddings.artifact.manifest import FORMAT_VERSION, Alignment, Manifest, TrainerInfo
from feast_embeddings.artifact.model_folder import trained_models, validate_model_name, version_folders
from feast_embeddings.artifact.network import Network
from feast_embeddings.artifact.new_version import ContentFile, check_schemas, write_artifact
from feast_embeddings.artifact.table import (
    ENTITIES,
    EmbeddingTable,
    Entity,
    FoldedIn,
    check_table,
    embedding_matrix,
    to_arrow,
)
from feast_embeddings.artifact.versions import (
    LATEST,
    PREVIOUS,
    Artifact,
    delete_artifacts,
    list_artifacts,
    load_artifact,
)

__all__ = [
    "ENTITIES",
    "FORMAT_VERSION",
    "LATEST",
    "PREVIOUS",
    "RESERVED_COLUMNS",
    "Alignment",
    "Artifact",
    "ContentFile",
    "EmbeddingTable",
    "Entity",
    "FoldedIn",
    "Manifest",
    "Network",
    "TrainerInfo",
    "check_schemas",
    "check_table",
    "delete_artifacts",
    "embedding_matrix",
    "list_artifacts",
    "load_artifact",
    "normalise_attributes",
    "to_arrow",
    "trained_models",
    "validate_model_name",
    "version_folders",
    "write_artifact",
]
