"""The real command lines, each in a process of its own: the quickstart, and every command by hand.

A command takes seconds, most of them for importing Feast. So what only reads runs side by side, and the two repos are
built once for all tests of this file.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.conftest import Answer, Command

from feast_embeddings import EmbeddingStore
from feast_embeddings.artifact import load_artifact
from feast_embeddings.demo import generate_shop, write_shop
from feast_embeddings.repo import Repo, init_repo

BIN = Path(sys.executable).parent
EMBEDDINGS, FEAST = "feast-embeddings", "feast"
VERSION = r"\d{8}T\d{9}Z"


def run(cwd: Path, program: str, *arguments: object) -> Answer:
    """Run a program of this environment in a folder; it must succeed."""
    command = [str(BIN / program), *map(str, arguments)]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return Answer(done.returncode, done.stdout, done.stderr)


def run_all(cwd: Path, *commands: tuple[object, ...]) -> list[Answer]:
    """Run commands that only read side by side; their answers in order."""
    with ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        return list(pool.map(lambda command: run(cwd, *map(str, command)), commands))


def sections(out: str) -> dict[str, str]:
    """What the quickstart printed, by the command that it printed before it."""
    parts = re.split(r"^\$ (.*)$", out, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def section(out: str, command: str) -> str:
    """What followed the last command that begins so."""
    found = [text for line, text in sections(out).items() if line.startswith(command)]
    assert found, f"{command} is not among {list(sections(out))}"
    return found[-1]


@pytest.fixture(scope="module")
def built_by_hand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Future[tuple[Path, dict[str, Any]]]]:
    """The repo that `by_hand` waits for, built in parallel to the quickstart and its tests."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool.submit(build_by_hand, tmp_path_factory.mktemp("by hand"))


@pytest.fixture(scope="module")
def first_steps(tmp_path_factory: pytest.TempPathFactory, built_by_hand: object) -> tuple[Path, str]:
    """A folder in which the quickstart has run, and what it printed. Its name has a space, as folders do."""
    folder = tmp_path_factory.mktemp("quickstart") / "first steps"
    folder.mkdir()
    return folder, run(folder, EMBEDDINGS, "quickstart", "my shop").out


def test_the_answers_of_the_quickstart(first_steps: tuple[Path, str]) -> None:
    """Neighbours are of the asked item's category, and the labels get no, the first and the second version."""
    folder, out = first_steps
    shop = pd.read_parquet(folder / "my shop" / "shop" / "items.parquet").set_index("item_id")
    rows = [line.split() for line in section(out, "feast-embeddings similar-items sku-1").splitlines()]
    neighbours = [row[0] for row in rows if row and row[0].startswith("sku-")]
    assert len(neighbours) == 5
    assert (shop.category[neighbours] == shop.category["sku-1"]).sum() >= 4
    ranked = section(out, "feast-embeddings rank u-7")
    ids = re.findall(r"^ *(sku-\d+)", ranked, flags=re.MULTILINE)
    assert len(ids) == 5
    assert (shop.price[ids] < 50).all()
    assert len(re.findall(r"^ *u-\d+", section(out, "feast-embeddings similar-users u-7"), flags=re.MULTILINE)) == 5

    trained = re.findall(rf"^trained shop version ({VERSION})", out, flags=re.MULTILINE)
    assert len(trained) == 2
    frame = pd.read_parquet(folder / "my shop" / "frame.parquet")
    assert frame["user_version"].tolist() == [None, *trained]
    assert f"* {trained[1]}" in section(out, "feast-embeddings versions")
    artifact = load_artifact(folder / "my shop" / "data", "shop", trained[1])
    metrics = artifact.manifest.metrics
    assert metrics["recall@20"] > metrics["popular_recall@20"]
    users = artifact.table("user")
    vector = users["embedding"][users["user_id"].to_pylist().index("u-7")].as_py()
    assert frame["user_embedding"][2].tolist() == vector
    assert f"{vector[0]:.4f}, {vector[1]:.4f}" in section(out, "feast-embeddings user-embedding u-7")


def test_the_commands_to_try_next(first_steps: tuple[Path, str]) -> None:
    """The three commands at the end can be pasted into a shell, also where the environment is not on the PATH."""
    folder, out = first_steps
    commands = [shlex.split(line) for line in out.split("Try next:")[1].splitlines() if line]
    programs = [command.pop(0) for command in commands]
    assert [Path(program).name for program in programs] == [EMBEDDINGS, EMBEDDINGS, FEAST]
    for program in programs:
        found = shutil.which(program) if os.sep not in program else folder / program
        assert found is not None
        assert Path(found).samefile(BIN / Path(program).name)
    similar, ranked, views = run_all(
        folder, *((Path(program).name, *command) for program, command in zip(programs, commands, strict=True))
    )
    assert len(re.findall(r"^ *sku-\d+", similar.out, flags=re.MULTILINE)) == 10
    assert len(json.loads(ranked.out)["neighbours"]) == 20
    assert "shop_user_embeddings" in views.out
    assert "shop_item_embeddings" in views.out


def test_feast_commands_work_twice(
    first_steps: tuple[Path, str], command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command of Feast works on the repo, twice in a row; after a teardown, apply and publish bring it back."""
    folder, out = first_steps
    feast = (FEAST, "-c", "my shop")
    live = re.findall(rf"^trained shop version ({VERSION})", out, flags=re.MULTILINE)[1]
    for answer in run_all(folder, (*feast, "plan"), (*feast, "plan")):
        assert "No changes to infrastructure" in answer.out
    for _ in range(2):
        run(folder, *feast, "apply")
    for _ in range(2):
        # All that the log holds; the version of before is superseded by the live one.
        run(folder, *feast, "materialize", "2026-01-01T00:00:00", "2026-12-01T00:00:00")
    ask = (EMBEDDINGS, "item-embedding", "sku-1", "--repo", "my shop")
    first, second, answer = run_all(folder, (*feast, "feature-views", "list"), (*feast, "feature-views", "list"), ask)
    assert first.out == second.out
    assert "shop_item_embeddings" in first.out
    embedding = json.loads(answer.out)["embeddings"][0]
    items = load_artifact(folder / "my shop" / "data", "shop", live).table("item")
    assert embedding["version"] == live
    assert embedding["vector"] == items["embedding"][items["item_id"].to_pylist().index("sku-1")].as_py()

    for _ in range(2):
        run(folder, *feast, "teardown")
    pointer = json.loads((folder / "my shop" / "qdrant_storage" / "pointer.json").read_text())
    assert pointer == {"aliases": {}, "collections": {}}
    assert os.listdir(folder / "my shop" / "qdrant_storage" / "shards") == []
    run(folder, *feast, "apply")
    monkeypatch.chdir(folder)
    assert json.loads(command("publish", "--repo", "my shop", "--json").out)["changed"]
    assert json.loads(command(*ask[1:]).out)["embeddings"] == [embedding]


def test_quickstart_again(first_steps: tuple[Path, str], command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the same folder it trains and publishes two more versions; equal data and seed give equal answers."""
    folder, out = first_steps
    monkeypatch.chdir(folder)
    again = command("quickstart", "my shop")
    assert again.code == 0, again.err
    trained = re.findall(rf"^trained shop version ({VERSION})", out + again.out, flags=re.MULTILINE)
    assert len(set(trained)) == 4
    assert trained == sorted(trained)
    assert f"* {trained[3]}" in section(again.out, "feast-embeddings versions")
    for name in ("similar-items", "similar-users", "rank"):
        assert section(again.out, f"feast-embeddings {name}") == section(out, f"feast-embeddings {name}")


def test_quickstart_refuses_a_repo_of_others(tmp_path: Path, command: Command) -> None:
    """A repo that the quickstart did not make is left as it is."""
    repo = init_repo(tmp_path / "repo")
    before = {path.name: path.read_bytes() for path in repo.path.iterdir()}
    answer = command("quickstart", repo.path)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"error: {repo.path} is a Feast repo that quickstart did not make; name a new folder\n"
    assert {path.name: path.read_bytes() for path in repo.path.iterdir()} == before


# Every command by hand.


@dataclass(frozen=True)
class ByHand:
    """A repo that the commands made: their answers, and the Python interface over the same repo."""

    folder: Path
    versions: list[str]
    answers: dict[str, Any]
    store: EmbeddingStore


def build_by_hand(folder: Path) -> tuple[Path, dict[str, Any]]:
    """init, train twice, apply, publish; the older version first, then the newest."""
    write_shop(generate_shop(n_users=200, n_items=60, n_interactions=4000), folder / "log")
    answers = {"init": json.loads(run(folder, EMBEDDINGS, "init", "repo", "--json").out)}
    place = ("--repo", "repo", "--model", "books")
    train = (
        *(EMBEDDINGS, "train", *place, "--interactions", "log/interactions.parquet", "--items", "log/items.parquet"),
        *("--users", "log/users.parquet", "--weight-column", "quantity", "--threads", "1", "--json"),
        *("--trainer", "bpr", "--factors", "16", "--param", "iterations=20"),
    )
    answers["train"] = [
        json.loads(run(folder, *train, *options).out)
        for options in (("--until", "2026-08-01", "--no-evaluate"), ("--seed", "7"))
    ]
    versions = [answer["version"] for answer in answers["train"]]
    run(folder, FEAST, "-c", "repo", "apply")
    publish = (EMBEDDINGS, "publish", *place, "--allow-new-space", "--allow-shrink", "--json")
    answers["publish"] = [
        json.loads(run(folder, *publish, *options).out) for options in (("--version", versions[0]), (), ())
    ]
    return folder, answers


@pytest.fixture(scope="module")
def by_hand(built_by_hand: Future[tuple[Path, dict[str, Any]]]) -> ByHand:
    """The repo built by hand, once it is there."""
    folder, answers = built_by_hand.result()
    versions = [answer["version"] for answer in answers["train"]]
    return ByHand(folder, versions, answers, EmbeddingStore(Repo.open(folder / "repo").feature_store(), "books"))


def test_init_train_publish(by_hand: ByHand) -> None:
    """The reports of the commands that make things are those of the artifacts, and publish knows what is new."""
    first, second = (load_artifact(by_hand.folder / "repo" / "data", "books", v).manifest for v in by_hand.versions)
    assert by_hand.answers["init"] == {"repo": str(by_hand.folder / "repo")}
    for manifest, report in zip((first, second), by_hand.answers["train"], strict=True):
        assert (report["n_users"], report["n_items"]) == (manifest.n_users, manifest.n_items)
        assert (report["dim"], report["metrics"], report["seed"]) == (16, manifest.metrics, manifest.seed)
        assert report["trainer"]["config"]["iterations"] == 20
    assert (second.n_users, second.n_items, second.n_interactions, second.seed) == (200, 60, 4000, 7)
    assert first.n_interactions < 4000
    assert first.as_of.isoformat() < "2026-08-01" < second.as_of.isoformat()
    assert [(p["version"], p["changed"]) for p in by_hand.answers["publish"]] == [
        (by_hand.versions[0], True),
        (by_hand.versions[1], True),
        (by_hand.versions[1], False),
    ]


def test_queries_by_hand(by_hand: ByHand, command: Command) -> None:
    """Each query's JSON is what the Python interface returns for the same question."""
    store, place = by_hand.store, ("--repo", "repo", "--json")
    condition = "category = 'Books' OR price < 20"
    questions = {
        ("versions", "--model", "books"): None,
        ("similar-items", "sku-3", "-k", "4", "--filter", condition): store.similar_items("sku-3", 4, filter=condition),
        ("similar-users", "u-5"): store.similar_users("u-5"),
        ("rank", "u-5", "-k", "100"): store.rank("u-5", 100),
    }
    answers = run_all(by_hand.folder, *((EMBEDDINGS, *question, *place) for question in questions))
    for answer, expected in zip(answers[1:], list(questions.values())[1:], strict=True):
        assert expected is not None
        assert answer.err == ""
        found = json.loads(answer.out)
        assert found["version"] == expected.version == by_hand.versions[1]
        rows = json.dumps(expected.to_dicts(), default=lambda time: f"{time:%Y-%m-%dT%H:%M:%SZ}")
        assert found["neighbours"] == json.loads(rows)
        assert len(found["neighbours"]) > 0
    unseen = {row["item_id"] for row in json.loads(answers[-1].out)["neighbours"]}
    again = command("rank", "u-5", "-k", "100", "--include-seen", "--repo", by_hand.folder / "repo", "--json")
    everything = {row["item_id"] for row in json.loads(again.out)["neighbours"]}
    assert unseen < everything == {f"sku-{i}" for i in range(1, 61)}
    listed = json.loads(answers[0].out)
    assert (listed["model"], listed["live"]) == ("books", by_hand.versions[1])
    assert [(row["version"], row["live"]) for row in listed["versions"]] == [
        (by_hand.versions[0], False),
        (by_hand.versions[1], True),
    ]


def test_vectors_by_hand(by_hand: ByHand, command: Command) -> None:
    """Vectors by id, bit for bit; unknown ids are listed, and only all of them unknown is a failure."""
    folder, store = by_hand.folder, by_hand.store
    some, none = ("u-1", "no-user", "u-2"), ("no-user", "no-one")
    found, items = run_all(
        folder,
        (EMBEDDINGS, "user-embedding", *some, "--json", "--repo", "repo"),
        (EMBEDDINGS, "item-embedding", "sku-1", "sku-2", "--repo", "repo"),
    )
    answer = json.loads(found.out)
    expected = store.user_embeddings(some)
    assert answer["missing"] == expected.missing == ["no-user"]
    assert [row["id"] for row in answer["embeddings"]] == ["u-1", "u-2"]
    vectors = np.array([row["vector"] for row in answer["embeddings"]], dtype=np.float32)
    assert vectors.tobytes() == expected.vectors[expected.found].tobytes()
    as_of = load_artifact(folder / "repo" / "data", "books").manifest.as_of.isoformat()
    for row in answer["embeddings"]:
        assert (row["version"], row["as_of"], row["event_timestamp"]) == (by_hand.versions[1], as_of, as_of)
    answer = json.loads(items.out)
    assert answer["missing"] == []
    vectors = np.array([row["vector"] for row in answer["embeddings"]], dtype=np.float32)
    assert vectors.tobytes() == store.item_embeddings(["sku-1", "sku-2"]).vectors.tobytes()
    failed = command("user-embedding", *none, "--repo", folder / "repo")
    assert failed.code == 2
    assert json.loads(failed.out) == {"embeddings": [], "missing": list(none)}
    assert len(failed.err.splitlines()) == 1


def test_training_frame_by_hand(by_hand: ByHand, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file holds what the Python interface returns, and the report counts it."""
    labels = pd.DataFrame(
        {
            "user_id": ["u-1", "u-1", "u-1", "no-user"],
            "item_id": ["sku-1", "sku-1", "sku-2", "sku-2"],
            "event_timestamp": ["2026-01-01", "2026-08-02", "2026-12-01", "2026-12-01"],
            "bought": [0, 1, 0, 1],
        }
    )
    labels.to_csv(by_hand.folder / "labels.csv", index=False)
    monkeypatch.chdir(by_hand.folder)
    arguments = ("training-frame", "--repo", "repo", "--entities", "labels.csv", "--output", "frame.parquet", "--json")
    report = json.loads(command(*arguments, "--allow-mixed-spaces").out)
    first, second = by_hand.versions
    assert report == {
        "rows": 4,
        "output": "frame.parquet",
        "with_embedding": {"user_version": 2, "item_version": 3},
    }
    written = pd.read_parquet(by_hand.folder / "frame.parquet")
    assert written["user_version"].tolist() == [None, first, second, None]
    assert written["item_version"].tolist() == [None, first, second, second]
    expected = by_hand.store.training_frame(labels, allow_mixed_spaces=True)
    assert list(written.columns) == list(expected.columns)
    for name in ("user_embedding", "item_embedding"):
        for ours, theirs in zip(written[name], expected[name], strict=True):
            assert (ours is None) == (theirs is None)
            assert ours is None or ours.tobytes() == theirs.tobytes()


def test_going_back_to_an_older_version(by_hand: ByHand, command: Command) -> None:
    """A rollback makes the version before live again, with users and items that only it knows or lacks."""
    place = ("--repo", by_hand.folder / "repo")
    older, newest = by_hand.versions
    back = command("rollback", *place)
    assert (back.code, back.err) == (0, "")
    assert f"books {older} is live" in back.out
    assert by_hand.store.live_version() == older
    assert json.loads(command("rank", *place, "u-5", "--json").out)["version"] == older
    assert json.loads(command("publish", *place, "--allow-new-space", "--json").out)["version"] == newest
    assert by_hand.store.live_version() == newest
