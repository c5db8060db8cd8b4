"""The vectors of ids that two versions share, read a batch at a time: nothing else of the versions is kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc

from feast_embeddings.artifact import Artifact, Entity
from feast_embeddings.artifact.brute_force import matrix_of
from feast_embeddings.artifact.table_files import TableFiles
from feast_embeddings.errors import InputError

__all__ = ["Kept", "Pair", "pair_of"]

_Floats = npt.NDArray[np.float32]
_Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Kept:
    """What one version has of the kept ids.

    Attributes:
        files: its table.
        rows: where in the table each id is, shape (n_kept,).
        vectors: float32, shape (n_kept, dim).
        norms: their lengths, float32, shape (n_kept,).
        bias: float32, shape (n_kept,); zeros if there is none.
        counts: interactions of each, shape (n_kept,).
    """

    files: TableFiles
    rows: _Ints
    vectors: _Floats
    norms: _Floats
    bias: _Floats
    counts: _Ints


@dataclass(frozen=True)
class Pair:
    """The users or items that two versions share, in the same order."""

    old: Kept
    new: Kept

    @property
    def n_kept(self) -> int:
        """How many ids they share."""
        return len(self.old.rows)


def pair_of(entity: Entity, old: Artifact, new: Artifact) -> Pair:
    """Read one side of two versions.

    Raises:
        InputError: their ids have different types.
        ArtifactError: a file is missing or damaged.
    """
    id_name = f"{entity}_id"
    files = old.verified(entity), new.verified(entity)
    before, after = (each.schema.field(id_name).type for each in files)
    if before != after:
        raise InputError(
            f"the {entity} ids of {old.manifest.version} are {before}, in {new.manifest.version} {after}; no id "
            "is in both"
        )
    known = files[1].read([id_name])[id_name]
    found = pc.index_in(files[0].read([id_name])[id_name], value_set=known)
    old_rows = np.flatnonzero(pc.is_valid(found).to_numpy())
    new_rows = found.drop_null().to_numpy().astype(np.int64)
    return Pair(_kept(files[0], old_rows), _kept(files[1], new_rows))


def _kept(files: TableFiles, rows: _Ints) -> Kept:
    places = np.full(files.num_rows, -1)
    places[rows] = np.arange(len(rows))
    columns = [name for name in ("embedding", "bias", "n_interactions") if name in files.schema.names]
    dim = files.schema.field("embedding").type.list_size
    vectors = np.empty((len(rows), dim), dtype=np.float32)
    bias, counts = np.zeros(len(rows), dtype=np.float32), np.empty(len(rows), dtype=np.int64)
    start = 0
    for batch in files.batches(columns):
        into = places[start : start + len(batch)]
        here = into >= 0
        vectors[into[here]] = matrix_of(batch["embedding"])[here]
        counts[into[here]] = batch["n_interactions"].to_numpy()[here]
        if "bias" in columns:
            bias[into[here]] = batch["bias"].to_numpy()[here]
        start += len(batch)
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors))
    return Kept(files, rows, vectors, norms, bias, counts)
