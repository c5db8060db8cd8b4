"""The map of a version that `map --save` wrote: the place of each user or item in the plane, in the version's folder.

It is no part of the version: the manifest does not name it, and without it the version is whole.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Set
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

__all__ = ["Colouring", "Label", "SavedMap", "forget_in_map", "map_path", "read_map", "write_map"]

Label = tuple[float, float, str]


@dataclass(frozen=True)
class Colouring:
    """A way to colour n points.

    Attributes:
        name: what the colours say, such as an attribute.
        groups: names of the groups of one colour, at most 256.
        numbers: the group of each point, a place in `groups`, uint8, shape (n,).
        of_segments: whether the groups are segments, which are named by values that some of them have.
    """

    name: str
    groups: list[str]
    numbers: npt.NDArray[np.uint8]
    of_segments: bool = False

    def only(self, kept: npt.NDArray[np.bool_]) -> Colouring:
        """Return that of some points, shape (n,), and with the groups that they have."""
        used, numbers = np.unique(self.numbers[kept], return_inverse=True)
        groups = [self.groups[number] for number in used.tolist()]
        return replace(self, groups=groups, numbers=numbers.astype(np.uint8))

    def unnamed(self) -> Colouring:
        """Return it without the names of segments."""
        groups = [f"segment {place + 1}" for place in range(len(self.groups))]
        return replace(self, groups=groups) if self.of_segments else self


@dataclass(frozen=True)
class SavedMap:
    """A map of n users or items.

    Attributes:
        ids: text or whole numbers, n of them.
        places: float64, shape (n, 2).
        titles: what to say of each, n of them.
        colourings: one at least; the first is shown first.
        labels: the place and the name of each segment.
    """

    ids: pa.Array
    places: npt.NDArray[np.float64]
    titles: list[str]
    colourings: list[Colouring]
    labels: list[Label]

    def rows_of(self, ids: Set[str | int]) -> list[int]:
        """Return the places in `ids` of the ids that are among these."""
        return [row for row, id in enumerate(self.ids.to_pylist()) if id in ids] if ids else []

    def only(self, kept: npt.NDArray[np.bool_]) -> SavedMap:
        """Return the map of some of them, shape (n,). Names of segments go: they may be of those who are left out."""
        if kept.all():
            return self
        return SavedMap(
            ids=self.ids.filter(pa.array(kept)),
            places=self.places[kept],
            titles=[title for title, stays in zip(self.titles, kept.tolist(), strict=True) if stays],
            colourings=[each.only(kept) for each in self.colourings],
            labels=self.labels,
        ).unnamed()

    def unnamed(self) -> SavedMap:
        """Return it without the names of segments."""
        return replace(self, labels=[], colourings=[each.unnamed() for each in self.colourings])


def map_path(version: Path, entity: Entity) -> Path:
    """Return the file of the map in the folder of a version."""
    return version / f"map-{entity}.parquet"


def write_map(version: Path, entity: Entity, drawn: SavedMap) -> Path:
    """Write the map into the folder of its version, in one step.

    Raises:
        OSError: it cannot be written there.
    """
    colours = [{"name": each.name, "groups": each.groups, "segments": each.of_segments} for each in drawn.colourings]
    about = {"colors": json.dumps(colours), "labels": json.dumps(drawn.labels)}
    columns = {
        f"{entity}_id": drawn.ids,
        "x": drawn.places[:, 0],
        "y": drawn.places[:, 1],
        "title": pa.array(drawn.titles, pa.string()),
        **{_column(place): each.numbers for place, each in enumerate(drawn.colourings)},
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
            colourings=_colourings(table, about),
            labels=[(float(x), float(y), str(name)) for x, y, name in json.loads(about[b"labels"])],
        )
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowInvalid, KeyError, ValueError, TypeError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); write it again with map --save") from None


def _column(place: int) -> str:
    return "group" if place == 0 else f"group_{place}"


def _colourings(table: pa.Table, about: Mapping[bytes, bytes]) -> list[Colouring]:
    if b"colors" not in about:  # of before there were several
        return [Colouring("group", json.loads(about[b"groups"]), table["group"].to_numpy())]
    return [
        Colouring(each["name"], each["groups"], table[_column(place)].to_numpy(), each["segments"])
        for place, each in enumerate(json.loads(about[b"colors"]))
    ]


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
    elif items and entity == "user" and (drawn.labels or any(each.of_segments for each in drawn.colourings)):
        write_map(version, entity, drawn.unnamed())
