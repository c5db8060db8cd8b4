"""Segments of vectors whose segments are known, and what the command reads and writes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Command
from tests.support.shop import Shop, apply, write_tables

from feast_embeddings.analysis.members import Members
from feast_embeddings.analysis.segments import segment
from feast_embeddings.analysis.traits import Values, attribute_values, seen_values, traits_of
from feast_embeddings.artifact import EmbeddingTable
from feast_embeddings.cli import table
from feast_embeddings.errors import InputError
from feast_embeddings.repo import init_repo

SIZES = (60, 45, 30, 20)


def members_of(labels: npt.NDArray[np.int64], ids: list[str] | None = None) -> Members:
    """Items around one direction for each label, with the label's letter as category."""
    rng = np.random.default_rng(0)
    vectors = np.eye(8)[labels] * 5 + rng.normal(0, 0.5, (len(labels), 8))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    names = pa.array(ids or [f"i{row:03}" for row in range(len(labels))])
    table = pa.table(
        {
            "item_id": names,
            "category": [f"c{label}" for label in labels],
            "title": [f"title no {row}" for row in range(len(labels))],
            "n_interactions": labels + 7,
        }
    )
    return Members("item", "item_id", names, np.ones(len(labels), np.float32), unit, table, "v", "2026-05-01T12:00:00Z")


@pytest.fixture
def planted() -> npt.NDArray[np.int64]:
    """The segment of each, in no order."""
    return np.random.default_rng(1).permutation(np.repeat(np.arange(len(SIZES)), SIZES))


def test_planted_segments_are_found(planted: npt.NDArray[np.int64]) -> None:
    """The number, the members, sizes in order, and the names."""
    found = segment(members_of(planted))
    assert found.numbers.tolist() == (planted + 1).tolist()
    assert [(each.number, each.size, each.name, each.median_interactions) for each in found.segments] == [
        (n + 1, size, f"category c{n}", n + 7) for n, size in enumerate(SIZES)
    ]
    assert found.moved is None
    best = max(found.tried, key=lambda choice: choice.score)
    assert (best.k, best.stability) == (len(SIZES), 1.0)
    for n, each in enumerate(found.segments):
        (trait,) = each.traits
        assert trait.share == 1
        assert trait.lift == pytest.approx(sum(SIZES) / SIZES[n])


def test_earlier_numbers_stay(planted: npt.NDArray[np.int64]) -> None:
    """Whatever the earlier numbers were; a segment that is new gets a number that was never used."""
    members = members_of(planted)
    ids = members.ids.to_pylist()
    numbers = np.array([3, 1, 9, 2])
    earlier = dict(zip(ids, numbers[planted].tolist(), strict=True))
    found = segment(members, 4, previous=earlier)
    assert found.numbers.tolist() == numbers[planted].tolist()
    assert (found.moved, found.kept) == (0, len(ids))
    # Those of the second were elsewhere, one of the first too; the last are new.
    of = [np.flatnonzero(planted == label) for label in range(4)]
    changed = earlier | {ids[of[0][0]]: 1}
    for row in of[3]:
        del changed[ids[row]]
    found = segment(members, 4, previous=changed)
    assert found.numbers.tolist() == np.array([3, 1, 9, 10])[planted].tolist()
    assert (found.moved, found.kept) == (1, len(ids) - len(of[3]) - 1)


def test_too_few_vectors() -> None:
    with pytest.raises(InputError, match="4 distinct vectors are needed, got 3; name a smaller number with -k"):
        segment(members_of(np.array([0, 1, 2])), 4)
    with pytest.raises(InputError, match=r"3 distinct vectors are needed, got 1$"):
        segment(members_of(np.array([0])))


def scattered(planted: npt.NDArray[np.int64], strays: int = 60) -> Members:
    """The planted members, and then others in any direction."""
    members = members_of(np.concatenate([planted, np.zeros(strays, np.int64)]))
    directions = np.random.default_rng(3).standard_normal((strays, 8)).astype(np.float32)
    unit = members.unit.copy()
    unit[len(planted) :] = directions / np.linalg.norm(directions, axis=1, keepdims=True)
    return Members(**(members.__dict__ | {"unit": unit}))


def test_dense_segments_among_strays(planted: npt.NDArray[np.int64]) -> None:
    """HDBSCAN finds those that are planted, and leaves out most of what is in any direction; k-means cannot."""
    members = scattered(planted)
    found = segment(members, methods=("hdbscan",))
    own, strays = found.numbers[: len(planted)], found.numbers[len(planted) :]
    assert len(found.segments) == len(SIZES)
    assert (own[own > 0] == planted[own > 0] + 1).all()
    assert (own == 0).mean() < 0.1
    assert (strays == 0).mean() > 0.8
    assert found.without == (found.numbers == 0).sum() == len(members) - sum(each.size for each in found.segments)
    assert found.chosen in found.tried
    assert {choice.method for choice in found.tried} == {"hdbscan"}
    again = segment(members, methods=("hdbscan",))
    assert again.numbers.tolist() == found.numbers.tolist()
    # Those of no segment are not in the earlier result; one that was, and now is in none, has moved.
    ids = members.ids.to_pylist()
    stray = ids[len(planted) + int(np.flatnonzero(strays == 0)[0])]
    earlier = {id: int(number) + 10 for id, number in zip(ids, found.numbers.tolist(), strict=True) if number}
    later = segment(members, methods=("hdbscan",), previous=earlier | {stray: 11})
    assert later.numbers.tolist() == np.where(found.numbers > 0, found.numbers + 10, 0).tolist()
    assert (later.moved, later.kept) == (1, len(earlier))


def uneven() -> tuple[Members, npt.NDArray[np.int64]]:
    """A broad segment of 120, and three of 25 that are narrow and near each other; and the segment of each."""
    planted = np.repeat(np.arange(4), [120, 25, 25, 25])
    rng = np.random.default_rng(0)
    centres = np.eye(3, 8)[[0, 1, 1, 1]]
    centres[2, 2], centres[3, 2] = 0.5, -0.5
    vectors = centres[planted] + rng.normal(0, 0.02, (len(planted), 8))
    vectors[:120, 3:5] += rng.normal(0, 0.4, (120, 2))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    return Members(**(members_of(planted).__dict__ | {"unit": unit})), planted


def test_the_better_method_is_chosen() -> None:
    """By stability × silhouette over all that both have tried: k-means divides the broad segment, HDBSCAN does not."""
    members, expected = uneven()
    found = segment(members)
    assert {choice.method for choice in found.tried} == {"k-means", "hdbscan"}
    assert found.chosen is max(found.tried, key=lambda choice: (choice.score, -choice.k))
    for choice in found.tried:
        assert -1 <= choice.stability <= 1
        assert -1 <= choice.silhouette <= 1
    assert found.chosen is not None
    assert (found.chosen.method, found.left_out) == ("hdbscan", None)
    assert [set(found.numbers[expected == label].tolist()) for label in range(4)] == [{1}, {2}, {3}, {4}]
    by_k_means = segment(members, 4)
    assert by_k_means.tried == []
    assert len(set(by_k_means.numbers[expected == 0].tolist())) > 1
    alone = segment(members, methods=("k-means",))
    assert alone.chosen is not None
    assert (alone.chosen.method, alone.chosen.score < found.chosen.score) == ("k-means", True)


def test_what_hdbscan_refuses(planted: npt.NDArray[np.int64], monkeypatch: pytest.MonkeyPatch) -> None:
    """A number of segments, what has no dense regions, and too many: the last is said where k-means is tried too."""
    members = scattered(planted)
    with pytest.raises(InputError, match="leave -k out"):
        segment(members, 4, methods=("hdbscan",))
    one = members_of(np.zeros(50, np.int64))
    with pytest.raises(InputError, match="hdbscan found no 2 to 20 segments"):
        segment(one, methods=("hdbscan",))
    monkeypatch.setattr("feast_embeddings.analysis.clustering._MOST_DENSE", 100)
    with pytest.raises(InputError, match="215 are more than 100; choose some with --filter"):
        segment(members, methods=("hdbscan",))
    found = segment(members)
    assert found.left_out == "it compares each with each, and 215 are more than 100"
    assert {choice.method for choice in found.tried} == {"k-means"}
    assert segment(members, 4).left_out is None


def test_the_command_with_strays(
    command: Command, planted: npt.NDArray[np.int64], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A member of no segment has a null in the file, which --previous takes; HDBSCAN says why it was left out."""
    members = scattered(planted)
    repo = init_repo(tmp_path / "repo")
    items = EmbeddingTable(
        members.ids, members.unit, members.interactions, attributes=members.table.select(["category"])
    )
    artifact = write_tables(repo.data, items=items)
    Shop(repo, artifact, apply(repo)).publish()
    asked = ("segments", "--entity", "item", "--method", "hdbscan", "--repo", repo.path)
    target = tmp_path / "segments.parquet"
    ran = command(*asked, "--output", target)
    assert ran.code == 0, ran.err
    written = pq.read_table(target)
    without = written["segment"].null_count
    assert f"\n{without} items are in no segment\n" in ran.out
    assert 0 < without == written["name"].null_count
    ran = command(*asked, "--previous", target, "--json")
    report = json.loads(ran.out)
    assert (report["moved"], report["kept"], report["without"]) == (0, len(members) - without, without)
    assert command(*asked, "--output", tmp_path / "segments.png").code == 0
    assert command(*asked, "-k", 3).code == 2
    monkeypatch.setattr("feast_embeddings.analysis.clustering._MOST_DENSE", 100)
    ran = command("segments", "--entity", "item", "--repo", repo.path)
    assert f"\nhdbscan was left out: it compares each with each, and {len(members)} are more than 100\n" in ran.out


def test_lift_of_values() -> None:
    """Of 3 and 2 rows; a value of one row, and one that is as common in all, is no trait."""
    rows = np.array([0, 1, 2, 3, 4, 0, 3])
    values = Values("tag", rows, pa.array(["a", "a", "b", "b", "b", "x", "x"]))
    first, second = traits_of(np.array([0, 0, 0, 1, 1]), 2, iter([values]))
    # 4 values in the first, 2 of them a, which is 2 of 7 in all; 3 in the second, 2 of them b, 3 of 7 in all.
    assert [(t.value, t.share) for t in first] == [("a", 0.5)]
    assert first[0].lift == pytest.approx(0.5 / (2 / 7))
    assert [(t.value, t.share) for t in second] == [("b", 2 / 3)]
    assert second[0].lift == pytest.approx(14 / 9)


def test_words_of_titles() -> None:
    """By class-based TF-IDF, computed by hand for three groups; a word that is as common in all is no trait."""
    titles = ["The red shoe", "Red, red boot!", "the blue hat", "blue a hat", "old map", "the Old map", "x", None]
    ids = pa.array([f"i{row}" for row in range(len(titles))])
    table = pa.table({"item_id": ids, "title": titles})
    ones = np.ones(len(titles), np.float32)
    members = Members("item", "item_id", ids, ones, ones[:, None], table, "v", "")
    (words,) = attribute_values(members)
    assert (words.attribute, words.terms) == ("title", True)
    assert sorted(zip(words.rows.tolist(), words.values.to_pylist(), strict=True)) == sorted(
        (row, word)
        for row, text in enumerate(["the red shoe", "red boot", "the blue hat", "blue hat", "old map", "the old map"])
        for word in text.split()
    )
    # 15 words, 5 in each group: A = 5. Of each group, the words that two rows have, f = 2, are 2 of its 5.
    found = traits_of(np.array([0, 0, 1, 1, 2, 2, -1, -1]), 3, iter([words]))
    assert [[str(trait) for trait in traits] for traits in found] == [
        ["title red"],
        ["title blue", "title hat"],
        ["title map", "title old"],
    ]
    assert (found[0][0].share, found[0][0].lift) == pytest.approx((2 / 5, 3))
    # Of each other, by weight: "red" in 2 of 5 has 2/5 × log(1 + 5/2) = 0.501, so it comes after an item that 3 of 4
    # have, 3/4 × log(1 + 4/3) = 0.635, and before one of 2 of 5, 2/5 × log(1 + 4/2) = 0.439; a value comes first.
    groups = np.array([0, 0, 1, 1, 2, 2, -1, -1])
    often = Values("saw", np.array([0, 0, 1, 0, 2, 3, 4, 5, 2, 3, 4, 5]), pa.array(list("aaabcdefghij")), terms=True)
    rarely = Values("saw", np.array([0, 1, 0, 0, 0, 2, 3, 4, 5, 2, 3, 4]), pa.array(list("aabcdefghijk")), terms=True)
    value = Values("tag", np.arange(6), pa.array(["x", "x", "x", "y", "y", "y"]))
    assert list(map(str, traits_of(groups, 3, iter([words, often]))[0])) == ["saw a", "title red"]
    assert list(map(str, traits_of(groups, 3, iter([words, rarely, value]))[0])) == ["tag x", "title red", "saw a"]


def test_what_users_have_seen() -> None:
    """Items by id, and the values of known items, a list of them giving several; and the words of titles."""
    items = members_of(np.array([0, 1, 0, 1]), ["a", "b", "c", "d"])
    tags = pa.array([["x", "y"], [], None, ["x"]])
    items = Members(**(items.__dict__ | {"table": items.table.append_column("tags", tags)}))
    names = pa.array(["u", "v", "w"])
    users = Members(
        "user",
        "user_id",
        names,
        np.ones(3, np.float32),
        np.ones((3, 1), np.float32),
        pa.table({"user_id": names, "seen_items": pa.array([["a", "gone", "d"], None, ["d", "a"]])}),
        "v",
        "",
    )
    found = {
        v.attribute: list(zip(v.rows.tolist(), v.values.to_pylist(), strict=True)) for v in seen_values(users, items)
    }
    assert found == {
        "saw": [(0, "a"), (0, "gone"), (0, "d"), (2, "d"), (2, "a")],
        "saw title": [(row, word) for row in (0, 0, 2, 2) for word in ("title", "no")],
        "saw category": [(0, "c0"), (0, "c1"), (2, "c1"), (2, "c0")],
        "saw tags": [(0, "x"), (0, "y"), (0, "x"), (2, "x"), (2, "x"), (2, "y")],
    }


def test_the_command(command: Command, common_shop: Shop, tmp_path: Path) -> None:
    """Each live id is in the file once; the same run again moves no one, and gives the same bytes."""
    where = ("--repo", common_shop.repo.path)
    target, again = tmp_path / "a.parquet", tmp_path / "b.parquet"
    for entity, count in [("item", 40), ("user", 20)]:
        ran = command("segments", "--entity", entity, "-k", 3, "--output", target, "--json", *where)
        report = json.loads(ran.out)
        assert [(each["number"]) for each in report["segments"]] == [1, 2, 3]
        written = pq.read_table(target)
        sizes = np.bincount(written["segment"].to_numpy(), minlength=4)[1:]
        assert sizes.tolist() == [each["size"] for each in report["segments"]]
        assert len(set(written[f"{entity}_id"].to_pylist())) == report["rows"] == count
        assert command("segments", "--entity", entity, "-k", 3, "--output", again, *where).code == 0
        assert again.read_bytes() == target.read_bytes()
        ran = command("segments", "--entity", entity, "-k", 3, "--previous", target, *where)
        assert ran.out.endswith(f"0 of {count} {entity}s in both results moved to another segment\n")
    ran = command("segments", "--entity", "item", "-k", 3, "--output", tmp_path / "s.png", *where)
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
    ran = command("segments", "--entity", "item", "-k", 3, "--previous", target, *where)
    assert (ran.code, "expected the columns item_id and segment" in ran.err) == (2, True)
    assert command("segments", "--entity", "item", "-k", 1, *where).code == 2
    few = command("segments", "--entity", "item", "-k", "few", *where)
    assert (few.code, "expected a whole number from 2, or auto, got 'few'" in few.err) == (2, True)
    ran = command("segments", "--entity", "item", "--filter", "category = 'none'", *where)
    assert (ran.code, "no item of model 'shop' has a vector" in ran.err) == (2, True)


def test_chosen_columns(command: Command, common_shop: Shop, tmp_path: Path) -> None:
    """The table has these, in this order; what is no column is refused before anything is written."""
    asked = ("segments", "-k", 3, "--entity", "item", "--repo", common_shop.repo.path)
    whole = [line.split() for line in command(*asked).out.splitlines() if line.strip()]
    shown = command(*asked, "--columns", "size, segment").out.splitlines()
    start = next(place for place, words in enumerate(whole) if words[:2] == ["segment", "size"])
    assert [line.split() for line in shown[start : start + 4]] == [[b, a] for a, b, *_ in whole[start : start + 4]]
    target = tmp_path / "segments.csv"
    for options, problem in ((("--columns", "id"), "there is no 'id'"), (("--columns", "size", "--json"), "leave out")):
        ran = command(*asked, "--output", target, *options)
        assert (ran.code, ran.out, problem in ran.err) == (2, "", True), ran.err
        assert not target.exists()


def test_a_terminal_gets_tables_that_fit(command: Command, common_shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("segments", "-k", 3, "--entity", "item", "--repo", common_shop.repo.path)
    whole = command(*asked).out.splitlines()
    monkeypatch.setattr(table, "_terminal_width", lambda: 70)
    lines = command(*asked).out.splitlines()
    assert max(map(len, lines)) <= 70 < max(map(len, whole))
    assert len(lines) == len(whole)


def test_saved_segments_are_an_attribute(command: Command, planted: npt.NDArray[np.int64], tmp_path: Path) -> None:
    """Filters find who is in a segment, and the next version's segments have the numbers of the one before."""
    repo = init_repo(tmp_path / "repo")
    members = members_of(planted)

    def publish(seed: int) -> None:
        noise = np.random.default_rng(seed).normal(0, 0.01, members.unit.shape)
        items = EmbeddingTable(
            members.ids,
            (members.unit + noise).astype(np.float32),
            np.ones(len(members), np.int64),
            attributes=members.table.select(["category"]),
        )
        write_tables(repo.data, None, items, seed=seed)
        if seed == 0:
            apply(repo)
        assert command("publish", "--repo", repo.path, "--allow-new-space").code == 0

    def numbers() -> dict[str, int]:
        listed = json.loads(command("list", "--repo", repo.path, "--entity", "item", "-k", 1000, "--json").out)
        return {row["item_id"]: row["segment"] for row in listed["items"]}

    publish(0)
    asked = "segments", "--repo", repo.path, "--entity", "item", "--save-as", "segment"
    for name, message in (("category", "not of segments"), ("space", "in use"), ("a b", "expected letters")):
        refused = command(*asked[:-1], name)
        assert (refused.code, refused.err.count("\n")) == (2, 1)
        assert message in refused.err
    done = command(*asked, "-k", 4)
    assert (done.code, done.out.splitlines()[-1]) == (
        0,
        f"saved as the attribute 'segment' of {len(members)} items: --filter 'segment = 1'",
    )
    assert numbers() == dict(zip(members.ids.to_pylist(), (planted + 1).tolist(), strict=True))
    found = command("list", "--repo", repo.path, "--entity", "item", "--filter", "segment = 2", "-k", 1000, "--json")
    assert len(json.loads(found.out)["items"]) == SIZES[1]
    before = numbers()
    publish(1)
    assert numbers() == before
    # By another seed and number: those who stay keep the number, and a new segment has a new one.
    again = json.loads(command(*asked, "-k", 5, "--seed", 3, "--json").out)
    assert again["saved_as"] == "segment"
    after = numbers()
    assert again["moved"] == sum(after[id] != before[id] for id in before) < SIZES[0]
    assert set(after.values()) == {1, 2, 3, 4, 5}
    # A filter divides some, and leaves the others as they are.
    command(*asked, "-k", 2, "--filter", "segment IN (1, 2)")
    assert {id: n for id, n in numbers().items() if after[id] > 2} == {id: n for id, n in after.items() if n > 2}
