"""The map of a version that `map --save` wrote: the place of each user or item in the plane, in the version's folder.

It is no part of the version: the manifest does not name it, and without it the version is whole.
"""

from __future__ import annotations

import json
from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feast_embeddings.artifact.table import Entity
from feast_embeddings.errors import ArtifactError
from feast_embeddings.files import written_whole

__all__ = ["Label", "SavedMap", "forget_in_map", "map_path", "read_map", "write_map"]

Label = tuple[float, float, str]


@dataclass(frozen=True)
class SavedMap:
    """A map of n users or items.

    Attributes:
        ids: text or whole numbers, n of them.
        places: float64, shape (n, 2).
        titles: what to say of each, n of them.
        groups: names of the colour groups, at most 256.
        numbers: the group of each, a place in `groups`, uint8, shape (n,).
        labels: the place and the name of each segment.
    """

    ids: pa.Array
    places: npt.NDArray[np.float64]
    titles: list[str]
    groups: list[str]
    numbers: npt.NDArray[np.uint8]
    labels: list[Label]

    def rows_of(self, ids: Set[str | int]) -> list[int]:
        """Return the places in `ids` of the ids that are among these."""
        return [row for row, id in enumerate(self.ids.to_pylist()) if id in ids] if ids else []

    def only(self, kept: npt.NDArray[np.bool_]) -> SavedMap:
        """Return the map of some of them, shape (n,). Names of segments go: they may be of those who are left out."""
        if kept.all():
            return self
        used, numbers = np.unique(self.numbers[kept], return_inverse=True)
        return SavedMap(
            ids=self.ids.filter(pa.array(kept)),
            places=self.places[kept],
            titles=[title for title, stays in zip(self.titles, kept.tolist(), strict=True) if stays],
            groups=[self.groups[number] for number in used.tolist()],
            numbers=numbers.astype(np.uint8),
            labels=[],
        )


def map_path(version: Path, entity: Entity) -> Path:
    """Return the file of the map in the folder of a version."""
    return version / f"map-{entity}.parquet"


def write_map(version: Path, entity: Entity, drawn: SavedMap) -> Path:
    """Write the map into the folder of its version, in one step.

    Raises:
        OSError: it cannot be written there.
    """
    about = {"groups": json.dumps(drawn.groups), "labels": json.dumps(drawn.labels)}
    columns = {
        f"{entity}_id": drawn.ids,
        "x": drawn.places[:, 0],
        "y": drawn.places[:, 1],
        "title": pa.array(drawn.titles, pa.string()),
        "group": drawn.numbers,
    }
    path = map_path(version, entity)
    with written_whole(path) as file:
        pq.write_table(pa.table(columns).replace_schema_metadata(about), file)
    return path


def read_map(version: Path, entity: Entity) -> SavedMap | None:
    """Read the map from the folder of its version; None if none was saved.

    Raises:
        ArtifactError: the file is damaged.
    """
    path = map_path(version, entity)
    try:
        table = pq.read_table(path, partitioning=None)
        about = table.schema.metadata or {}
        return SavedMap(
            ids=table[f"{entity}_id"].combine_chunks(),
            places=np.stack([table[name].to_numpy() for name in ("x", "y")], axis=1),
            titles=table["title"].to_pylist(),
            groups=json.loads(about[b"groups"]),
            numbers=table["group"].to_numpy(),
            labels=[(float(x), float(y), str(name)) for x, y, name in json.loads(about[b"labels"])],
        )
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowInvalid, KeyError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); write it again with map --save") from None


def forget_in_map(version: Path, entity: Entity, ids: pa.Array | None, *, items: bool) -> None:
    """Remove users or items from the map of a version; one that is damaged is deleted, as no one knows whom it holds.

    Args:
        ids: those to remove, of the entity of the map; None for none.
        items: whether items are forgotten, whose names the segments of users may have.
    """
    path = map_path(version, entity)
    for left in version.glob(f".{path.name}.*"):  # of a killed writer: who forgets has the lock of those who save
        left.unlink()
    try:
        drawn = read_map(version, entity)
    except ArtifactError:
        path.unlink()
        return
    if drawn is None:
        return
    gone = pc.is_in(drawn.ids, value_set=pa.array([], drawn.ids.type) if ids is None else ids.cast(drawn.ids.type))
    kept = pc.invert(gone).to_numpy(zero_copy_only=False)
    if not kept.all():
        write_map(version, entity, drawn.only(kept))
    elif items and entity == "user" and drawn.labels:
        write_map(version, entity, replace(drawn, labels=[]))
