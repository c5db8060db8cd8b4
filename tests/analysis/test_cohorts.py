"""Cohorts of vectors whose distances are known, the permutation test against itself, and what the command says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Command
from tests.support.shop import Shop

from feast_embeddings.analysis.cohorts import Cohorts, compare_cohorts, labels_by
from feast_embeddings.analysis.members import Members
from feast_embeddings.errors import InputError


def members_of(unit: npt.NDArray[Any], **columns: Any) -> Members:
    ids = pa.array([f"u{row:04}" for row in range(len(unit))])
    table = pa.table({"user_id": ids, **columns})
    lengths = np.ones(len(unit), np.float32)
    return Members("user", "user_id", ids, lengths, unit.astype(np.float32), table, "v", "2026-05-01T12:00:00Z")


def directions(n: int, seed: int = 0) -> npt.NDArray[np.float64]:
    vectors = np.random.default_rng(seed).standard_normal((n, 6))
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def test_distances_by_the_slow_way() -> None:
    """Means of each cohort, of all others, and between cohorts, by loops; the largest cohort comes first."""
    unit = directions(90)
    names: list[str | None] = [*["a"] * 20, *["b"] * 39, *["c"] * 29, "alone", None]
    found = compare_cohorts(members_of(unit), pa.array(names), "country")
    assert [(each.name, each.size) for each in found.cohorts] == [("b", 39), ("c", 29), ("a", 20)]
    assert found.without == 2
    unit = unit.astype(np.float32).astype(np.float64)
    of = {name: unit[[n == name for n in names]] for name in "abc"}
    for i, each in enumerate(found.cohorts):
        others = np.concatenate([rows for name, rows in of.items() if name != each.name])
        assert each.distance == pytest.approx(np.linalg.norm(of[each.name].mean(axis=0) - others.mean(axis=0)))
        assert each.share == pytest.approx(each.size / 88)
        for j, other in enumerate(found.cohorts):
            distance = np.linalg.norm(of[each.name].mean(axis=0) - of[other.name].mean(axis=0))
            assert found.distances[i, j] == pytest.approx(distance)
        far = [(found.distances[i, j], other.name) for j, other in enumerate(found.cohorts) if j != i]
        assert each.nearest == min(far)[1]
        assert each.moved is None


def test_chance_says_what_is_apart() -> None:
    """A planted cohort is farther off than any random one; p of cohorts drawn at random is rarely small."""
    unit = directions(200)
    unit[:20] = directions(20, seed=5) * 0.3 + np.array([1, 0, 0, 0, 0, 0])
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    planted = compare_cohorts(members_of(unit), pa.array(["x"] * 20 + ["y"] * 180), "by")
    for each in planted.cohorts:
        assert each.p == 1 / 1000
        assert each.distance > each.chance
    small = sum(
        each.p <= 0.05
        for seed in range(20)
        for each in compare_cohorts(
            members_of(directions(60, seed)), pa.array(["a"] * 20 + ["b"] * 20 + ["c"] * 20), "by"
        ).cohorts
    )
    assert small <= 10  # of 60: 3 at the mean


def test_traits_are_of_other_columns() -> None:
    """The column that defines the cohorts is not what sets them apart."""
    members = members_of(directions(40), country=["se"] * 20 + ["no"] * 20, plan=["pro"] * 20 + ["free"] * 20)
    found = compare_cohorts(members, labels_by(members, "country"), "country")
    assert [[str(trait) for trait in each.traits] for each in found.cohorts] == [["plan free"], ["plan pro"]]


def test_moves_since_an_earlier_version() -> None:
    """All of a cohort turned the same way: its mean moved as far as they did. Ids that are new do not count."""
    unit = np.tile(np.array([[1.0, 0, 0, 0, 0, 0]]), (30, 1))
    unit[10:] = directions(20)
    members = members_of(unit)
    before = unit.astype(np.float32).copy()
    before[:10] = [0, 1, 0, 0, 0, 0]
    earlier = dict(zip(members.ids.to_pylist()[:25], before[:25], strict=True))
    labels = pa.array(["turned"] * 10 + ["still"] * 15 + ["new"] * 5)
    found = {each.name: each for each in compare_cohorts(members, labels, "by", earlier=earlier).cohorts}
    assert found["turned"].moved == pytest.approx(2**0.5)
    assert found["turned"].members_moved == pytest.approx(2**0.5)
    assert (found["still"].moved, found["still"].members_moved) == (0, 0)
    assert (found["new"].moved, found["new"].members_moved) == (None, None)


def test_labels_by_columns() -> None:
    """Text, whole numbers and truth values as they are, times by month, and nulls as none."""
    members = members_of(
        directions(3),
        flag=[True, None, False],
        year=[2001, 2002, None],
        since=pa.array([0, 40 * 86_400_000_000, None], pa.timestamp("us", "UTC")),
        price=[1.5, 2.5, 3.5],
        tags=[["new"], [], None],
    )
    assert labels_by(members, "flag").to_pylist() == ["true", None, "false"]
    assert labels_by(members, "year").to_pylist() == ["2001", "2002", None]
    assert labels_by(members, "since").to_pylist() == ["1970-01", "1970-02", None]
    with pytest.raises(InputError, match="'price': numbers with a fraction are no cohorts"):
        labels_by(members, "price")
    with pytest.raises(InputError, match="'tags': lists are no cohorts"):
        labels_by(members, "tags")
    with pytest.raises(InputError, match="'land': users have the attributes flag, year, since, price, tags"):
        labels_by(members, "land")
    with pytest.raises(InputError, match="'land': users have no attributes"):
        labels_by(members_of(directions(3)), "land")


@pytest.mark.parametrize("names", [["a", "a", "a"], ["a", "b", "c"], [f"c{i // 2}" for i in range(102)]])
def test_too_few_or_too_many(names: list[str]) -> None:
    with pytest.raises(InputError, match=r"expected 2 to 50"):
        compare_cohorts(members_of(directions(len(names))), pa.array(names), "by")


def test_equal_seeds_give_equal_answers() -> None:
    members, labels = members_of(directions(60)), pa.array(["a", "b", "c"] * 20)

    def found(seed: int) -> Cohorts:
        return compare_cohorts(members, labels, "by", seed=seed)

    assert found(1).cohorts == found(1).cohorts
    assert [each.chance for each in found(1).cohorts] != [each.chance for each in found(2).cohorts]


def test_the_command(command: Command, common_shop: Shop, tmp_path: Path) -> None:
    """By an attribute and by a file, as a table, as JSON and as a picture."""
    where = ("--entity", "item", "--repo", common_shop.repo.path)
    picture, exported = tmp_path / "cohorts.png", tmp_path / "items.parquet"
    ran = command("cohorts", "--by", "category", "--output", picture, *where)
    assert (ran.code, "by chance" in ran.out) == (0, True)
    assert picture.read_bytes().startswith(b"\x89PNG")
    found = json.loads(command("cohorts", "--by", "category", "--since", "live", "--json", *where).out)
    assert {each["moved"] for each in found["cohorts"]} == {0.0}
    lines = command("cohorts", "--by", "category", "--columns", "p,category", *where).out.splitlines()
    assert lines[0].split() == ["p", "category"]
    assert {float(line.split()[0]) for line in lines[1:]} <= {round(each["p"], 3) for each in found["cohorts"]}
    assert command("export", "--output", exported, *where).code == 0
    table = pq.read_table(exported)
    given = tmp_path / "given.parquet"
    pq.write_table(pa.table({"item_id": table["item_id"], "cohort": table["category"]}), given)
    again = json.loads(command("cohorts", "--by", given, "--json", *where).out)
    assert [each["name"] for each in again["cohorts"]] == [each["name"] for each in found["cohorts"]]
    assert again["distances"] == found["distances"]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"item_id": ["i1"], "group": ["a"]}, "expected the columns item_id and cohort"),
        ({"item_id": ["zz"], "cohort": ["a"]}, "none of its ids is a known item"),
        ({"item_id": ["i1", "i1"], "cohort": ["a", "b"]}, "an id occurs twice"),
    ],
)
def test_bad_files(
    command: Command, common_shop: Shop, tmp_path: Path, table: dict[str, list[str]], message: str
) -> None:
    """One line says what was expected and what came."""
    pq.write_table(pa.table(table), tmp_path / "cohorts.parquet")
    ran = command("cohorts", "--entity", "item", "--by", tmp_path / "cohorts.parquet", "--repo", common_shop.repo.path)
    assert (ran.code, message in ran.err) == (2, True)
