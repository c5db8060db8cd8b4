"""The ways to colour a map: by attributes, by segment, by the age of the data, and by change since a version."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feast_embeddings.analysis.group_names import OTHER, group_names, range_names
from feast_embeddings.analysis.members import Members, attribute_names
from feast_embeddings.analysis.segments import Segments
from feast_embeddings.artifact import Artifact, embedding_matrix
from feast_embeddings.artifact.saved_map import Colouring
from feast_embeddings.errors import InputError

__all__ = ["AGE", "CHANGE", "SEGMENT", "chosen_colourings", "given_colourings", "wanted_names"]

SEGMENT, AGE, CHANGE = "segment", "age", "change"
_MOST_ATTRIBUTES = 8
# From this many days on; the first is of rows written after the training.
_AGES = {
    -np.inf: "after the training",
    0: "less than a day",
    1: "1 to 7 days",
    7: "7 to 30 days",
    30: "30 to 90 days",
    90: "90 days to a year",
    365: "a year or more",
}
_DAY = 86_400_000_000  # microseconds


def wanted_names(text: str, members: Members) -> list[str]:
    """Return the names in a list with commas: attributes, the id, or `segment`, `age` and `change`.

    Raises:
        InputError: one is none of these.
    """
    known = [*attribute_names(members), members.id_name]
    names = [text] if text in known else list(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known and name not in (SEGMENT, AGE, CHANGE):
            raise InputError(
                f"--color: {members.entity}s have no {name!r}; they have {', '.join(known)}; "
                f"and there are {SEGMENT}, {AGE} and {CHANGE}"
            )
    return names


def given_colourings(
    members: Members, names: list[str], segments: Segments | None, earlier: Artifact | None
) -> list[Colouring]:
    """Return the colourings with these names, in their order. An attribute comes before ours of the same name.

    Args:
        names: as of `wanted_names`.
        segments: None if there are none.
        earlier: the version that `change` looks back to; None if there is none.

    Raises:
        InputError: there are no segments, or no earlier version with these users or items, and they are asked for.
    """
    found = []
    for name in names:
        colouring = _colouring(members, name, segments, earlier)
        if colouring is None:
            missing = (
                "segments: its vectors are too few or alike" if name == SEGMENT else "earlier version of its space"
            )
            raise InputError(f"--color {name}: version {members.version} has no {missing}")
        found.append(colouring)
    return found


def chosen_colourings(members: Members, segments: Segments | None, earlier: Artifact | None) -> list[Colouring]:
    """Return all colourings that tell points apart, by values that many of them share; one at least."""
    attributes = [_colouring(members, name, segments, earlier) for name in attribute_names(members)]
    told = [each for each in attributes if each and len(each.groups) > 1 and _is_shared(each)][:_MOST_ATTRIBUTES]
    names = {each.name for each in told}
    ours = [_colouring(members, name, segments, earlier) for name in (SEGMENT, AGE, CHANGE) if name not in names]
    return [*told, *(each for each in ours if each and len(each.groups) > 1)] or [
        Colouring(f"all {members.entity}s", [f"all {members.entity}s"], np.zeros(len(members), np.uint8))
    ]


def _is_shared(colouring: Colouring) -> bool:
    """Return whether points share the values, and few have a rare one: those of a title are all different."""
    sizes = np.bincount(colouring.numbers, minlength=len(colouring.groups))
    rest = sizes[colouring.groups.index(OTHER)] if OTHER in colouring.groups else 0
    return bool(np.median(sizes) > 1 and rest < len(colouring.numbers) / 2)


def _colouring(members: Members, name: str, segments: Segments | None, earlier: Artifact | None) -> Colouring | None:
    if name in members.table.column_names:
        return Colouring(name, *group_names(members.table[name].to_pylist()))
    if name == AGE:
        return Colouring("age of its data", *_ages(members))
    if name == CHANGE:
        if earlier is None or members.entity not in earlier.manifest.sides:
            return None
        moved = _moved(members, earlier)
        return Colouring(f"change since {earlier.manifest.version}", *range_names(moved.round(3), "new"))
    if segments is None:
        return None
    names = {each.number: each.name for each in segments.segments}
    numbers = np.array(list(names), np.int64)
    return Colouring(SEGMENT, list(names.values()), np.searchsorted(numbers, segments.numbers).astype(np.uint8), True)


def _ages(members: Members) -> tuple[list[str], npt.NDArray[np.uint8]]:
    as_of = pa.scalar(datetime.fromisoformat(members.as_of), pa.timestamp("us", "UTC"))
    times = members.table["event_timestamp"].cast(as_of.type).cast(pa.int64()).to_numpy()
    days = (as_of.cast(pa.int64()).as_py() - times) / _DAY
    used, numbers = np.unique(np.searchsorted(list(_AGES), days, side="right") - 1, return_inverse=True)
    return [list(_AGES.values())[place] for place in used.tolist()], numbers.astype(np.uint8)


def _moved(members: Members, earlier: Artifact) -> npt.NDArray[np.float64]:
    """Return the cosine distance of each from its vector in an earlier version, 0 to 2, nan if it was not there."""
    table = earlier.table(members.entity, [members.id_name, "embedding"])
    vectors = embedding_matrix(table)
    rows = pc.index_in(members.ids, value_set=table[members.id_name].combine_chunks().cast(members.ids.type))
    known = rows.is_valid().to_numpy(zero_copy_only=False)
    before = vectors[rows.drop_null().to_numpy()]
    lengths = np.maximum(np.linalg.norm(before, axis=1), 1e-30)
    moved = np.full(len(members), np.nan)
    moved[known] = np.clip(1 - np.einsum("ij,ij->i", members.unit[known], before) / lengths, 0, 2)
    return moved
