"""Content in a training: trained items turn to what it says, where the holdout says that this helps."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pytest
from scipy.sparse import csr_matrix

from embedding_trainers.content.model import ContentModel
from embedding_trainers.content.prior import Trained
from embedding_trainers.content.trained_rows import with_prior
from embedding_trainers.train import train_model
from embedding_trainers.trainer import KnownSide, RunOptions
from feast_embeddings.artifact import Artifact, embedding_matrix

KINDS, USERS, ITEMS = 6, 300, 240


@pytest.fixture
def log() -> pa.Table:
    """Users mostly meet items of one kind; most items met few."""
    rng = np.random.default_rng(0)
    likes = (np.arange(ITEMS) % KINDS) == (np.arange(USERS) % KINDS)[:, None]
    users, items = np.nonzero(rng.random((USERS, ITEMS)) < np.where(likes, 0.08, 0.012) * rng.gamma(0.6, 1, ITEMS))
    return pa.table({"user_id": [f"u{n}" for n in users], "item_id": [f"i{n}" for n in items]})


def trained(repo: Path, log: pa.Table, kinds: npt.NDArray[np.integer], content: str) -> Artifact:
    items = pa.table({"item_id": [f"i{n}" for n in range(ITEMS)], "kind": [f"k{kind}" for kind in kinds]})
    return train_model(
        repo,
        "m",
        log,
        trainer="svd",
        parameters={"factors": 16},
        options=RunOptions(threads=1),
        item_attributes=items,
        content=content,
        align_to=None,
    ).artifact


def test_items_of_few_interactions_turn_to_content(repo: Path, log: pa.Table) -> None:
    """By the formula, from what the saved model says of them; users stay as they are."""
    kinds = np.arange(ITEMS) % KINDS
    without, artifact = (trained(repo, log, kinds, asked) for asked in ("none", "kind:category"))
    described = artifact.manifest.content or {}
    assert described["tail"] in (2.0, 4.0, 8.0, 16.0)
    users, items = (without.table(entity) for entity in ("user", "item"))
    columns = items["item_id"].to_pylist(), users["user_id"].to_pylist()
    rows = [{each: row for row, each in enumerate(ids)} for ids in columns]
    cells = [[of[id] for id in log[name].to_pylist()] for of, name in zip(rows, ("item_id", "user_id"), strict=True)]
    matrix = csr_matrix((np.ones(len(log), np.float32), cells), shape=(len(items), len(users)))
    known = KnownSide("user", embedding_matrix(users), np.zeros(len(users), np.float32), matrix.getnnz(axis=0))
    own = Trained(embedding_matrix(items), items["bias"].to_numpy(), matrix, known)
    path = artifact.content()
    assert path is not None
    said = ContentModel.load(path).of(items.select(["kind"]))

    found = artifact.table("item")
    np.testing.assert_allclose(
        embedding_matrix(found.slice(0, len(items))), with_prior(own, said, described["tail"]).factors, atol=1e-5
    )
    assert found["source"].to_pylist() == ["both"] * len(items) + ["content"] * (ITEMS - len(items))
    assert embedding_matrix(artifact.table("user")).tobytes() == known.factors.tobytes()


def test_items_of_many_interactions_need_no_content(repo: Path) -> None:
    """Trained vectors are the bytes that they are without it."""
    kinds = np.arange(ITEMS) % KINDS
    likes = kinds == (np.arange(USERS) % KINDS)[:, None]
    users, items = np.nonzero(likes & (np.random.default_rng(0).random(likes.shape) < 0.7))
    log = pa.table({"user_id": [f"u{n}" for n in users], "item_id": [f"i{n}" for n in items]})
    without, artifact = (trained(repo, log, kinds, asked) for asked in ("none", "kind:category"))
    assert (artifact.manifest.content or {})["tail"] is None
    before = embedding_matrix(without.table("item"))
    assert embedding_matrix(artifact.table("item"))[: len(before)].tobytes() == before.tobytes()


def test_a_catalogue_of_new_arrivals(repo: Path, log: pa.Table) -> None:
    """Whose items the training part of the evaluation does not have: nothing turns, and the version is written."""
    timed = log.append_column("timestamp", pa.array(range(1_700_000_000, 1_700_000_000 + len(log))))
    new = {"user_id": ["u1", "u2"], "item_id": ["late", "late"], "timestamp": [1_700_100_000, 1_700_100_001]}
    items = pa.table({"item_id": ["late", "later", "latest"], "kind": ["a", "b", "a"]})
    artifact = train_model(
        repo,
        "m",
        pa.concat_tables([timed, pa.table(new)]),
        trainer="als",
        parameters={"factors": 8},
        options=RunOptions(threads=1),
        item_attributes=items,
    ).artifact
    assert (artifact.manifest.content or {})["tail"] is None
    assert {"late", "later", "latest"} <= set(artifact.table("item")["item_id"].to_pylist())
