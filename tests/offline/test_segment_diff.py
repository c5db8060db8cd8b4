"""How far groups moved, against loops over single ids, on data in which one group moves."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Command
from tests.support.shop import AS_OF, alignment_to, item_table, user_table, write_version

from feast_embeddings.artifact import Artifact, EmbeddingTable, TrainerInfo, write_artifact
from feast_embeddings.repo import Repo, init_repo

N = 40
COUNTRIES = [["NL", "DE", "SE", None][row % 4] for row in range(N)]


def write(data: Path, users: EmbeddingTable, items: EmbeddingTable, like: Artifact | None = None) -> Artifact:
    return write_artifact(
        data, "shop", users=users, items=items, as_of=AS_OF + timedelta(days=int(like is not None)),
        trainer=TrainerInfo(name="random", config={}), seed=0, metrics={}, fingerprint="", n_interactions=1,
        alignment=None if like is None else alignment_to(like),
    )  # fmt: skip


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """Two versions in one space: of the users only those of SE moved, u-0 is gone, u-new is new."""
    made = init_repo(tmp_path_factory.mktemp("moved") / "repo")
    rng = np.random.default_rng(0)
    ids = [f"u-{row}" for row in range(N)]
    old = replace(user_table(rng, pa.array(ids)), attributes=pa.table({"country": COUNTRIES}))
    items = item_table(rng, pa.array([f"sku-{row}" for row in range(12)]))
    first = write(made.data, old, items)
    vectors = old.embedding.copy()
    moved = [country == "SE" for country in COUNTRIES]
    vectors[moved] += rng.normal(0, 1, (sum(moved), vectors.shape[1])).astype(np.float32)
    vectors[5] *= 3  # of the same direction
    new = replace(old, ids=pa.array(["u-new", *ids[1:]]), embedding=vectors)
    write(made.data, new, items, first)
    return made


def ask(command: Command, repo: Repo, *options: object) -> dict[str, Any]:
    ran = command("diff", "previous", "latest", "--repo", repo.path, *options, "--json")
    assert ran.code == 0, ran.err
    found: dict[str, Any] = json.loads(ran.out)["segments"]
    return found


def test_every_number_is_what_loops_say(repo: Repo, command: Command) -> None:
    """Only the planted group moved; its numbers are those of single vectors."""
    vectors = []
    for path in sorted(path for path in (repo.data / "shop").iterdir() if path.name.startswith("2")):
        table = pq.read_table(path / "users.parquet")
        unit = [np.array(v, np.float64) / np.linalg.norm(v) for v in table["embedding"].to_pylist()]
        vectors.append(dict(zip(table["user_id"].to_pylist(), unit, strict=True)))
    old, new = vectors
    kept = sorted(old.keys() & new.keys())
    assert len(kept) == N - 1

    def near(of: dict[str, Any], id: str) -> set[str]:
        return set(sorted((o for o in kept if o != id), key=lambda o: -float(of[o] @ of[id]))[:3])

    found = ask(command, repo, "--segment", "country", "-k", "3")
    assert (found["entity"], found["by"], found["without"]) == ("user", "country", N // 4)
    segments = found["segments"]
    assert segments[0]["name"] == "SE"
    assert {each["name"] for each in segments} == {"SE", "DE", "NL"}
    for each in segments:
        own = [id for id in kept if COUNTRIES[int(id[2:])] == each["name"]]
        moves = [1 - float(old[id] @ new[id]) for id in own]
        means = [np.mean([of[id] for id in own], axis=0) for of in (old, new)]
        overlap = np.mean([len(near(old, id) & near(new, id)) / 3 for id in own])
        assert (each["size"], each["n_sampled"]) == (len(own), len(own))
        assert each["move"] == pytest.approx(np.mean(moves), abs=1e-6)
        assert each["move_p95"] == pytest.approx(np.quantile(moves, 0.95), abs=1e-6)
        assert each["mean_move"] == pytest.approx(np.linalg.norm(means[0] - means[1]), abs=1e-6)
        assert each["neighbour_overlap"] == pytest.approx(overlap)
        assert (each["move"] > 0.1) == (each["name"] == "SE")
    few = ask(command, repo, "--segment", "country", "--sample", 2)
    assert sum(each["n_sampled"] for each in few["segments"]) <= 2


def test_whose_groups(repo: Repo, command: Command, tmp_path: Path) -> None:
    """Users first, else items; a file says by its ids; its members without a group are counted."""
    items = ask(command, repo, "--segment", "category")
    assert (items["entity"], [each["move"] for each in items["segments"]]) == (
        "item",
        [pytest.approx(0, abs=1e-6)] * 2,
    )
    file = tmp_path / "segments.parquet"
    pq.write_table(pa.table({"user_id": ["u-1", "u-2", "u-3"], "segment": [1, 2, None]}), file)
    found = ask(command, repo, "--segment", file)
    assert (found["without"], sorted(each["name"] for each in found["segments"])) == (N - 3, ["1", "2"])
    pq.write_table(pa.table({"item_id": ["sku-1"], "cohort": ["a"]}), file)
    assert ask(command, repo, "--segment", file)["entity"] == "item"
    text = command("diff", "previous", "latest", "--repo", repo.path, "--segment", "country").out
    heading, first = text[text.index("how far users moved") :].splitlines()[1:3]
    assert heading.split()[0] == "country"
    assert first.split()[:2] == ["SE", "10"]
    assert text.splitlines()[-1] == f"{N // 4} users are in no group"
    chosen = ("--segment", "country", "--columns", "size,country")
    text = command("diff", "previous", "latest", "--repo", repo.path, *chosen).out
    assert [line.split() for line in text[text.index("how far users moved") :].splitlines()[1:3]] == [
        ["size", "country"],
        ["10", "SE"],
    ]


def test_the_picture(repo: Repo, command: Command, tmp_path: Path) -> None:
    """It is written where the command says."""
    target = tmp_path / "moves.png"
    ran = command("diff", "previous", "latest", "--repo", repo.path, "--segment", "country", "--output", target)
    assert (ran.code, ran.out.splitlines()[-1]) == (0, f"wrote {target}"), ran.err
    assert target.read_bytes().startswith(b"\x89PNG")


def test_what_is_refused(repo: Repo, command: Command, tmp_path: Path) -> None:
    """An attribute that no side has, one that makes no groups, an entity alone, and versions of two spaces."""
    for options, problem in [
        (("--segment", "land"), "users have the attributes country; items have the attributes title"),
        (("--segment", "country", "--entity", "item"), "--segment 'country': items have the attributes title"),
        (("--segment", "price"), "numbers with a fraction are no cohorts"),
        (("--segment", tmp_path / "no.csv"), "no.csv"),
        (("--segment", "country", "--columns", "moved"), "--columns: there is no 'moved'; there are country, size, "),
        (("--segment", "country", "--columns", "size", "--json"), "--json shows all that is known; leave out one"),
        (("--columns", "size"), "--columns is for the table of the groups that --segment names"),
        (("--output", tmp_path / "moves.png"), "--output draws the groups that --segment names"),
        (
            ("--segment", "country", "--output", "moves.pdf"),
            "--output moves.pdf: expected a file name that ends in .png",
        ),
        (("--entity", "item"), "--entity says whose groups --segment names"),
    ]:
        ran = command("diff", "previous", "latest", "--repo", repo.path, *options)
        assert (ran.code, ran.out, problem in ran.err) == (2, "", True), ran.err
    other = init_repo(tmp_path / "other")
    for seed in (0, 1):
        write_version(other.data, seed=seed)
    ran = command("diff", "previous", "latest", "--repo", other.path, "--segment", "country")
    assert (ran.code, ran.out) == (2, "")
    assert "a vector cannot be compared with its successor" in ran.err
