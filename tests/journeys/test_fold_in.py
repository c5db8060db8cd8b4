"""Fold-in as users meet it: the command and the Python interface, a file, the live collection, and what is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.conftest import Command

from embedding_trainers.train import train_model
from embedding_trainers.trainer import RunOptions
from feast_embeddings import EmbeddingStore, embedding_views, publish_artifact
from feast_embeddings.artifact import Artifact, embedding_matrix
from feast_embeddings.demo import generate_shop, write_shop
from feast_embeddings.errors import InputError, MissingExtraError
from feast_embeddings.repo import Repo, init_repo


@dataclass(frozen=True)
class Served:
    """A repo with a published version of a generated shop, and an older version that is not live."""

    repo: Repo
    older: Artifact
    live: Artifact
    log: pa.Table

    @property
    def store(self) -> EmbeddingStore:
        return EmbeddingStore(self.repo.feature_store(), "shop")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    """300 users and 100 items, trained by als, in seconds."""
    folder = tmp_path_factory.mktemp("served")
    files = write_shop(generate_shop(n_users=300, n_items=100, n_interactions=9000), folder / "log")
    repo = init_repo(folder / "repo")

    def train() -> Artifact:
        return train_model(
            repo.path,
            "shop",
            files["interactions"],
            trainer="als",
            parameters={"factors": 8},
            options=RunOptions(threads=1),
            user_attributes=files["users"],
            item_attributes=files["items"],
            evaluation=False,
        ).artifact

    older, live = train(), train()
    feature_store = repo.feature_store()
    feature_store.apply(list(embedding_views("shop", repo.data).by_name().values()))
    publish_artifact(feature_store, live)
    return Served(repo, older, live, pq.read_table(files["interactions"]))


def copy_of(served: Served, *users: str, to: str) -> pa.Table:
    """What these users did, under new names."""
    rows = served.log.to_pandas()
    rows = rows[rows.user_id.isin(users)].assign(user_id=lambda r: to + r.user_id)
    return pa.Table.from_pandas(rows, preserve_index=False)


def test_a_new_user_is_ranked_at_once(served: Served) -> None:
    """Folded in and pushed: neighbours, ranks without seen items, vectors by id; no other file changes."""
    store = served.store
    folded = store.fold_in_users(copy_of(served, "u-1", "u-2", to="new-"), push=True)
    assert (folded.ids, len(folded.missing), len(folded.known)) == (["new-u-1", "new-u-2"], 0, 0)

    vectors = store.user_embeddings(["new-u-1", "u-1", "new-u-2"])
    assert vectors.vectors[[0, 2]].tobytes() == folded.vectors.tobytes()
    # als solves for users last, so that the history of u-1 has the vector of u-1.
    np.testing.assert_allclose(vectors.vectors[0], vectors.vectors[1], atol=2e-3)
    assert store.similar_users("new-u-1", 1).ids == ["u-1"]
    seen = {row["item_id"] for row in served.log.to_pylist() if row["user_id"] == "u-1"}
    ranked = store.rank("new-u-1", 100)
    assert set(ranked.ids) == set(served.live.table("item")["item_id"].to_pylist()) - seen
    assert ranked.ids[:5] == store.rank("u-1", 5).ids
    assert ranked.version == served.live.manifest.version
    online = served.repo.feature_store().get_online_features(
        ["shop_user_embeddings:embedding", "shop_user_embeddings:country", "shop_user_embeddings:version"],
        [{"user_id": "new-u-2"}],
    )
    row = online.to_dict()
    assert row["embedding"][0] == folded.vectors[1].tolist()
    assert (row["country"], row["version"]) == ([None], [served.live.manifest.version])


def test_a_new_user_is_exported(served: Served) -> None:
    """With the vector that was pushed, bit for bit, what they saw, and without attributes; once."""
    folded = served.store.fold_in_users(copy_of(served, "u-3", "u-4", to="exported-"), push=True)
    found = served.store.export("user", filter="user_id IN ('exported-u-3', 'exported-u-4')").read_all()
    found = found.sort_by("user_id")
    assert found["user_id"].to_pylist() == folded.ids
    assert embedding_matrix(found).tobytes() == folded.vectors.tobytes()
    assert found["country"].null_count == 2
    shared = ("seen_items", "n_interactions", "event_timestamp", "version", "space")
    assert found.select(shared).equals(folded.table.select(shared))
    ids = served.store.export("user").read_all()["user_id"].to_pylist()
    assert len(ids) == len(set(ids))
    assert set(ids) >= {*folded.ids, *served.live.table("user")["user_id"].to_pylist()}


def test_a_new_item_is_found(served: Served) -> None:
    """An item with the buyers of another is its neighbour, and comes up for those users."""
    rows = served.log.to_pandas()
    rows = rows[rows.item_id == "sku-3"].assign(item_id="brand-new")
    folded = served.store.fold_in_items(rows, push=True)
    assert folded.ids == ["brand-new"]
    assert served.store.similar_items("brand-new", 1).ids == ["sku-3"]
    vector = served.store.item_embeddings(["brand-new"]).vectors[0]
    assert vector.tobytes() == folded.vectors[0].tobytes()


def test_users_of_the_training_are_replaced_only_if_told(served: Served) -> None:
    """Refused without a trace; with the flag the newer vector is served, and what they saw before stays seen."""
    store = served.store
    before = store.user_embeddings(["u-5"]).vectors
    seen = {row["item_id"] for row in served.log.to_pylist() if row["user_id"] == "u-5"}
    unseen = sorted(set(served.live.table("item")["item_id"].to_pylist()) - seen)[:2]
    log = pa.table({"user_id": ["u-5", "u-5", "other"], "item_id": [*unseen, unseen[0]]})
    with pytest.raises(InputError, match=r"1 of 2 users were in the training of version .* \('u-5'\); .*--update"):
        store.fold_in_users(log, push=True)
    assert store.user_embeddings(["u-5", "other"]).found.tolist() == [True, False]
    assert store.user_embeddings(["u-5"]).vectors.tobytes() == before.tobytes()

    folded = store.fold_in_users(log, push=True, update=True)
    assert folded.known.to_pylist() == ["u-5"]
    assert store.user_embeddings(["other", "u-5"]).vectors.tobytes() == folded.vectors.tobytes()
    assert not set(store.rank("u-5", 100).ids) & (seen | set(unseen))
    # That log has no times and is as of now; one that ends earlier does not replace what was learned from it.
    store.fold_in_users(copy_of(served, "u-5", to=""), push=True, update=True)
    assert store.user_embeddings(["u-5"]).vectors[0].tobytes() == folded.vectors[1].tobytes()


def test_the_command_writes_a_file(served: Served, command: Command, tmp_path: Path) -> None:
    """The file has the columns of the version's table; the report counts what could not be used."""
    log = pa.concat_tables(
        [
            copy_of(served, "u-7", to="file-").select(["user_id", "item_id"]),
            pa.table({"user_id": ["file-u-7", "lost"], "item_id": ["none", "none"]}),
        ]
    )
    pq.write_table(log, tmp_path / "log.parquet")
    output = tmp_path / "vectors.parquet"
    common = ("fold-in", "--repo", served.repo.path, "--entity", "user", "--interactions", tmp_path / "log.parquet")
    version = served.older.manifest.version
    answer = command(*common, "--version", version, "--output", output, "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out) == {
        "entity": "user",
        "version": version,
        "space": served.older.manifest.space_id,
        "folded_in": 1,
        "known": 0,
        "interactions": len(log),
        "unknown": 2,
        "missing": ["lost"],
        "rows": {"rows": len(log), "n_bad": 0, "bad": {}, "left_out": {}},
        "output": str(output),
        "pushed": False,
    }
    written = pq.read_table(output)
    assert written.schema.equals(served.older.table("user").schema)
    assert written["user_id"].to_pylist() == ["file-u-7"]
    assert list(tmp_path.glob(".*")) == []
    assert not served.store.user_embeddings(["file-u-7"]).found.any()

    answer = command(*common, "--push")
    assert answer.out == (
        f"1 user folded into version {served.live.manifest.version}, and pushed\n"
        f"2 of {len(log)} interactions are with items it does not know\n"
        "without a vector, for all of their interactions are such: 1 user (lost)\n"
    )
    assert served.store.user_embeddings(["file-u-7"]).found.all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "name a file with --output, or write into the live collection with --push"),
        (("--output", "vectors.csv"), "--output vectors.csv: expected a file name that ends in .parquet"),
        (("--output", "v.parquet", "--update"), "--update has no effect without --push"),
        (("--push", "--version", "OLDER"), "cannot be pushed: "),
        (("--push", "--version", "20200101T000000000Z"), "cannot be pushed: "),
        (("--output", "v.parquet", "--version", "20200101T000000000Z"), "has no version '20200101T000000000Z'"),
    ],
)
def test_bad_options(
    served: Served, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: Any, message: str
) -> None:
    """One line on standard error, and no file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text("user_id,item_id\nx,sku-1\n")
    options = [served.older.manifest.version if option == "OLDER" else option for option in options]
    answer = command("fold-in", "--repo", served.repo.path, "--entity", "user", "--interactions", "log.csv", *options)
    assert answer.code == (1 if "cannot be pushed" in message else 2)
    assert message in answer.err
    assert len(answer.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["log.csv"]


def test_dropped_rows_are_counted(served: Served, command: Command, tmp_path: Path) -> None:
    """In the text and in JSON: what was bad, and what options left out."""
    log = tmp_path / "log.csv"
    log.write_text(
        "user_id,item_id,timestamp\nx,sku-1,2026-01-05\nx,sku-2,2025-01-05\n,sku-1,2026-01-05\nx,sku-1,soon\n"
    )
    place = ("fold-in", "--repo", served.repo.path, "--entity", "user", "--interactions", log)
    options = ("--on-bad-rows", "drop", "--since", "2026-01-01", "--output", tmp_path / "out.parquet")
    text = command(*place, *options)
    assert (text.code, text.out.splitlines()[:2]) == (
        0,
        [
            "2 of 4 rows cannot be used and were dropped: 1 without user_id; 1 whose timestamp is not a time",
            "of 4 rows left out: 1 outside of --since and --until",
        ],
    )
    assert json.loads(command(*place, *options, "--json").out)["rows"] == {
        "rows": 4,
        "n_bad": 2,
        "bad": {"without user_id": 1, "whose timestamp is not a time": 1},
        "left_out": {"outside of --since and --until": 1},
    }


def test_without_trainers(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """If no trainer offers fold-in, the error says what to install."""
    monkeypatch.setattr("feast_embeddings.model.from_trainers.entry_points", lambda **_: ())
    with pytest.raises(MissingExtraError, match=r"feast-embeddings\[trainers\]"):
        served.store.fold_in_users(pa.table({"user_id": ["x"], "item_id": ["sku-1"]}))
