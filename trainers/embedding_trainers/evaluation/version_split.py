"""An existing version as the training part of a split, to see how it does on interactions that came later."""

from __future__ import annotations

import numpy as np
import pyarrow.compute as pc

from embedding_trainers.extra import import_extra
from embedding_trainers.interactions import Interactions, Split, split_against
from embedding_trainers.trainer import Factors
from feast_embeddings.artifact import Artifact, embedding_matrix
from feast_embeddings.errors import InputError

__all__ = ["version_split"]


def version_split(artifact: Artifact, test: Interactions, *, include_seen: bool = False) -> tuple[Factors, Split]:
    """The factors of a version, and the interactions that it can be asked to predict.

    The version serves the items it saw of a user as seen items, so the whole log may be given as `test`: the part
    that the version was trained on is left out, and counted; with `include_seen` it is part of the test.

    Raises:
        InputError: the version has no seen items, so that they cannot be masked; or it knows none of the users or
            none of the items of `test`.
        ArtifactError: its files are damaged.
        MissingExtraError: scipy is not installed.
    """
    users, items = artifact.table("user"), artifact.table("item")
    if "seen_items" not in users.column_names:
        raise InputError(f"{artifact.path} does not say which items users had seen, so they cannot be left out")
    item_ids = items["item_id"].combine_chunks()
    seen = users["seen_items"].combine_chunks()
    # A copy, as Arrow's memory cannot be sorted in place.
    columns = pc.index_in(seen.flatten(), value_set=item_ids).to_numpy().copy()
    train = import_extra("scipy.sparse").csr_matrix(
        (np.ones(len(columns), np.float32), columns, np.append(0, np.cumsum(seen.value_lengths()))),
        shape=(len(users), len(items)),
    )
    train.sort_indices()
    bias = items["bias"].to_numpy() if "bias" in items.column_names else np.zeros(len(items), np.float32)
    factors = Factors(embedding_matrix(users), embedding_matrix(items), bias)
    manifest = artifact.manifest
    method = f"interactions that {manifest.model} version {manifest.version} had not seen"
    if include_seen:
        method = f"interactions that {manifest.model} version {manifest.version} is to predict"
    user_ids = users["user_id"].combine_chunks()
    return factors, split_against(user_ids, item_ids, train, test, method, include_seen=include_seen)
