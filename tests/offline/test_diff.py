"""The difference of two versions, against loops over single ids."""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from tests.conftest import Command
from tests.support.shop import AS_OF, item_table, user_table, write_version

from feast_embeddings.artifact import Artifact, TrainerInfo, embedding_matrix, write_artifact
from feast_embeddings.errors import InputError
from feast_embeddings.offline.diff import diff_artifacts
from feast_embeddings.repo import init_repo

Vectors = dict[str, npt.NDArray[np.float32]]


def in_space_of(artifact: Artifact, other: Artifact) -> Artifact:
    """The same version, said to share the space of another."""
    return Artifact(artifact.path, artifact.manifest.model_copy(update={"space_id": other.manifest.space_id}))


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Artifact, Artifact]:
    """Two versions of random vectors; the second has fewer users and more items."""
    old = write_version(tmp_path, seed=0, n_users=30, n_items=25)
    return old, write_version(tmp_path, seed=1, as_of=AS_OF + timedelta(days=1), n_users=27, n_items=40)


def by_id(artifact: Artifact, entity: Any) -> Vectors:
    table = artifact.table(entity)
    return dict(zip(table[f"{entity}_id"].to_pylist(), embedding_matrix(table), strict=True))


def cosine(a: npt.NDArray[np.float32], b: npt.NDArray[np.float32]) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def nearest(vectors: Vectors, id: str, k: int) -> set[str]:
    others = [other for other in vectors if other != id]
    return set(sorted(others, key=lambda other: -cosine(vectors[id], vectors[other]))[:k])


def ranked(artifact: Artifact, user: npt.NDArray[np.float32], items: list[str]) -> list[str]:
    vectors = by_id(artifact, "item")
    table = artifact.table("item")
    bias = dict(zip(table["item_id"].to_pylist(), table["bias"].to_pylist(), strict=True))
    return sorted(items, key=lambda id: -(float(user @ vectors[id]) + bias[id]))


@pytest.mark.parametrize("k", [1, 4, 100])
def test_every_number_is_what_loops_say(pair: tuple[Artifact, Artifact], k: int) -> None:
    """Counts, lengths, neighbours, lists and cosines of all ids, when the sample is all of them."""
    old, new = pair[0], in_space_of(pair[1], pair[0])
    found = diff_artifacts(old, new, k=k)
    assert found.same_space
    for entity in ("user", "item"):
        before, after, side = by_id(old, entity), by_id(new, entity), found.sides[entity]
        kept = sorted(before.keys() & after.keys())
        assert (side.n_old, side.n_new, side.n_kept) == (len(before), len(after), len(kept))
        assert (side.n_added, side.n_gone) == (len(after) - len(kept), len(before) - len(kept))
        norms = np.array([[np.linalg.norm(vectors[id]) for id in kept] for vectors in (before, after)])
        expected = [*np.median(norms, axis=1), np.median(norms[1] / norms[0])]
        assert [side.norm_old, side.norm_new, side.norm_ratio] == pytest.approx(expected, rel=1e-5)
        cosines = [cosine(before[id], after[id]) for id in kept]
        assert side.cosine == pytest.approx(np.mean(cosines), abs=1e-5)
        assert side.cosine_p10 == pytest.approx(np.quantile(cosines, 0.1), abs=1e-5)
        both = [{id: vectors[id] for id in kept} for vectors in (before, after)]
        n = min(k, len(kept) - 1)
        shares = [len(nearest(both[0], id, n) & nearest(both[1], id, n)) / n for id in kept]
        assert side.neighbour_overlap == pytest.approx(np.mean(shares))
        assert side.n_sampled == len(kept)

    items = sorted(by_id(old, "item").keys() & by_id(new, "item").keys())
    shares, correlations = [], []
    for id, vector in by_id(new, "user").items():
        lists = ranked(old, by_id(old, "user")[id], items), ranked(new, vector, items)
        n = min(k, len(items))
        shares.append(len(set(lists[0][:n]) & set(lists[1][:n])) / n)
        positions = np.array([[one.index(item) for item in items] for one in lists])
        correlations.append(np.corrcoef(positions)[0, 1])
    assert found.top_overlap == pytest.approx(np.mean(shares))
    assert found.rank_correlation == pytest.approx(np.mean(correlations))
    assert found.n_ranked_users == 27


def test_the_same_version_twice(pair: tuple[Artifact, Artifact]) -> None:
    """Nothing has moved."""
    found = diff_artifacts(pair[0], pair[0])
    assert (found.top_overlap, found.rank_correlation) == (1, 1)
    for side in found.sides.values():
        assert (side.n_added, side.n_gone, side.neighbour_overlap, side.norm_ratio) == (0, 0, 1, 1)
        assert side.cosine == pytest.approx(1)
    assert all(moved.neighbour_overlap == 1 for moved in found.worst_moved)


def test_the_items_that_moved_most(pair: tuple[Artifact, Artifact]) -> None:
    """By cosine in one space, by neighbours where there is none; with the attributes and counts of each."""
    old, other = pair
    aligned = diff_artifacts(old, in_space_of(other, old), worst=5).worst_moved
    before, after = by_id(old, "item"), by_id(other, "item")
    order = sorted(before, key=lambda id: cosine(before[id], after[id]))
    assert [moved.id for moved in aligned] == order[:5]
    first = aligned[0]
    assert first.cosine == pytest.approx(cosine(before[order[0]], after[order[0]]), abs=1e-5)
    number = int(order[0].removeprefix("sku-"))
    assert (first.n_interactions_old, first.n_interactions_new) == (number + 1, number + 1)
    assert first.attributes["title"] == f"Item {number}"
    assert set(first.attributes) == {"title", "category", "price", "tags"}

    apart = diff_artifacts(old, other, worst=25)
    assert not apart.same_space
    assert (apart.sides["item"].cosine, apart.sides["item"].cosine_p10) == (None, None)
    keys = [(moved.neighbour_overlap, -moved.n_interactions_new) for moved in apart.worst_moved]
    assert keys == sorted(keys)
    assert {moved.id for moved in apart.worst_moved} == set(before)


def test_a_sample_is_a_part_and_repeats(pair: tuple[Artifact, Artifact]) -> None:
    """With fewer looked at, the counts say so; equal seeds give equal answers."""
    first = diff_artifacts(*pair, sample=7, seed=3)
    assert first == diff_artifacts(*pair, sample=7, seed=3)
    assert first.sides["item"].n_sampled == first.n_ranked_users == len(first.worst_moved) == 7
    others = {diff_artifacts(*pair, sample=7, seed=seed).sides["item"].neighbour_overlap for seed in range(5)}
    assert len(others) > 1


def test_blocks_give_what_one_block_gives(pair: tuple[Artifact, Artifact], monkeypatch: pytest.MonkeyPatch) -> None:
    """How many rows are scored at a time makes no difference."""
    whole = diff_artifacts(*pair)
    monkeypatch.setattr("feast_embeddings.offline.moves._BLOCK", 80)
    assert diff_artifacts(*pair) == whole


def test_neighbours_among_many(tmp_path: Path) -> None:
    """With so many items that the nearest are looked for in groups, they are those of a full sort."""
    old, new = (write_version(tmp_path, seed=seed, n_items=333, dim=3) for seed in (0, 1))
    nearest = []
    for artifact in (old, new):
        vectors = embedding_matrix(artifact.table("item"))
        unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
        scores = unit @ unit.T
        np.fill_diagonal(scores, -np.inf)
        nearest.append(np.argsort(-scores, axis=1)[:, :2])
    shares = [len(set(a) & set(b)) / 2 for a, b in zip(*nearest, strict=True)]
    assert diff_artifacts(old, new, k=2).sides["item"].neighbour_overlap == pytest.approx(np.mean(shares))


def test_nothing_in_common(tmp_path: Path) -> None:
    """Versions without a shared id have counts, and nothing to compare."""
    old = write_version(tmp_path, n_users=2, n_items=2)
    rng = np.random.default_rng(0)
    others = [pa.array([f"{prefix}{i}" for i in range(3)]) for prefix in ("x", "y")]
    new = write_artifact(
        tmp_path,
        "shop",
        users=user_table(rng, others[0]),
        items=item_table(rng, others[1]),
        as_of=AS_OF,
        trainer=TrainerInfo(name="random", config={}),
        seed=0,
        metrics={},
        fingerprint="",
        n_interactions=1,
    )
    found = diff_artifacts(old, new)
    assert (found.top_overlap, found.rank_correlation, found.worst_moved) == (None, None, [])
    for side in found.sides.values():
        assert (side.n_kept, side.norm_ratio, side.neighbour_overlap, side.n_gone, side.n_added) == (
            0,
            None,
            None,
            2,
            3,
        )


def test_vectors_of_length_zero_and_of_other_dimensions(tmp_path: Path) -> None:
    """A user without taste has no direction; versions of different factors still have neighbours to compare."""
    rng = np.random.default_rng(0)
    ids = pa.array(["a", "b", "c", "d"])
    made = []
    for dim in (4, 6):
        users = user_table(rng, ids, dim=dim)
        users.embedding[0] = 0
        options: dict[str, Any] = {"trainer": TrainerInfo(name="random", config={}), "seed": 0, "metrics": {}}
        made.append(
            write_artifact(
                tmp_path, "shop", users=users, items=item_table(rng, ids, dim=dim), as_of=AS_OF, fingerprint="",
                n_interactions=1, **options,
            )
        )  # fmt: skip
    found = diff_artifacts(*made)
    assert found.sides["user"].neighbour_overlap == 1  # all three others
    assert found.sides["user"].norm_ratio is not None
    assert np.isfinite(found.sides["user"].norm_ratio)


def test_versions_of_different_models_and_bad_arguments(tmp_path: Path) -> None:
    """They are refused."""
    one, two = write_version(tmp_path), write_version(tmp_path, model="cars")
    with pytest.raises(InputError, match=r"of model 'shop', .* of 'cars'"):
        diff_artifacts(one, two)
    with pytest.raises(InputError, match="at least 1"):
        diff_artifacts(one, one, k=0)


def test_the_command(tmp_path: Path, command: Command) -> None:
    """Text for people, the whole answer as JSON, and an error for a version that is not there."""
    repo = init_repo(tmp_path / "repo")
    old = write_version(repo.data, n_users=30).manifest.version
    new = write_version(repo.data, seed=1, as_of=AS_OF + timedelta(days=1)).manifest.version
    place = ("--repo", tmp_path / "repo")
    answer = json.loads(command("diff", old, new, *place, "--json").out)
    assert (answer["old"], answer["new"], answer["same_space"]) == (old, new, False)
    assert answer["sides"]["user"]["n_gone"] == 10
    assert len(answer["worst_moved"]) == 10
    text = command("diff", old, new, *place, "--worst", 3).out.splitlines()
    assert text[0] == f"shop {old} -> {new}"
    assert "the spaces differ" in text[1]
    assert "30 -> 20 (20 kept, 0 added, 10 gone)" in text[2]
    assert len(text) == 6 + 4
    assert "one space" in command("diff", old, old, *place).out
    missing = command("diff", old, "nothing", *place)
    assert (missing.code, missing.out) == (2, "")
    assert "no version 'nothing'" in missing.err
