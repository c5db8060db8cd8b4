"""Input as people have it: the right result all the way to served vectors, or one clear line and nothing written."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from feast import FeatureStore
from tests.conftest import Answer, Command

from embedding_trainers.train import train_model
from embedding_trainers.trainer import RunOptions
from feast_embeddings import embedding_views, publish_artifact
from feast_embeddings.artifact import list_artifacts, load_artifact
from feast_embeddings.repo import Repo, init_repo

LONG = "x" * 300
TEXT_IDS = [
    "a b",
    "a/b",
    "../x",
    "🎈🎈",
    LONG,
    "-5",
    "007",
    "NA",
    "null",
    "'; --",
    'a "quote", and comma',
    "sku\n1",
    "é",
]
ALL = "9999"
QUICK: dict[str, Any] = {"trainer": "bpr", "parameters": {"factors": 4, "iterations": 3}}
QUICK_OPTIONS = ["--threads", "1", "--quiet", "--trainer", "bpr", "--factors", "4", "--param", "iterations=3"]
LATER = datetime(2100, 1, 1, tzinfo=UTC)


def apply(repo: Repo, model: str) -> FeatureStore:
    """What `feast apply` does in this repo, in this process."""
    feature_store = repo.feature_store()
    feature_store.apply(list(embedding_views(model, repo.data).by_name().values()))
    return feature_store


def everyone_but_one(users: list[Any], items: list[Any]) -> pa.Table:
    """Each user took every item but one, where there are two or more."""
    n = len(items)
    pairs = [(u, i) for a, u in enumerate(users) for b, i in enumerate(items) if 1 in (n, len(users)) or a % n != b]
    return pa.table({"user_id": [u for u, _ in pairs], "item_id": [i for _, i in pairs]})


@pytest.mark.parametrize(
    ("users", "items"),
    [
        pytest.param([0, 127, 128, 2**40, 2**53 + 1, 2**63 - 1, -5], [128, 1000, 2**62 + 1, -1], id="integers"),
        pytest.param(TEXT_IDS, TEXT_IDS[::-1], id="text"),
        pytest.param([200, 300, 400], ["a", "b", "c"], id="integers-and-text"),
        pytest.param(["u"], ["a", "b", "c"], id="one-user"),
        pytest.param(["u", "v", "w"], ["a"], id="one-item"),
        pytest.param([500], [600], id="one-pair"),
    ],
)
def test_all_the_way(tmp_path: Path, command: Command, users: list[Any], items: list[Any]) -> None:
    """From a log to trained, published, queried, read through Feast, and joined point in time."""
    repo, log = init_repo(tmp_path / "repo"), tmp_path / "log.parquet"
    interactions = everyone_but_one(users, items)
    pq.write_table(interactions, log)
    place = ["--repo", repo.path, "--model", "m"]
    trained = command("train", *place, "--interactions", log, *QUICK_OPTIONS, "--json")
    assert trained.code == 0, trained.err
    feature_store = apply(repo, "m")
    published = command("publish", *place, "--json")
    assert published.code == 0, published.err
    assert (json.loads(published.out)["n_users"], json.loads(published.out)["n_items"]) == (len(users), len(items))
    artifact = load_artifact(repo.data, "m")
    version = artifact.manifest.version

    vectors = {}
    for entity, ids in (("user", users), ("item", items)):
        table = artifact.table("user" if entity == "user" else "item")
        stored = dict(zip(table[f"{entity}_id"].to_pylist(), table["embedding"].to_pylist(), strict=True))
        vectors[entity] = stored
        answer = command(f"{entity}-embedding", *place, "--", *ids)
        assert answer.code == 0, answer.err
        found = json.loads(answer.out)
        assert found["missing"] == []
        assert {row["id"]: row["vector"] for row in found["embeddings"]} == stored
        assert [row["id"] for row in found["embeddings"]] == ids
        for id in ids[:3]:
            answer = command(f"similar-{entity}s", *place, "-k", ALL, "--json", "--", id)
            neighbours = [row[f"{entity}_id"] for row in json.loads(answer.out)["neighbours"]]
            assert (len(neighbours), set(neighbours)) == (len(ids) - 1, set(ids) - {id})
        online = feature_store.get_online_features(
            features=[f"m_{entity}_embeddings:embedding", f"m_{entity}_embeddings:version"],
            entity_rows=[{f"{entity}_id": id} for id in ids],
        ).to_dict()
        assert online["embedding"] == [stored[id] for id in ids]
        assert online["version"] == [version] * len(ids)

    pairs = set(zip(*interactions.to_pydict().values(), strict=True))
    for user in users:
        ranked = json.loads(command("rank", *place, "-k", ALL, "--json", "--", user).out)["neighbours"]
        assert {row["item_id"] for row in ranked} == {item for item in items if (user, item) not in pairs}
        ranked = json.loads(command("rank", *place, "-k", ALL, "--include-seen", "--json", "--", user).out)
        assert {row["item_id"] for row in ranked["neighbours"]} == set(items)

    labels = pd.DataFrame(
        {"item_id": items, "user_id": [users[i % len(users)] for i in range(len(items))], "event_timestamp": LATER}
    )
    labels.to_parquet(tmp_path / "labels.parquet")
    labels.to_csv(tmp_path / "labels.csv", index=False)
    for name in ("labels.parquet", "labels.csv"):
        frame_command = command(
            "training-frame", *place, "--entities", tmp_path / name, "--output", tmp_path / "frame.parquet", "--json"
        )
        assert frame_command.code == 0, frame_command.err
        frame = pd.read_parquet(tmp_path / "frame.parquet")
        assert [vector.tolist() for vector in frame["item_embedding"]] == [vectors["item"][id] for id in items]
        assert [vector.tolist() for vector in frame["user_embedding"]] == [vectors["user"][u] for u in labels.user_id]
        assert frame["user_version"].tolist() == [version] * len(items)


def test_duplicates_are_one_user_and_one_item(tmp_path: Path, command: Command) -> None:
    """A pair that occurs often is counted as often, and served once."""
    repo, log = init_repo(tmp_path / "repo"), tmp_path / "log.csv"
    log.write_text("user_id,item_id\n" + "a,x\n" * 50 + "b,x\nb,y\n" * 2)
    place = ["--repo", repo.path, "--model", "m"]
    assert command("train", *place, "--interactions", log, *QUICK_OPTIONS).code == 0
    apply(repo, "m")
    assert command("publish", *place).code == 0
    artifact = load_artifact(repo.data, "m")
    assert artifact.manifest.n_interactions == 54
    assert artifact.table("user").select(["user_id", "n_interactions", "seen_items"]).to_pylist() == [
        {"user_id": "a", "n_interactions": 50, "seen_items": ["x"]},
        {"user_id": "b", "n_interactions": 4, "seen_items": ["x", "y"]},
    ]
    assert [row["item_id"] for row in json.loads(command("rank", *place, "a", "--json").out)["neighbours"]] == ["y"]


def test_a_csv_as_spreadsheets_write_it(tmp_path: Path, command: Command) -> None:
    """A byte order mark, CRLF, quotes and blank lines are no part of the ids."""
    repo, log = init_repo(tmp_path / "repo"), tmp_path / "log.csv"
    log.write_bytes('\ufeffuser_id,item_id\r\n"Zoë, A.",1\r\n\r\n"Zoë, A.",2\r\nBo,2\r\n'.encode())
    assert command("train", "--repo", repo.path, "--model", "m", "--interactions", log, *QUICK_OPTIONS).code == 0
    artifact = load_artifact(repo.data, "m")
    assert artifact.table("user")["user_id"].to_pylist() == ["Bo", "Zoë, A."]
    assert artifact.table("item")["item_id"].to_pylist() == ["1", "2"]


def test_attributes_that_json_cannot_write(tmp_path: Path, command: Command) -> None:
    """Infinity is null, as over HTTP; a time is in ISO 8601."""
    repo, log, items = init_repo(tmp_path / "repo"), tmp_path / "log.csv", tmp_path / "items.parquet"
    log.write_text("user_id,item_id\n1,1\n1,2\n2,2\n")
    added = [datetime(2026, 1, 2, 3, tzinfo=UTC)] * 2
    pq.write_table(pa.table({"item_id": [1, 2], "price": [math.inf, -math.inf], "added": added}), items)
    place = ["--repo", repo.path, "--model", "m"]
    assert (
        command("train", *place, "--interactions", log, "--id-type", "int", "--items", items, *QUICK_OPTIONS).code == 0
    )
    apply(repo, "m")
    assert command("publish", *place).code == 0
    answer = command("similar-items", *place, "1", "--json")
    (row,) = json.loads(answer.out, parse_constant=pytest.fail)["neighbours"]
    assert (row["item_id"], row["price"], row["added"]) == (2, None, "2026-01-02T03:00:00Z")


def test_awkward_attribute_names(tmp_path: Path, command: Command) -> None:
    """Attributes may have any name that can be quoted; they can be filtered on, read online and joined."""
    repo, log, items = init_repo(tmp_path / "repo"), tmp_path / "log.csv", tmp_path / "items.parquet"
    log.write_text("user_id,item_id\n1,1\n1,2\n2,2\n2,3\n")
    names = ["price (EUR)", "a.b", "x[0]", "é🎈", "select", "a-b", "1", "score"]
    pq.write_table(pa.table({"item_id": [1, 2, 3]} | {name: [0.5, 1.5, 2.5] for name in names}), items)
    place = ["--repo", repo.path, "--model", "m"]
    trained = command("train", *place, "--interactions", log, "--id-type", "int", "--items", items, *QUICK_OPTIONS)
    assert trained.code == 0, trained.err
    feature_store = apply(repo, "m")
    assert command("publish", *place).code == 0
    for name in names:
        answer = command("rank", *place, "1", "--include-seen", "--filter", f'"{name}" > 1', "-k", 9, "--json")
        assert answer.code == 0, answer.err
        found = json.loads(answer.out)["neighbours"]
        assert {row["item_id"] for row in found} == {2, 3}, name
        # Of the answer, not the attribute of that name.
        assert not {row["score"] for row in found} & {0.5, 1.5, 2.5}
    table = tmp_path / "ranked.parquet"
    assert command("rank", *place, "1", "--include-seen", "--output", table).code == 0
    assert pq.read_schema(table).names == ["item_id", "score", *names[:-1], "source"]
    features = [f"m_item_embeddings:{name}" for name in names]
    online = feature_store.get_online_features(features, entity_rows=[{"item_id": 3}]).to_dict()
    assert {name: online[name] for name in names} == {name: [2.5] for name in names}
    rows = pd.DataFrame({"item_id": [2], "event_timestamp": [pd.Timestamp(LATER).as_unit("us")]})
    joined = feature_store.get_historical_features(rows, features).to_df()
    assert joined[names].iloc[0].tolist() == [1.5] * len(names)


# Refusals. One repo for all of them: none may change a file in it.


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    """A repo with a published model of text ids and an attribute, for commands that must not change it."""
    folder = tmp_path_factory.mktemp("messy")
    repo = init_repo(folder / "repo")
    pq.write_table(everyone_but_one(["u-1", "u-2", "u-3"], ["a", "b", "c", "d"]), folder / "log.parquet")
    (folder / "items.csv").write_text("item_id,price\na,1.5\nb,2.5\n")
    training = train_model(
        repo.path,
        "shop",
        folder / "log.parquet",
        item_attributes=folder / "items.csv",
        **QUICK,
        options=RunOptions(threads=1),
    )
    publish_artifact(apply(repo, "shop"), training.artifact)
    return repo


def state(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder below, with its time of change and size; of a shard only that it is there.

    Qdrant Edge touches files of a shard that it loads for reading.
    """
    found = {}
    for path in folder.rglob("*"):
        name = path.relative_to(folder)
        status = path.stat()
        found[str(name)] = (0, 0) if "shards" in name.parts else (status.st_mtime_ns, status.st_size)
    return found


def assert_refused(answer: Answer, *parts: str) -> None:
    """One line on standard error that holds these parts, exit code 2, and nothing on standard output."""
    assert answer.code == 2, answer
    assert answer.out == ""
    assert answer.err.startswith("error: ")
    assert answer.err.endswith("\n")
    assert len(answer.err.splitlines()) == 1, answer.err
    assert "Traceback" not in answer.err
    for part in parts:
        assert part in answer.err


def write_files(folder: Path, files: Mapping[str, str | bytes | pa.Table | None]) -> None:
    """Text, bytes or a table per name; None makes a folder."""
    for name, content in files.items():
        path = folder / name
        if content is None:
            path.mkdir()
        elif isinstance(content, pa.Table):
            pq.write_table(content, path)
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)


OK = "user_id,item_id\nu-1,a\nu-2,b\n"
WEIGHTED = "user_id,item_id,w\nu-1,a,1\nu-2,b,{}\n"
STRUCT = pa.table({"item_id": ["a"], "size": [{"w": 1}]})

BAD_TRAINING: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "no such file": ({}, [], ["log.csv", "does not exist"]),
    "empty file": ({"log.csv": ""}, [], ["log.csv is empty", "expected a line of column names"]),
    "header only": ({"log.csv": "user_id,item_id\n"}, [], ["log.csv has no rows"]),
    "missing column": ({"log.csv": "user,item_id\n1,2\n"}, [], ["no column 'user_id'", "did you mean 'user'?"]),
    "column twice": ({"log.csv": "user_id,user_id,item_id\n1,2,3\n"}, [], ["two columns 'user_id'"]),
    "null id": (
        {"log.csv": "user_id,item_id\nu-1,a\n,b\n"},
        [],
        ["1 of 2 rows cannot be used: 1 without user_id (row 2)"],
    ),
    "broken row": ({"log.csv": "user_id,item_id\nu-1,a\nu-2,b,c\n"}, [], ["1 with too many values (line 3 'u-2,b,c')"]),
    "not UTF-8": ({"log.csv": b"user_id,item_id\n\xff,b\n"}, [], ["1 not UTF-8 (line 2", "no row is left"]),
    "real ids": ({"log.parquet": pa.table({"user_id": [1.5], "item_id": ["a"]})}, [], ["text or whole numbers"]),
    "ids of another type": (
        {"log.csv": "user_id,item_id\n1,2\n"},
        ["--id-type", "int"],
        ["changed its type", "user_id"],
    ),
    "NaN weight": ({"log.csv": WEIGHTED.format("nan")}, ["--weight-column", "w"], ["1 whose w is not a finite number"]),
    "null weight": ({"log.csv": WEIGHTED.format("")}, ["--weight-column", "w"], ["1 without w (row 2)"]),
    "negative weight": (
        {"log.csv": WEIGHTED.format("-1")},
        ["--weight-column", "w"],
        ["w is negative (row 2 '-1')"],
    ),
    "text weight": (
        {"log.csv": WEIGHTED.format("much")},
        ["--weight-column", "w"],
        ["not a finite number (row 2 'much')"],
    ),
    "text as Parquet": ({"log.parquet": "user_id,item_id\nu-1,a\n"}, [], ["cannot be read as Parquet"]),
    "cut Parquet": ({"log.parquet": b"PAR1" + bytes(20)}, [], ["cannot be read as Parquet"]),
    "empty folder": ({"log.d": None}, [], ["folder without files that can be read"]),
    "broken JSON": (
        {"log.jsonl": '{"user_id": "u-1", "item_id": "a"}\n{"user_id"'},
        [],
        ["1 not a JSON object in UTF-8 (row 2)"],
    ),
    "unknown ending": ({"log.xlsx": "PK"}, [], ["cannot tell the format from the name"]),
    "until when": ({"log.csv": OK}, ["--until", "soon"], ["'soon' is not a time"]),
    "until without times": ({"log.csv": OK}, ["--until", "2026-01-01"], ["no column 'timestamp'"]),
    "until before all": (
        {"log.csv": "user_id,item_id,timestamp\nu-1,a,2026-01-01\n"},
        ["--until", "2025-01-01"],
        ["no interactions until 2025-01-01"],
    ),
    "bad time": ({"log.csv": "user_id,item_id,timestamp\nu-1,a,soon\n"}, [], ["not a time"]),
    "unknown trainer": ({"log.csv": OK}, ["--trainer", "magic"], ["no trainer 'magic'; installed are als, bpr"]),
    "unknown parameter": ({"log.csv": OK}, ["--param", "speed=1"], ["no parameter 'speed' with auto"]),
    "bad parameter": ({"log.csv": OK}, ["--trainer", "bpr", "--param", "learning_rate=nan"], ["learning_rate='nan'"]),
    "no value": ({"log.csv": OK}, ["--param", "learning_rate"], ["expected NAME=VALUE"]),
    "factors in words": ({"log.csv": OK}, ["--factors", "many"], ["'--factors'"]),
    "items twice": ({"log.csv": OK, "items.csv": "item_id,n\na,1\na,2\n"}, [], ["1 of 2 rows repeat an id, e.g. 'a'"]),
    "items of a type": ({"log.csv": OK, "items.parquet": STRUCT}, [], ["'size'", "cannot be served"]),
    "items reserved": ({"log.csv": OK, "items.csv": "item_id,version\na,1\n"}, [], ["'version' is reserved"]),
    "items underscore": ({"log.csv": OK, "items.csv": "item_id,_x\na,1\n"}, [], ["'_x' is reserved"]),
    "items nearly reserved": (
        {"log.csv": OK, "items.csv": "item_id,Version\na,1\n"},
        [],
        ["'version'", "'Version'", "differ only in case"],
    ),
    "items with another case": (
        {"log.csv": OK, "items.csv": "item_id,Price\na,1.5\n"},
        [],
        ["'price'", "'Price'", "differ only in case"],
    ),
    "items with a row index": ({"log.csv": OK, "items.csv": ",item_id,n\n0,a,1\n"}, [], ["a column has no name"]),
    "items column twice": ({"log.csv": OK, "items.csv": "item_id,n,n\na,1,2\n"}, [], ["two columns 'n'"]),
    "items that changed type": (
        {"log.csv": OK, "items.csv": "item_id,price\na,x\n"},
        [],
        ["column 'price': 1 of 1 values are not a number", "'x'", "--attribute-types price=text"],
    ),
    "items of elsewhere": ({"log.csv": OK, "items.csv": "item_id,n\nz,1\n"}, [], ["none of its ids (e.g. 'z')"]),
    "items without ids": ({"log.csv": OK, "items.csv": "n\n1\n"}, [], ["no column 'item_id'"]),
    "type of the ids": (
        {"log.csv": OK, "items.csv": "item_id,n\na,1\n"},
        ["--attribute-types", "item_id=int"],
        ["--attribute-types names 'item_id', which is not among the attributes"],
    ),
    "items of no object": ({"log.csv": OK, "items.json": "[]"}, [], ["items.json has no columns"]),
    "items nowhere": ({"log.csv": OK}, ["--items", "nowhere.csv"], ["nowhere.csv does not exist"]),
}


@pytest.mark.parametrize("case", BAD_TRAINING)
def test_training_that_cannot_be(
    case: str, shop: Repo, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log, attribute file or option that cannot be used is one line, and no version or leftover is in the repo."""
    files, options, parts = BAD_TRAINING[case]
    monkeypatch.chdir(tmp_path)
    write_files(tmp_path, files)
    log = next((name for name in files if name.startswith("log.")), "log.csv")
    items = next((["--items", name] for name in files if name.startswith("items.")), [])
    before = state(shop.path)
    common = ["--repo", shop.path, "--model", "shop", "--interactions", log, "--threads", "1", "--quiet"]
    assert_refused(command("train", *common, *items, *options), *parts)
    assert state(shop.path) == before
    assert sorted(os.listdir()) == sorted(files)


@pytest.mark.parametrize("name", ["", "Shop", "../shop", "1shop", "a-b", "shop\n", "é", "s" * 41])
def test_bad_model_names(name: str, shop: Repo, tmp_path: Path, command: Command) -> None:
    """A name that cannot stand in paths and in Feast is refused by every command that makes or names a version."""
    (tmp_path / "log.csv").write_text(OK)
    before = state(shop.path)
    arguments = ["--repo", shop.path, f"--model={name}"]
    assert_refused(command("train", *arguments, "--interactions", tmp_path / "log.csv"), "expected 1 to 40 lower-case")
    assert_refused(command("publish", *arguments), "expected 1 to 40 lower-case")
    assert_refused(command("versions", *arguments), "expected 1 to 40 lower-case")
    assert_refused(command("rank", *arguments, "u-1"), "expected 1 to 40 lower-case")
    assert state(shop.path) == before


BAD_QUERIES: dict[str, tuple[list[str], list[str]]] = {
    "unknown command": (["rnak"], ["No such command 'rnak'"]),
    "no id": (["rank"], ["Missing argument 'USER_ID'"]),
    "unknown option": (["rank", "u-1", "--colour", "red"], ["--colour"]),
    "unknown user": (["rank", "no-user"], ["user 'no-user' has no embedding"]),
    "unknown item": (["similar-items", ""], ["item '' has no embedding"]),
    "half a character": (["rank", "\udcff"], ["valid Unicode"]),
    "k of 0": (["rank", "u-1", "-k", "0"], ["'-k'", "0 is not in the range"]),
    "k beyond 64 bits": (["similar-items", "a", "-k", "9" * 30], ["k must be", "below 2**63"]),
    "k below 0": (["similar-items", "a", "-k", "-3"], ["'-k'"]),
    "k in words": (["similar-users", "u-1", "-k", "some"], ["'-k'"]),
    "filter of nothing": (["rank", "u-1", "--filter", ""], ["filter not understood: it is empty"]),
    "filter cut off": (["rank", "u-1", "--filter", "price <"], ["filter not understood"]),
    "filter in prose": (["rank", "u-1", "--filter", "cheap ones\nplease"], ["filter not understood"]),
    "filter with a call": (["rank", "u-1", "--filter", "exp(price) < 3"], ["functions are not supported"]),
    "filter on nothing known": (["rank", "u-1", "--filter", "prize < 3"], ["did you mean 'price'?"]),
    "filter of another type": (["rank", "u-1", "--filter", "price = 'low'"], ["compared with a number"]),
    "filter on a vector": (["rank", "u-1", "--filter", "embedding = 1"], ["cannot be filtered on"]),
    "unknown version": (["publish", "--version", "yesterday"], ["no version 'yesterday'"]),
    "version as a path": (["publish", "--version", "../shop"], ["no version '../shop'"]),
}


@pytest.mark.parametrize("case", BAD_QUERIES)
def test_questions_that_have_no_answer(case: str, shop: Repo, command: Command) -> None:
    """Unknown ids, filters and options are one line that says what is wrong, and change nothing."""
    (name, *rest), parts = BAD_QUERIES[case]
    before = state(shop.path)
    assert_refused(command(name, "--repo", shop.path, "--model", "shop", *rest), *parts)
    assert state(shop.path) == before


@pytest.mark.parametrize("id", ["x", "1.5", "", "9" * 30, "-" + "9" * 30, "007", "1_0", "７", "+1", " 1", "-0"])
def test_ids_that_are_no_whole_numbers(id: str, tmp_path: Path, command: Command) -> None:
    """A model of whole-number ids says what ids it takes, also for numbers beyond 64 bits."""
    repo = init_repo(tmp_path / "repo")
    train_model(repo.path, "m", pa.table({"user_id": [1], "item_id": [2]}), **QUICK, options=RunOptions(threads=1))
    publish_artifact(apply(repo, "m"), load_artifact(repo.data, "m"))
    for name in ("rank", "similar-items", "user-embedding"):
        assert_refused(command(name, "--repo", repo.path, "--", id), "whole numbers, got")


BAD_FRAMES: dict[str, tuple[dict[str, Any], list[str]]] = {
    "no such file": ({}, ["labels.csv does not exist"]),
    "empty file": ({"labels.csv": ""}, ["labels.csv is empty"]),
    "text as Parquet": (
        {"labels.parquet": "user_id\n"},
        ["cannot be read as Parquet"],
    ),
    "broken row": (
        {"labels.csv": "user_id,event_timestamp\nu-1,2026-01-01,3\n"},
        ["1 with too many values (line 2"],
    ),
    "no time": ({"labels.csv": "user_id\nu-1\n"}, ["event_timestamp"]),
    "no id": ({"labels.csv": "event_timestamp\n2026-01-01\n"}, ["user_id, item_id or both"]),
    "bad time": (
        {"labels.csv": "user_id,event_timestamp\nu-1,soon\n"},
        ["labels.csv: 1 of", "event_timestamp is not a time (row 1 'soon')"],
    ),
    "null time": (
        {"labels.csv": "user_id,event_timestamp\nu-1,\n"},
        ["1 without event_timestamp (row 1)"],
    ),
    "bad times": (
        {"labels.csv": "user_id,event_timestamp\nu-1,2026-01-01\nu-1,\nu-1,2026-13-01\nu-1,20260101\n"},
        [
            "3 of 4 rows cannot be used: 1 without event_timestamp (row 2); 1 whose event_timestamp is not a time "
            "(row 3 '2026-13-01'); 1 whose event_timestamp is a date in digits (give its format with --time-format, "
            "e.g. %Y%m%d) (row 4 '20260101'); correct them"
        ],
    ),
    "time of another name": ({"labels.csv": "user_id,timestamp\nu-1,2026-01-01\n"}, ["did you mean 'timestamp'?"]),
    "no object": ({"labels.json": "[]"}, ["labels.json has no columns"]),
    "objects": (
        {"labels.jsonl": '{"user_id": "u-1", "event_timestamp": "2026-01-01", "x": {"a": 1}}\n'},
        ["column 'x' holds objects, which cannot be one column; make them alike, or leave the column out\n"],
    ),
    "column twice": ({"labels.csv": "user_id,user_id,event_timestamp\nu,v,2026-01-01\n"}, ["two columns 'user_id'"]),
    "column taken": (
        {"labels.csv": "user_id,user_version,event_timestamp\nu,1,2026-01-01\n"},
        ["'user_version' exists already"],
    ),
}


@pytest.mark.parametrize("case", BAD_FRAMES)
def test_labels_that_cannot_be_joined(case: str, shop: Repo, tmp_path: Path, command: Command) -> None:
    """A file of labels that cannot be used is one line, and no frame is written."""
    files, parts = BAD_FRAMES[case]
    write_files(tmp_path, files)
    labels = tmp_path / next(iter(files), "labels.csv")
    out = tmp_path / "frame.parquet"
    before = state(shop.path)
    answer = command("training-frame", "--repo", shop.path, "--entities", labels, "--output", out)
    assert_refused(answer, *parts)
    assert sorted(os.listdir(tmp_path)) == sorted(files)
    assert state(shop.path) == before


@pytest.mark.parametrize("out", ["frame.csv", "nowhere/frame.parquet", "folder.parquet"])
def test_a_frame_that_cannot_be_written(out: str, shop: Repo, tmp_path: Path, command: Command) -> None:
    """A place that cannot be written to is said before the join, and nothing is left there."""
    write_files(tmp_path, {"labels.csv": "user_id,event_timestamp\nu-1,2026-01-01\n", "folder.parquet": None})
    labels = tmp_path / "labels.csv"
    answer = command("training-frame", "--repo", shop.path, "--entities", labels, "--output", tmp_path / out)
    assert_refused(answer, "--output")
    assert sorted(os.listdir(tmp_path)) == ["folder.parquet", "labels.csv"]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("2100-01-01 00:00:00 UTC", LATER),
        ("2100-01-01T05:00+05:00", LATER),
        (f"{int(LATER.timestamp())}", LATER),
        (f"{int(LATER.timestamp()) * 1000}", LATER),
        ("9999-12-31", datetime(9999, 12, 31, tzinfo=UTC)),
    ],
)
def test_times_of_labels_are_those_of_a_log(
    time: str, expected: datetime, shop: Repo, tmp_path: Path, command: Command
) -> None:
    """All forms of docs/input.md, and the frame has times where the file has text."""
    (tmp_path / "labels.csv").write_text(f"user_id;event_timestamp;label\nu-1;{time};7\nu-0;{time};\n")
    out = tmp_path / "frame.parquet"
    answer = command("training-frame", "--repo", shop.path, "--entities", tmp_path / "labels.csv", "--output", out)
    assert (answer.code, answer.err) == (0, "")
    frame = pq.read_table(out)
    assert frame.schema.field("event_timestamp").type == pa.timestamp("us", "UTC")
    assert frame["event_timestamp"].to_pylist() == [expected] * 2
    assert frame["label"].to_pylist() == [7, None]
    assert frame["user_version"].is_valid().to_pylist() == [True, False]


def test_a_time_format_for_labels(shop: Repo, tmp_path: Path, command: Command) -> None:
    """As for a log."""
    (tmp_path / "labels.csv").write_text("user_id,event_timestamp\nu-1,21000101\n")
    out = tmp_path / "frame.parquet"
    place = ("--repo", shop.path, "--entities", tmp_path / "labels.csv", "--output", out)
    answer = command("training-frame", *place, "--time-format", "%Y%m%d")
    assert (answer.code, answer.err) == (0, "")
    assert pq.read_table(out)["event_timestamp"].to_pylist() == [LATER]


@pytest.mark.parametrize("dtype", [pa.int8(), pa.int32(), pa.uint32(), pa.int64(), pa.uint64()], ids=str)
def test_labels_keep_their_types(dtype: pa.DataType, shop: Repo, tmp_path: Path, command: Command) -> None:
    """Whole numbers with one missing stay whole, and columns without a value have the type that they would have."""
    labels = pa.table(
        {
            "user_id": ["no-user"] * 2,
            "event_timestamp": pa.array([LATER] * 2, pa.timestamp("us", "UTC")),
            "label": pa.array([2 ** (dtype.bit_width - 1) - 1, None], dtype),
            "note": pa.array([None, None], pa.string()),
        }
    )
    pq.write_table(labels, tmp_path / "labels.parquet")
    out = tmp_path / "frame.parquet"
    place = ("--repo", shop.path, "--entities", tmp_path / "labels.parquet", "--output", out)
    assert command("training-frame", *place).code == 0
    frame = pq.read_table(out)
    assert frame.select(labels.column_names).equals(labels)
    added = [pa.list_(pa.float32()), pa.string(), pa.string()]
    assert [
        frame.schema.field(f"user_{name}").type.equals(dtype)
        for name, dtype in zip(("embedding", "version", "space"), added, strict=True)
    ] == [True] * 3
    assert frame["user_embedding"].null_count == 2


def test_an_empty_file_of_labels_is_an_empty_frame(shop: Repo, tmp_path: Path, command: Command) -> None:
    """No rows are no error: the frame has the columns and no rows."""
    (tmp_path / "labels.csv").write_text("user_id,event_timestamp,label\n")
    out = tmp_path / "frame.parquet"
    answer = command("training-frame", "--repo", shop.path, "--entities", tmp_path / "labels.csv", "--output", out)
    assert (answer.code, answer.err) == (0, "")
    frame = pd.read_parquet(out)
    assert len(frame) == 0
    assert list(frame.columns) == [
        *("user_id", "event_timestamp", "label", "user_embedding", "user_version", "user_space")
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--model", "m", "--interactions", "log.csv"],
        ["publish"],
        ["versions"],
        ["rank", "u-1"],
        ["item-embedding", "a"],
        ["training-frame", "--entities", "log.csv", "--output", "frame.parquet"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_a_folder_that_is_no_repo(
    arguments: list[str], tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command says that the folder is no repo and how to make one; none makes anything in it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text(OK)
    (tmp_path / "nothing").mkdir()
    for folder in ("nothing", "nowhere", "log.csv"):
        assert_refused(command(*arguments, "--repo", folder), "feature_store.yaml", "feast-embeddings init")
    assert sorted(os.listdir(tmp_path)) == ["log.csv", "nothing"]
    assert os.listdir("nothing") == []


def test_init_overwrites_nothing(tmp_path: Path, command: Command) -> None:
    """A folder that is a repo already, and a file, are refused as they are."""
    (tmp_path / "file").write_text("mine")
    init_repo(tmp_path / "repo")
    before = state(tmp_path)
    assert_refused(command("init", tmp_path / "file"), "is a file")
    assert_refused(command("init", tmp_path / "repo"), "exists already")
    assert state(tmp_path) == before


def test_the_bare_command_is_its_help(command: Command) -> None:
    """Without a command, the table of contents is printed as it is, line by line."""
    answer = command()
    assert (answer.code, answer.err) == (0, "")
    assert answer.out == command("--help").out
    assert [
        name for name in ("quickstart", "init", "train", "training-frame") if f"\n  {name} " not in answer.out
    ] == []


def test_nothing_but_versions_is_left(shop: Repo) -> None:
    """After all refusals the model's folder holds the one version and the history of it."""
    assert len(list_artifacts(shop.data, "shop")) == 1
    (version,) = (artifact.manifest.version for artifact in list_artifacts(shop.data, "shop"))
    assert sorted(os.listdir(shop.data / "shop")) == [version, "history", "writer.lock"]
    assert sorted(os.listdir(shop.data)) == ["registry.db", "shop"]
    assert np.isfinite(load_artifact(shop.data, "shop").table("item")["bias"].to_numpy()).all()
