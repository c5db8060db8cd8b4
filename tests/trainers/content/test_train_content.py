"""Training with --content: which rows there are, what they say, and that all else is as without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from tests.trainers.content.conftest import GROUPS, ITEMS, Decided

from embedding_trainers.commands.train import train
from embedding_trainers.content.model import ContentModel
from embedding_trainers.fold_in import FoldIn, fold_in
from embedding_trainers.train import train_model
from embedding_trainers.trainer import RunOptions
from feast_embeddings.artifact import Artifact, embedding_matrix, load_artifact
from feast_embeddings.errors import ArtifactError, InputError

WARM = ITEMS * 9 // 10
TRAINERS = ["als", "bpr", "concat", "graph", "item2vec", "softmax", "svd"]


@pytest.fixture
def files(decided: Decided, tmp_path: Path) -> tuple[Path, Path]:
    """The log of `Decided` without its last tenth of the items, and the whole catalogue in another order."""
    users, items = decided.matrix[:, :WARM].nonzero()
    log, catalogue = tmp_path / "log.parquet", tmp_path / "items.parquet"
    pq.write_table(pa.table({"user_id": [f"u{n}" for n in users], "item_id": [f"i{n}" for n in items]}), log)
    rng = np.random.default_rng(0)
    table = pa.table(
        {
            "item_id": [f"i{n}" for n in range(ITEMS)],
            "title": decided.table["title"],
        }
    )
    pq.write_table(table.take(pa.array(rng.permutation(ITEMS))), catalogue)
    return log, catalogue


def trained(repo: Path, files: tuple[Path, Path], content: str | None, **changed: Any) -> Artifact:
    given: dict[str, Any] = {"trainer": "als", "item_attributes": files[1], "parameters": {"factors": 16}}
    given |= {"options": RunOptions(seed=1, threads=1), "evaluation": False, "align_to": None} | changed
    return train_model(repo, "m", files[0], content=content, **given).artifact


def group_of(ids: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    return np.array([int(each[1:]) % GROUPS for each in ids.to_pylist()])


def test_every_item_gets_a_vector(repo: Path, files: tuple[Path, Path]) -> None:
    """Cold rows come last, with what the saved model says of them; the vector column is content only."""
    catalogue = pq.read_table(files[1])
    photos = pa.array(list(np.random.default_rng(0).standard_normal((ITEMS, 3)).astype(np.float32)))
    catalogue = catalogue.append_column("photo", photos)
    pq.write_table(catalogue, files[1])
    artifact = trained(repo, files, "auto")
    items = artifact.table("item")
    assert set(items["item_id"].to_pylist()) == set(catalogue["item_id"].to_pylist())
    cold = items.slice(WARM)
    assert set(cold["item_id"].to_pylist()) == {f"i{n}" for n in range(WARM, ITEMS)}
    assert items["source"].to_pylist() == ["behaviour"] * WARM + ["content"] * (ITEMS - WARM)
    assert (items["n_interactions"].to_numpy() > 0).tolist() == [True] * WARM + [False] * (ITEMS - WARM)
    assert "photo" not in items.column_names
    titles = dict(zip(catalogue["item_id"].to_pylist(), catalogue["title"].to_pylist(), strict=True))
    assert items["title"].to_pylist() == [titles[each] for each in items["item_id"].to_pylist()]

    path = artifact.content()
    assert path is not None
    rows = catalogue.take(pc.index_in(cold["item_id"], value_set=catalogue["item_id"].combine_chunks()))
    said = ContentModel.load(path).of(rows)
    assert embedding_matrix(cold).tobytes() == said.factors.tobytes()
    assert cold["bias"].to_numpy().tobytes() == said.bias.tobytes()
    described = artifact.manifest.content or {}
    assert (described["asked"], described["items"]) == ("auto", ITEMS - WARM)
    columns = [(each["name"], each["encoder"]) for each in described["columns"]]
    assert columns == [("title", "category"), ("photo", "vector")]


@pytest.mark.parametrize("trainer", TRAINERS)
def test_cold_items_change_no_user(repo: Path, files: tuple[Path, Path], trainer: str) -> None:
    """Trained rows are the same bytes, and users and items fold in as without; cold items rank by their group."""
    without, with_content = (trained(repo, files, asked, trainer=trainer) for asked in ("none", "title:text"))
    for entity in ("user", "item"):
        before, after = (artifact.table(entity) for artifact in (without, with_content))
        shared = ["embedding", "n_interactions", *(["bias"] if entity == "item" else [])]
        assert after.select(shared).slice(0, len(before)).equals(before.select(shared))
        log = pq.read_table(files[0]).slice(0, 200)
        one, two = (fold_in(artifact, entity, log).table for artifact in (without, with_content))
        assert one[f"{entity}_id"].equals(two[f"{entity}_id"])
        np.testing.assert_allclose(embedding_matrix(two), embedding_matrix(one), atol=1e-5)

    users, items = with_content.table("user"), with_content.table("item").slice(WARM)
    scores = embedding_matrix(users) @ embedding_matrix(items).T + items["bias"].to_numpy()
    groups = [group_of(ids) for ids in (users["user_id"], items["item_id"])]
    likes = groups[0][:, None] == groups[1]
    assert (np.where(likes, scores, np.inf).min(axis=1) > np.where(likes, -np.inf, scores).max(axis=1)).all()


@pytest.mark.parametrize("trainer", TRAINERS)
def test_a_new_user_may_like_a_cold_item(repo: Path, files: tuple[Path, Path], trainer: str) -> None:
    """One interaction with a cold item ranks the items of its group first."""
    artifact = trained(repo, files, "title:text", trainer=trainer)
    folded = fold_in(artifact, "user", pa.table({"user_id": ["new"], "item_id": [f"i{ITEMS - 1}"]}))
    items = artifact.table("item")
    scores = folded.vectors[0] @ embedding_matrix(items).T
    first = group_of(items["item_id"])[np.argsort(-scores)[:10]]
    assert (first == (ITEMS - 1) % GROUPS).all()


def test_als_solves_with_a_cold_item(repo: Path, files: tuple[Path, Path]) -> None:
    """(Σ of the trained y yᵀ + Σ (c - 1) y yᵀ of theirs + c y yᵀ of the cold one + λ I) x = Σ c y."""
    artifact = trained(repo, files, "title:text", parameters={"factors": 4, "alpha": 3, "regularization": 0.1})
    version = FoldIn(artifact, "user")
    items = embedding_matrix(artifact.table("item")).astype(np.float64)
    pairs = version.ids.take(pa.array([0, ITEMS - 1]))
    found = version.folded(np.zeros(2, np.int64), pairs, np.ones(2, np.float32))[1].factors[0]
    assert found @ np.ones(4) != 0
    both, c = items[[0, ITEMS - 1]], 4.0
    left = items[:WARM].T @ items[:WARM] - np.outer(both[0], both[0]) + c * both.T @ both
    ridge = np.linalg.lstsq(found[:, None], c * both.sum(axis=0) - left @ found, rcond=None)[0]
    np.testing.assert_allclose((left + ridge * np.eye(4)) @ found, c * both.sum(axis=0), rtol=1e-4)


def test_the_next_version_is_aligned_by_what_was_trained(repo: Path, files: tuple[Path, Path]) -> None:
    """Cold rows of the version before are not among the shared items."""
    trained(repo, files, "title:text")
    following = trained(repo, files, "title:text", align_to="latest")
    assert following.manifest.alignment_shared_items == WARM


@pytest.mark.parametrize(
    ("content", "changed", "message"),
    [
        ("auto", {"item_attributes": None}, "--content auto: no file to take it from; name one with --items"),
        ("titles:text", {}, "--content: no column 'titles'; the columns are title; did you mean 'title'?"),
        ("title", {}, "expected COLUMN:KIND"),
    ],
)
def test_refused(repo: Path, files: tuple[Path, Path], content: str, changed: dict[str, Any], message: str) -> None:
    """Nothing is written."""
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        trained(repo, files, content, **changed)
    assert not (repo / "data").exists()


@pytest.mark.parametrize(
    ("column", "asked", "message"),
    [
        ("source", "source:category", "has a column 'source', and with --content"),
        ("code", "auto", "looks like content .'code': almost every row"),
    ],
)
def test_catalogue_refused(repo: Path, files: tuple[Path, Path], column: str, asked: str, message: str) -> None:
    """A column of ours, and nothing to use."""
    ids = pq.read_table(files[1], columns=["item_id"])
    pq.write_table(ids.append_column(column, ids["item_id"]), files[1])
    with pytest.raises(InputError, match=message):
        trained(repo, files, asked)


def test_what_looks_like_content_is_by_default(repo: Path, files: tuple[Path, Path]) -> None:
    """Unless it cannot be used: then the file is read as it is, and the reason is said."""
    users = files[1].with_name("users.parquet")
    pq.write_table(pa.table({"user_id": [*(f"u{n}" for n in range(160)), "new"], "joined": ["2024"] * 161}), users)
    artifact = trained(repo, files, None, user_attributes=users)
    described = artifact.manifest.content or {}
    assert (described["asked"], described["items"]) == (None, ITEMS - WARM)
    assert artifact.manifest.user_content is None
    assert "new" not in artifact.table("user")["user_id"].to_pylist()
    catalogue = pq.read_table(files[1])
    pq.write_table(catalogue.append_column("source", pa.repeat("shop", len(catalogue))), files[1])
    given: dict[str, Any] = {"trainer": "svd", "parameters": {"factors": 4}, "evaluation": False}
    training = train_model(repo, "other", files[0], item_attributes=files[1], **given)
    assert training.artifact.table("item")["source"].unique().to_pylist() == ["shop"]
    assert "20 items of" in training.warnings[0]
    assert "has a column 'source', and with --content" in training.warnings[0]


def test_ids_that_are_no_numbers(repo: Path, tmp_path: Path) -> None:
    """Ids of the log are whole numbers, and one of the catalogue is none."""
    log = tmp_path / "log.parquet"
    pq.write_table(pa.table({"user_id": ["a", "a", "b"], "item_id": [1, 2, 1]}), log)
    (tmp_path / "items.csv").write_text("item_id,title\n1,red shoe\n2,blue shoe\n07,old shoe\n")
    with pytest.raises(InputError, match="has the item id '07', but the interactions' ids are 64-bit whole"):
        trained(repo, (log, tmp_path / "items.csv"), "title:text")


def run(repo: Path, files: tuple[Path, Path], *arguments: str) -> tuple[str, str]:
    common = ["--repo", repo, "--model", "m", "--interactions", files[0], "--trainer", "svd", "--factors", "4"]
    done = CliRunner().invoke(train, [*map(str, common), "--no-evaluate", *arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout, done.stderr


def test_the_command(repo: Path, files: tuple[Path, Path]) -> None:
    """The summary counts them, --like and embeddings.toml ask for the same, none asks for nothing."""
    given = ("--items", str(files[1]))
    out, err = run(repo, files, *given, "--content", "none")
    assert "have no interaction, and get no vector: content is turned off" in err
    out, _ = run(repo, files, *given, "--like", "latest", "--json")
    assert json.loads(out)["content"] is None
    out, err = run(repo, files, *given, "--content", "title:text")
    assert "content of items: title:text; 20 of 200 have nothing else" in out
    assert "get no vector" not in err
    out, _ = run(repo, files, *given, "--like", "latest", "--json")
    assert json.loads(out)["content"]["items"] == ITEMS - WARM
    (repo / "embeddings.toml").write_text('[train]\ncontent = "title:text"\n')
    out, _ = run(repo, files, *given, "--json")
    assert json.loads(out)["content"]["asked"] == "title:text"
    out, _ = run(repo, files, *given, "--content", "none", "--json")
    assert json.loads(out)["content"] is None


def test_if_changed(repo: Path, files: tuple[Path, Path]) -> None:
    """What is said of cold items, and what is content, count; the rest of the same is nothing new."""
    given = ("--items", str(files[1]), "--if-changed", "--json")
    run(repo, files, *given, "--content", "none")
    every = ("title:text", "title:text", "title:category")
    news = [not json.loads(run(repo, files, *given, "--content", asked)[0])["unchanged"] for asked in every]
    catalogue = pq.read_table(files[1])
    place = catalogue["item_id"].to_pylist().index(f"i{ITEMS - 1}")
    titles = catalogue["title"].to_pylist()
    titles[place] = "A red thing"
    pq.write_table(catalogue.set_column(1, "title", pa.array(titles)), files[1])
    news.append(not json.loads(run(repo, files, *given, "--content", "title:category")[0])["unchanged"])
    assert news == [True, False, True, True]


def test_a_changed_file_is_refused(repo: Path, files: tuple[Path, Path]) -> None:
    """As the tables are."""
    path = trained(repo, files, "title:text").content()
    assert path is not None
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ArtifactError, match=r"content\.parquet was changed after training"):
        load_artifact(repo / "data", "m").content()
    path.unlink()
    with pytest.raises(ArtifactError, match=r"content\.parquet is missing"):
        load_artifact(repo / "data", "m").content()
