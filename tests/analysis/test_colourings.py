"""The ways to colour a map, against what numpy and a dictionary say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.support.shop import AS_OF, alignment_to, write_version

from feast_embeddings.analysis.maps.colourings import chosen_colourings, given_colourings, wanted_names
from feast_embeddings.analysis.maps.saving import earlier_versions
from feast_embeddings.analysis.members import Members
from feast_embeddings.analysis.segments import segment
from feast_embeddings.artifact import Artifact, embedding_matrix
from feast_embeddings.artifact.saved_map import Colouring
from feast_embeddings.errors import InputError


def members_of(artifact: Artifact, **columns: object) -> Members:
    """The items of a version, as the online store would have them."""
    table = artifact.table("item").combine_chunks()
    vectors = embedding_matrix(table)
    norms = np.linalg.norm(vectors, axis=1)
    for name, values in columns.items():
        column = pa.array(values)
        at = table.column_names.index(name) if name in table.column_names else table.num_columns
        table = table.set_column(at, name, column) if at < table.num_columns else table.append_column(name, column)
    return Members(
        "item",
        "item_id",
        table["item_id"].combine_chunks(),
        norms,
        (vectors / norms[:, None]).astype(np.float32),
        table.drop_columns(["embedding"]),
        artifact.manifest.version,
        artifact.manifest.as_of.isoformat(),
    )


def told(colouring: Colouring) -> list[str]:
    return [colouring.groups[number] for number in colouring.numbers.tolist()]


@pytest.fixture
def versions(tmp_path: Path) -> list[Artifact]:
    """One, another in the same space with items that are new, and one of another space."""
    first = write_version(tmp_path, n_items=30)
    second = write_version(tmp_path, seed=1, as_of=AS_OF + timedelta(days=1), alignment=alignment_to(first))
    third = write_version(tmp_path, seed=2, as_of=AS_OF + timedelta(days=2))
    return [first, second, third]


def test_earlier_versions_are_of_the_same_space(versions: list[Artifact], tmp_path: Path) -> None:
    """The newest first; none before one that is not there."""
    first, second, third = (each.manifest.version for each in versions)
    fourth = write_version(tmp_path, seed=3, as_of=AS_OF + timedelta(days=3), alignment=alignment_to(versions[1]))
    found = {
        name: [each.manifest.version for each in earlier_versions(tmp_path, "shop", name)]
        for name in (first, second, third, fourth.manifest.version, "29990101T000000000Z")
    }
    expected = {
        first: [],
        second: [first],
        third: [],
        fourth.manifest.version: [second, first],
        "29990101T000000000Z": [],
    }
    assert found == expected


def test_change_is_the_cosine_distance(versions: list[Artifact]) -> None:
    """To the vector of the same id; ids that were not there are new."""
    first, second, _ = versions
    (colouring,) = given_colourings(members_of(second), ["change"], None, first)
    assert colouring.name == f"change since {first.manifest.version}"
    old, new = (
        dict(zip(each.table("item")["item_id"].to_pylist(), embedding_matrix(each.table("item")), strict=True))
        for each in (first, second)
    )
    for id, group in zip(new, told(colouring), strict=True):
        if id not in old:
            assert group == "new"
            continue
        distance = 1 - old[id] @ new[id] / np.linalg.norm(old[id]) / np.linalg.norm(new[id])
        low, high = map(float, group.split(" to "))
        assert low - 0.0006 <= distance <= high + 0.0006
    assert told(colouring).count("new") == 10


def test_age_is_that_of_the_data(versions: list[Artifact]) -> None:
    """In days before the version's; later rows were written after the training."""
    as_of = versions[0].manifest.as_of
    days = [-1.0, 0.0, 0.5, 1.0, 6.9, 7.0, 45.0, 364.0, 365.0, *[500.0] * 21]
    times = [as_of - timedelta(days=each) for each in days]
    (colouring,) = given_colourings(members_of(versions[0], event_timestamp=times), ["age"], None, None)
    assert told(colouring) == [
        "after the training",
        "less than a day",
        "less than a day",
        "1 to 7 days",
        "1 to 7 days",
        "7 to 30 days",
        "30 to 90 days",
        "90 days to a year",
        *["a year or more"] * 22,
    ]


def test_segments_have_their_names(versions: list[Artifact]) -> None:
    members = members_of(versions[0])
    segments = segment(members, 4)
    (colouring,) = given_colourings(members, ["segment"], segments, None)
    names = {each.number: each.name for each in segments.segments}
    assert (told(colouring), colouring.of_segments) == ([names[number] for number in segments.numbers.tolist()], True)


def test_all_that_tell_points_apart(versions: list[Artifact]) -> None:
    """No titles, and nothing of which all have the same; of nothing, one colour."""
    (first, second, _), known = versions, ["category", "price", "tags"]
    assert [each.name for each in chosen_colourings(members_of(first), None, None)] == known
    more = {"all": ["one"] * 40, "sold": [datetime(2024, 1 + i % 3, 1, tzinfo=UTC) for i in range(40)]}
    members = members_of(second, **more)
    names = [each.name for each in chosen_colourings(members, segment(members, 3), first)]
    assert names == [*known, "sold", "segment", f"change since {first.manifest.version}"]
    (only,) = chosen_colourings(members_of(first, **{name: ["one"] * 30 for name in known}), None, None)
    assert (only.name, set(told(only))) == ("all items", {"all items"})


def test_names(versions: list[Artifact]) -> None:
    """Lists; an attribute with a comma in its name; and one with a name of ours, which comes first."""
    members = members_of(versions[0], **{"a,b": ["x"] * 30, "age": ["old"] * 30})
    assert wanted_names("category, segment,category", members) == ["category", "segment"]
    assert wanted_names("a,b", members) == ["a,b"]
    assert told(given_colourings(members, ["age"], None, None)[0]) == ["old"] * 30
    with pytest.raises(
        InputError, match=r"items have no 'colour'; they have title, category, .*segment, age and change"
    ):
        wanted_names("category,colour", members)
    for name, missing in [("segment", "segments"), ("change", "earlier version of its space")]:
        with pytest.raises(InputError, match=f"--color {name}: version .* has no {missing}"):
            given_colourings(members, [name], None, None)
